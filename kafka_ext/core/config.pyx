# A producer's settings: from strings to an rd_kafka_conf_t, each refusal an InvalidConfigError that names the property.

import os as _os
import re as _re

from libc.stdio cimport FILE, fclose
from libc.stdlib cimport free

cdef extern from "<stdio.h>" nogil:
    FILE *open_memstream(char **bufp, size_t *sizep) noexcept


cdef object _LARGE_NUMBER = _re.compile(r"[-+]?[0-9]{10,}")


def known_properties():
    """The names of all the properties the loaded librdkafka knows (rd_kafka_conf_properties_show), as a frozenset of str."""
    cdef char *text = NULL          # owned, by open_memstream
    cdef size_t size = 0
    cdef FILE *stream = open_memstream(&text, &size)
    if stream == NULL:
        raise MemoryError()
    rd_kafka_conf_properties_show(stream)
    fclose(stream)
    try:
        lines = text[:size].decode("utf-8", "replace").splitlines()
    finally:
        free(text)
    # A table: `name | C/P/* | range | default | ...`; everything else is headings and rules.
    names = (line.split("|", 1)[0].strip() for line in lines if "|" in line)
    return frozenset(name for name in names if name and name != "Property" and not name.startswith("-"))


def unknown_property(str name, others):
    """The InvalidConfigError for a name that is neither librdkafka's nor among `others`: it says which one may have been meant."""
    from difflib import get_close_matches

    nearest = get_close_matches(name, known_properties() | frozenset(others), n=1, cutoff=0.6)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "; see librdkafka's CONFIGURATION.md for those there are"
    return InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, f"unknown property {name!r}{hint}"), name)


cdef int _set(rd_kafka_conf_t *conf, str name, str value, object extra_names) except -1:
    cdef char[512] errstr
    cdef bytes c_name = name.encode()
    cdef bytes c_value = value.encode()
    if b"\0" in c_name or b"\0" in c_value:
        raise InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, f"property {name!r} holds a NUL character"), name)
    cdef rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, c_name, c_value, errstr, sizeof(errstr))
    if result == RD_KAFKA_CONF_OK:
        # librdkafka reads its integers into 32 bits and checks the range of what is left: 2**40 would be 0.
        if _LARGE_NUMBER.fullmatch(value) and get_conf(conf, name).lstrip("-").isdigit() and int(get_conf(conf, name)) != int(value):
            raise InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, f"property {name!r}: {value} is out of range"), name)
        return 0
    if result == RD_KAFKA_CONF_UNKNOWN:
        raise unknown_property(name, extra_names)
    raise InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, f"property {name!r}: {_said(errstr)}"), name)


cdef str _said(const char *errstr):
    """librdkafka's words, some of which end their line."""
    return errstr.decode("utf-8", "replace").strip()


cdef object refused_conf(const char *errstr, object settings):
    """The InvalidConfigError for properties that rd_kafka_new() refuses, each for itself or together."""
    said = _said(errstr)
    # In its words one stands in quotes of some kind, or bare. The first that was given is what can be changed.
    named = _re.findall(r"[a-z][a-z0-9._]*[a-z0-9]", said)
    name = next((word for word in named if word in settings), None) or next((word for word in named if word in known_properties()), None)
    return InvalidConfigError(KafkaError(RD_KAFKA_RESP_ERR__INVALID_ARG, said), name)


cdef int _find_certificates(rd_kafka_conf_t *conf, dict settings) except -1:
    """Where the CA certificates are, for an OpenSSL that was linked in: it knows nothing of this machine's.

    What OpenSSL itself would heed (SSL_CERT_FILE, SSL_CERT_DIR) comes first. Without, librdkafka looks for Kafka's brokers in the places
    of the known distributions by itself (rd_kafka_ssl_probe_and_set_default_ca_location), but for HTTPS only when it is told to.
    """
    cdef char[512] errstr
    cdef bytes c_name
    named = (_os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    where = next((path for path in named if path and _os.path.exists(path)), None)
    for kind in ("ssl", "https"):
        given = (f"{kind}.ca.location", f"{kind}.ca.pem", f"{kind}_ca")
        if any(name in settings for name in given):
            continue
        c_name = f"{kind}.ca.location".encode()
        # A librdkafka that does not know the property (https.ca.location is of 2.11) is as it was.
        rd_kafka_conf_set(conf, c_name, _os.fsencode(where or "probe"), errstr, sizeof(errstr))
    return 0


cdef rd_kafka_conf_t *make_conf(dict settings, object extra_names) except NULL:
    """An rd_kafka_conf_t (owned by the caller) with `settings`, str to str; `extra_names` are ours, for the nearest name to a typo."""
    cdef rd_kafka_conf_t *conf = rd_kafka_conf_new()
    try:
        if KAFKA_EXT_LIBRARIES[0]:
            _find_certificates(conf, settings)
        for name, value in settings.items():
            _set(conf, name, value, extra_names)
    except BaseException:
        rd_kafka_conf_destroy(conf)
        raise
    return conf


cdef object get_conf(const rd_kafka_conf_t *conf, str name):
    """The value of property `name` in force, as str, or None where it has none. Topic-level names included (rd_kafka_conf_get)."""
    cdef size_t size = 0
    cdef bytes c_name = name.encode()
    cdef rd_kafka_conf_res_t result = rd_kafka_conf_get(conf, c_name, NULL, &size)
    if result != RD_KAFKA_CONF_OK:
        if name in known_properties():
            return None             # a pointer or callback that is not set
        raise unknown_property(name, ())
    value = bytearray(size)
    cdef char *dest = value
    rd_kafka_conf_get(conf, c_name, dest, &size)
    return value.rstrip(b"\0").decode("utf-8", "replace")
