"""What a token callback returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OAuthBearerToken:
    """What `oauthbearer_token_refresh_cb(config)` returns (rd_kafka_oauthbearer_set_token).

    Attributes:
        value: the token as it goes over the wire.
        lifetime_ms: when it expires, in milliseconds since the epoch.
        principal: the Kafka principal it stands for.
        extensions: SASL extensions (RFC 7628).

    Its `repr` shows neither the token nor the extensions; a pickle has both.
    """

    value: str = field(repr=False)
    lifetime_ms: int
    principal: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict, repr=False)
