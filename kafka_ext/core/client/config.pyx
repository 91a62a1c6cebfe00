# A producer's settings: from strings to an rd_kafka_conf_t, each refusal an InvalidConfigError that
# names the property.

import os as _os
import re as _re


cdef object _INTEGER = _re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
cdef object _NUMBER = _re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
cdef object _BEGINS_AS_NUMBER = _re.compile(r"\s*[-+.]?[0-9]|\s*[-+]?(?:inf|nan)", _re.IGNORECASE)
cdef object _ALIAS = _re.compile(r"Alias for `([^`]+)`")
cdef tuple _UNITS = ((".ms", " of milliseconds"), ("kbytes", " of KiB"), ("bytes", " of bytes"),
                     (".seconds", " of seconds"))

cdef dict _table = None             # read once; the same whoever reads it


cdef dict property_table():
    """What the loaded librdkafka says of its properties (rd_kafka_conf_properties_show): `{name:
    (type, range, alias of)}`."""
    global _table
    cdef char *text = NULL          # owned, by open_memstream
    cdef size_t size = 0
    cdef FILE *stream
    if _table is not None:
        return _table
    stream = open_memstream(&text, &size)
    if stream == NULL:
        raise MemoryError()
    rd_kafka_conf_properties_show(stream)
    fclose(stream)
    try:
        lines = text[:size].decode("utf-8", "replace").splitlines()
    finally:
        free(text)
    # `name | C/P/* | range | default | importance | description <br>*Type: …*`; everything else is
    # headings and rules.
    table = {}
    for line in lines:
        columns = [column.strip() for column in line.split("|")]
        if len(columns) >= 6 and columns[
                0] and columns[0] != "Property" and not columns[0].startswith("-"):
            alias = _ALIAS.match(columns[5])
            table[
                columns[
                    0]] = line.rpartition(
                        "*Type: ")[2].strip(" *"), columns[2], alias[1] if alias else ""
    _table = table
    return table


def known_properties():
    """The names of all the properties the loaded librdkafka knows, as a frozenset of str."""
    return frozenset(property_table())


cdef object invalid_property(str name, str message):
    return InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, message), name)


cdef str what_it_takes(str name):
    """In words, the values that property `name` can have; None where any text will do."""
    kind, allowed, _ = property_table().get(name, ("", "", ""))
    if kind == "integer" or kind == "float":
        unit = next((unit for ending, unit in _UNITS if name.endswith(ending)), "")
        whole = "whole " if kind == "integer" else ""
        return f"a {whole}number{unit} from {allowed.replace(' .. ', ' to ')}"
    if kind == "boolean":
        return "true or false"
    return f"one of {allowed}" if kind == "enum value" and allowed else None


cdef int check_aliases(dict settings) except -1:
    """Raise where one setting is given by two of its names, and not the same: librdkafka would take
    the last."""
    table = property_table()
    first = {}
    for name, value in settings.items():
        _, _, alias = table.get(name, ("", "", ""))
        other = first.setdefault(alias or name, name)
        if other is not name and _compared(settings[other]) != _compared(value):
            raise invalid_property(
                name,
                f"properties {other!r} and {name!r} are two names of the same setting, and have "
                "different values "
                f"({_shorten(shown(other, settings[other]))} and {_shorten(shown(name, value))}): "
                "give one of them")
    return 0


cdef str _compared(str value):
    text = value.strip().lower()
    return "-1" if text == "all" else text      # of acks


cdef str checked_text(str name, str value):
    """`value` as it is given to librdkafka, which reads a number as far as it looks like one and
    ignores the rest."""
    kind, allowed, _ = property_table().get(name, ("", "", ""))
    text = value.strip()
    if kind == "enum value" and not text:
        raise invalid_property(name, f"property {name!r} is empty; it takes {what_it_takes(name)}")
    if kind == "string" and value[
            :1].isspace() and not name.endswith(
                ".pem") and (is_secret(name) or name.endswith((".id", ".username"))):
        # librdkafka drops white space at the beginning, though not at the end. Of a password it is
        # a part.
        raise invalid_property(
            name, f"property {name!r} begins with white space, which librdkafka would leave out")
    if kind != "integer" and kind != "float":
        return value
    form = _INTEGER if kind == "integer" else _NUMBER
    if form.fullmatch(text):
        low, _, high = allowed.partition(" .. ")
        if high and not float(low) <= float(text) <= float(high):
            raise invalid_property(
                name, f"property {name!r}: {text[:40]} is outside allowed range {low}..{high}: "
                f"it takes {what_it_takes(name)}")
        # strtod() heeds the process's locale: under de_DE, "0.5" is 0.
        return text if kind == "integer" else text.replace(
            ".", localeconv().decimal_point.decode("utf-8", "replace"))
    if not text or _BEGINS_AS_NUMBER.match(text) or not text.isascii():
        raise invalid_property(
            name,
            f"property {name!r}: {_shorten(shown(name, value))} is no number; it takes "
            f"{what_it_takes(name)}")
    return text                     # a word, such as acks=all, which is compared as a whole


def unknown_property(str name, others):
    """The InvalidConfigError for a name that is neither librdkafka's nor among `others`: it says
    which one may have been meant."""
    from difflib import get_close_matches

    nearest = get_close_matches(name, known_properties() | frozenset(others), n=1, cutoff=0.6)
    hint = "; see librdkafka's CONFIGURATION.md for those there are"
    if nearest:
        hint = f"; did you mean {nearest[0]!r}?"
    return InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG,
                                         f"unknown property {name!r}{hint}"), name)


cdef bytes property_bytes(str name, str text):
    """A property's name or value in UTF-8, refused without an exception that would hold it
    (UnicodeEncodeError.object)."""
    encoded = text.encode("utf-8", "replace")
    if encoded.decode() != text:
        raise invalid_property(
            name,
            f"property {name!r} holds a surrogate: it is not text that can be encoded as UTF-8")
    if b"\0" in encoded:
        raise invalid_property(name, f"property {name!r} holds a NUL character")
    return encoded


cdef int _set(rd_kafka_conf_t *conf, str name, str value, object extra_names,
              tuple secrets) except -1:
    cdef char[512] errstr
    cdef bytes c_name = property_bytes(name, name)
    cdef bytes c_value = property_bytes(name, checked_text(name, value))
    cdef rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, c_name, c_value, errstr,
                                                        sizeof(errstr))
    if result == RD_KAFKA_CONF_OK:
        return 0
    if result == RD_KAFKA_CONF_UNKNOWN:
        raise unknown_property(name, extra_names)
    said = "its value is refused" if is_secret(name) else redact(_said(errstr), secrets)
    takes = what_it_takes(name)
    raise invalid_property(
        name,
        f"property {name!r}: {said}; it takes {takes}" if takes else f"property {name!r}: {said}")


cdef str _said(const char *errstr):
    """librdkafka's words, some of which end their line."""
    return errstr.decode("utf-8", "replace").strip()


cdef object refused_conf(const char *errstr, object settings):
    """The InvalidConfigError for properties that rd_kafka_new() refuses, each for itself or
    together."""
    said = redact(_said(errstr), secrets_of(settings))
    # In its words one stands in quotes of some kind, or bare. The first that was given is what can
    # be changed.
    named = _re.findall(r"[a-z][a-z0-9._]*[a-z0-9]", said)
    name = next((word for word in named if word in settings),
                None) or next((word for word in named if word in known_properties()), None)
    return InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, said), name)


cdef object certificates_of_environment():
    """What SSL_CERT_FILE and SSL_CERT_DIR name, as property endings and values; None: neither is
    set."""
    path = _os.environ.get("SSL_CERT_FILE", "")
    if path:
        return (
            "location", path) if _os.path.isfile(path) else _named_nothing("SSL_CERT_FILE", path)
    paths = _os.environ.get("SSL_CERT_DIR", "")
    if not paths:
        return None
    folders = [path for path in paths.split(_os.pathsep) if path and _os.path.isdir(path)]
    if len(folders) == 1:
        return "location", folders[0]
    if not folders:
        return _named_nothing("SSL_CERT_DIR", paths)
    # librdkafka takes one folder. As OpenSSL, look only at files that `openssl rehash` has named.
    found = []
    for folder in folders:
        for name in sorted(_os.listdir(folder)):
            if _HASHED.fullmatch(name):
                with open(_os.path.join(folder, name), encoding="ascii", errors="replace") as file:
                    found.append(file.read())
    return ("pem", "\n".join(found)) if found else _named_nothing("SSL_CERT_DIR", paths)


cdef object _HASHED = _re.compile(r"[0-9a-f]{8}\.[0-9]+")


cdef object _named_nothing(str variable, str path):
    # The system's authorities in its place would trust more than whoever set it wants.
    raise invalid_property(
        "ssl.ca.location",
        f"the environment variable {variable} names {path!r}, where no certificates are: mend it, "
        "unset it, or set ssl.ca.location")


cdef int _find_certificates(rd_kafka_conf_t *conf, dict settings) except -1:
    """Where the CA certificates are, for an OpenSSL that was linked in: it knows nothing of this
    machine's.

    What OpenSSL itself would heed (SSL_CERT_FILE, SSL_CERT_DIR) comes first. Without, librdkafka
    looks for Kafka's brokers in the places of the known distributions by itself
    (rd_kafka_ssl_probe_and_set_default_ca_location), but for HTTPS only when it is told to.
    """
    cdef char[512] errstr
    cdef bytes c_name
    uses = {
        "ssl": "ssl" in settings.get("security.protocol", "").lower(),
        "https": any("https://" in value for value in settings.values()),
    }
    for kind, used in uses.items():
        if any(name in settings for name in (
                f"{kind}.ca.location", f"{kind}.ca.pem", f"{kind}_ca")):
            continue
        ending, value = "location", "probe"
        if used:
            ending, value = certificates_of_environment() or (ending, value)
        if KAFKA_EXT_LIBRARIES[0]:
            c_name = f"{kind}.ca.{ending}".encode()
            # A librdkafka that does not know the property (https.ca.location is of 2.11) is as it
            # was.
            rd_kafka_conf_set(conf, c_name, _os.fsencode(value), errstr, sizeof(errstr))
    return 0


cdef rd_kafka_conf_t *make_conf(dict settings, object extra_names) except NULL:
    """An rd_kafka_conf_t (owned by the caller) with `settings`, str to str; `extra_names` are ours,
    for the nearest name to a typo."""
    cdef rd_kafka_conf_t *conf = rd_kafka_conf_new()
    try:
        check_aliases(settings)
        _find_certificates(conf, settings)
        secrets = secrets_of(settings)
        for name, value in settings.items():
            _set(conf, name, value, extra_names, secrets)
    except BaseException:
        rd_kafka_conf_destroy(conf)
        raise
    return conf


cdef object get_conf(const rd_kafka_conf_t *conf, str name):
    """The value of property `name` in force, as str, or None where it has none. Topic-level names
    included (rd_kafka_conf_get)."""
    cdef size_t size = 0
    cdef bytes c_name = property_bytes(name, name)
    cdef rd_kafka_conf_res_t result = rd_kafka_conf_get(conf, c_name, NULL, &size)
    if result != RD_KAFKA_CONF_OK:
        if name in known_properties():
            return None             # a pointer or callback that is not set
        raise unknown_property(name, ())
    value = bytearray(size)
    cdef char *dest = value
    rd_kafka_conf_get(conf, c_name, dest, &size)
    return value.rstrip(b"\0").decode("utf-8", "replace")
