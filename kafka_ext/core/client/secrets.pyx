# Which settings are secrets, and how text is kept free of them: for reprs, errors and logs alike.

import re as _re

# By name, and rather one too many: a property that a later librdkafka adds is masked before this
# package has heard of it.
cdef object _SECRET_NAME = _re.compile(
    r"pass|secret|key|token|credential|private|pem$|jaas|user\.?info|assertion|extensions|"
    r"kinit\.cmd|oauthbearer\.config$",
    _re.IGNORECASE)
# Paths, addresses and numbers about secrets, which are none themselves.
cdef object _NO_SECRET_NAME = _re.compile(
    r"location$|file$|keytab$|url$|algorithm$|seconds$|include$|keepalive|serializer$",
    _re.IGNORECASE)
# What a URL may hold besides an address: user and password, and a query.
cdef object _URL = _re.compile(
    r"(?P<scheme>\w+://)(?:(?P<user>[^/?#\s]*)@)?(?P<address>[^?#\s]*)(?:\?(?P<query>[^#\s]*))?")
# The same without a scheme, as in user:password@host:9092.
cdef object _USER = _re.compile(r"(?<![^\s,;\"'])(?P<user>[^\s,;/@:?#]*:[^\s,;/@]*)@")
# librdkafka's errors that repeat a part of sasl.oauthbearer.config, or of a SASL extension, at
# their end.
cdef object _QUOTED = _re.compile(
    r"(Unrecognized sasl\.oauthbearer\.config beginning at: "
    r"|Invalid sasl\.oauthbearer\.config: [^:]*'[^:]*: "
    r"|Invalid sasl\.oauthbearer\.config: .* cannot appear in \w+: "
    r"|SASL/OAUTHBEARER extension (?:keys|values) must only consist of .*?characters[^:]*: ).+",
    _re.DOTALL)
# Of a value that is a list of settings, what stands between separators is looked for as well.
cdef object _LIST_NAME = _re.compile(r"config$|extensions$|info$|credentials$|pem$|jaas|cmd$",
                                     _re.IGNORECASE)
cdef object _SEPARATORS = _re.compile(r"[\s,;:=\"']+")

cdef enum:
    # Shorter text is not looked for: it would be found in any line, and keeps nobody out.
    SHORTEST_SECRET = 4
    # librdkafka cuts long lines: of a long secret, its beginning gives it away.
    SECRET_PREFIX = 64


def is_secret(str name):
    """Whether the value of property `name` is masked wherever it would be shown."""
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_NAME.search(name)


def shown_url(str text):
    """`text` with the user, password and query of each URL in it masked, one without a scheme
    too."""
    def masked(found):
        user = "***@" if found["user"] else ""
        query = "?***" if found["query"] else ""
        return f"{found['scheme']}{user}{found['address']}{query}"

    if "@" not in text and "://" not in text:
        return text
    return _USER.sub("***@", _URL.sub(masked, text))


def shown(str name, value):
    """The value of property `name` as it may be shown: masked where it is a secret."""
    if is_secret(name):
        return "***"
    return shown_url(value) if isinstance(value, str) else value


def secrets_of(settings):
    """The texts that must come out nowhere, of `settings` (a mapping of names to values), as a
    tuple, the longest first."""
    found = set()
    for name, value in settings.items():
        if not isinstance(value, str):
            continue
        if is_secret(name):
            found.add(value.strip())
            if _LIST_NAME.search(name):
                found.update(_SEPARATORS.split(value))
        elif "@" in value or "://" in value:
            for url in _URL.finditer(value):
                found.add(url["query"] or "")
            for url in (*_URL.finditer(value), *_USER.finditer(value)):
                user = url["user"] or ""
                found.update((user, user.partition(":")[2]))
    return tuple(sorted((text for text in found if len(text) >= SHORTEST_SECRET), key=len,
                        reverse=True))


def redact(str text, tuple secrets):
    """`text` with each of `secrets` masked, and with what librdkafka's errors repeat of SASL's
    settings."""
    for secret in secrets:
        if len(secret) > SECRET_PREFIX:
            text, cut, _ = text.partition(secret[:SECRET_PREFIX])
            text = text + "***" if cut else text
        elif secret in text:
            text = text.replace(secret, "***")
    return _QUOTED.sub(r"\1***", text) if "OAUTHBEARER" in text or "oauthbearer" in text else text


cdef Secrets _secrets_for(dict settings):
    cdef Secrets secrets = Secrets.__new__(Secrets)
    secrets.of_settings = secrets.all = secrets_of(settings)
    return secrets


@cython.final
cdef class Secrets:
    """The texts that must appear nowhere: of the settings, and of the newest token."""

    cdef str redacted(self, const char *text):
        """librdkafka's `text` with them masked."""
        return redact(text.decode("utf-8", "replace"), self.all)
