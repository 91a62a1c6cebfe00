# What a record turns into on its way down: (pointer, length, owner) for value and key, an
# rd_kafka_headers_t for headers. The ownership rules themselves are in include/kafka_ext/message.h.

from collections.abc import Mapping as _Mapping

cdef object _invalid_content(object message):
    return _invalid_record(message)


kx_invalid_record = &_invalid_content


# No list comprehensions on a message's way: where there is no memory for the list to grow, Cython
# 3.3 releases the item once too often (__Pyx_ListComp_AppendAndDecref). `append` in a loop does
# not.

cdef tuple _header_pairs(object headers):
    """`headers` as given, as a tuple of `(name, value)` pairs in their order."""
    if type(headers) is dict:
        # Not by an iterator over its items: CPython up to 3.12 crashes where there is no memory for
        # that (dictiter_new).
        listed = []
        for name, value in (<dict>headers).items():
            listed.append((name, value))
        headers = listed
    elif isinstance(headers, _Mapping):
        headers = headers.items()
    if isinstance(headers, (str, bytes, bytearray)):
        raise TypeError(
            f"headers must be (name, value) pairs or a mapping, not {type(headers).__name__}")
    try:
        pairs = tuple(headers)
    except TypeError:
        raise TypeError(
            "headers must be (name, value) pairs or a mapping, not "
            f"{type(headers).__name__}") from None
    cdef bint as_given = True
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"headers must be (name, value) pairs, but one of them is {_shorten(pair)}")
        as_given = as_given and isinstance(
            pair, tuple) and (pair[1] is None or isinstance(pair[1], (bytes, str)))
    if as_given:
        return pairs
    kept = []
    for name, value in pairs:
        kept.append((name, _unchanging(value)))
    return tuple(kept)


def header_pairs(headers):
    """`headers` as `send` takes them, as a tuple of pairs whose contents stay what they are. Raises
    as `send`."""
    return _header_pairs(headers)


cdef object _unchanging(object value):
    """A header's value as the report will show it: what was sent, whatever becomes of the caller's
    buffer."""
    return value if value is None or isinstance(
        value, (bytes, str)) else content_of(value, "headers: a value")


def content_of(value, str what not None):
    """A copy of what a record with this value, key or header has on the wire. Raises as `send`,
    naming `what`."""
    cdef kx_bytes content
    cdef bytes c_what = what.encode()
    if value is None:
        return None
    kx_bytes_get(value, &content, c_what)
    try:
        return (<const char *>content.data)[:content.size]
    finally:
        kx_bytes_drop(&content)


cdef rd_kafka_headers_t *_make_headers(tuple pairs) except NULL:
    """librdkafka's copy of `pairs`, owned by the caller until an enqueue succeeds."""
    cdef rd_kafka_headers_t *headers = rd_kafka_headers_new(len(pairs))
    cdef kx_bytes content
    cdef Py_ssize_t name_size
    cdef const char *c_name
    try:
        for name, value in pairs:
            if not isinstance(name, str):
                raise TypeError(f"headers: a name must be a str, not {type(name).__name__}")
            c_name = kx_utf8(name, &name_size, b"headers: a name")
            if memchr(c_name, 0, name_size) != NULL:
                raise _invalid_record(f"headers: the name {name!r} holds a NUL character")
            kx_bytes_get(value, &content, b"headers: a value")
            if content.data == NULL:
                rd_kafka_header_add(headers, c_name, name_size, NULL, 0)
            else:
                rd_kafka_header_add(headers, c_name, name_size, content.data, content.size)
            kx_bytes_drop(&content)
    except BaseException:
        rd_kafka_headers_destroy(headers)
        raise
    return headers
