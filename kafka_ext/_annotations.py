"""What annotations name, imported when `typing.get_type_hints` asks for it: importing this package
does not pay for it.
"""

from __future__ import annotations

import sys
import typing
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future as Future

    from typing_extensions import Self as Self

    from .metadata import BrokerMetadata as BrokerMetadata
    from .metrics import ProducerMetrics as ProducerMetrics
else:
    Self = typing.Self if sys.version_info >= (3, 11) else Any

_WHERE = {
    "Future": "concurrent.futures",
    "BrokerMetadata": "kafka_ext.metadata",
    "ProducerMetrics": "kafka_ext.metrics",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
