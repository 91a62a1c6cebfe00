# Columns of integers: partitions and timestamps. See include/kafka_ext/columns.h.

from array import array as _array
from collections.abc import Sequence as _Sequence


@cython.final
cdef class Integers:
    """Partitions or timestamps: one for all, or one for each."""

    def __cinit__(self):
        memset(&self.c, 0, sizeof(self.c))
        self.c.multiply = self.c.divide = 1
        self.length = -1


cdef dict _WIDTHS = {"b": -1, "B": 1, "h": -2, "H": 2, "i": -4, "I": 4, "q": -8, "Q": 8, "n": -8,
                     "N": 8,
                     "l": -<int>sizeof(long), "L": <int>sizeof(long)}


cdef Integers integers_of(object source, str what, int64_t least, int64_t most):
    """`source` as Integers, each from `least` to `most`."""
    cdef Integers integers = Integers()
    cdef _Export export
    number = _one_number(source, what, least > 0)
    if number is not None:
        if not least <= number <= most:
            raise _invalid_record(f"{what} must be from {least} to {most}, not {number}")
        integers.c.one = number
        return integers
    if isinstance(source, (bytes, bytearray, str)) or kx_is_numpy_time(source):
        raise _not_integers(source, what, least > 0)
    if _is_arrow(source):
        return _arrow_integers(integers, source, what, least, most)
    if not PyObject_CheckBuffer(source):
        if not isinstance(source, _Sequence):
            raise _not_integers(source, what, least > 0)
        source, integers.c.blanks = _numbers_of(source, what, least, most)
    if getattr(getattr(source, "dtype", None), "kind", None) in ("M", "m"):
        raise _not_integers(source, what, least > 0)
    export = _export(source, what)
    format = _format(export)
    width = _WIDTHS.get(format.lstrip("@=<"))
    if width is None or export.view.ndim != 1:
        raise TypeError(
            f"{what} must be a buffer of ints in one dimension, not of {format!r} in "
            f"{export.view.ndim}")
    integers.c.data = export.view.buf
    integers.c.width = -export.view.itemsize if width < 0 else export.view.itemsize
    integers.c.length = integers.length = export.view.shape[0]
    integers.pins = export
    if integers.c.data == NULL:
        integers.c.data = <const char *>b""
    _check_integers(integers, what, least, most)
    return integers


cdef object _not_integers(object source, str what, bint timestamp):
    if timestamp and getattr(getattr(source, "dtype", None), "kind", None) == "M":
        return TypeError(
            f"{what}: datetime64 has no time zone; if it is UTC give "
            "astype('datetime64[ms]').astype('int64') of it")
    return TypeError(
        f"{what} must be an int, a sequence of ints or an integer buffer, not "
        f"{type(source).__name__}")


cdef object _one_number(object source, str what, bint timestamp):
    """`source` as one int, or None when it is more than one (a NumPy array has `__index__`, too,
    and refuses)."""
    if timestamp and isinstance(source, _datetime.datetime):
        return _milliseconds(source, what)
    if not hasattr(source, "__index__"):
        return None
    try:
        return source.__index__()
    except TypeError:
        return None


cdef tuple _numbers_of(object sequence, str what, int64_t least, int64_t most):
    """A sequence of ints (or None; or datetimes, as timestamps) as an array of int64, and whether
    INT64_MIN is None there."""
    try:
        return _array("q", sequence), False
    except (TypeError, OverflowError):
        pass
    numbers = _array("q")
    for i, item in enumerate(sequence):
        if item is None:
            numbers.append(INT64_MIN)
            continue
        number = _one_number(
            item, f"item {i} of {what}" if isinstance(
                item, _datetime.datetime) else what, least > 0)
        if number is None:
            raise TypeError(f"{what} must be ints; item {i} is {_shorten(item)}")
        if not least <= number <= most:
            raise _invalid_record(f"{what} must be from {least} to {most}; item {i} is {number}")
        numbers.append(number)
    return numbers, True


cdef str _integers_wanted(int64_t least):
    """What a column of partitions, or of timestamps, which are from 1, can be cast to."""
    return "int32 or int64" if least == 0 else "int64 or a timestamp"


cdef Integers _arrow_integers(Integers integers, object source, str what, int64_t least,
                              int64_t most):
    cdef _Stream stream = _Stream()
    cdef char[128] text
    cdef const char *problem
    cdef kx_integers chunk
    cdef int64_t i
    stream.open(source, what)
    first = stream.next()
    second = stream.next() if first is not None else None
    if first is not None and second is None:
        problem = kx_integers_from_arrow(stream.schema, _array_of(first), least > 0, &integers.c,
                                         text, sizeof(text))
        _arrow_problem(problem, text, what, _integers_wanted(least))
        integers.pins = (stream, first)
        integers.length = integers.c.length
        _check_integers(integers, what, least, most)
        return integers
    # None, or several: one array of them all.
    numbers = _array("q")
    holders = [] if first is None else [first, second]
    while holders:
        for holder in holders:
            problem = kx_integers_from_arrow(stream.schema, _array_of(holder), least > 0, &chunk,
                                             text, sizeof(text))
            _arrow_problem(problem, text, what, _integers_wanted(least))
            for i in range(chunk.length):
                numbers.append(kx_integer_at(&chunk, i, INT64_MIN))
        holder = stream.next()
        holders = [] if holder is None else [holder]
    integers = integers_of(numbers, what, INT64_MIN, INT64_MAX)
    integers.c.blanks = True
    _check_integers(integers, what, least, most)
    return integers


cdef int _check_integers(Integers integers, str what, int64_t least, int64_t most) except -1:
    cdef int64_t outside
    with nogil:
        outside = kx_integers_outside(&integers.c, least, most)
    if outside >= 0:
        raise _invalid_record(
            f"{what} must be from {least} to {most}; item {outside} is "
            f"{kx_integer_at(&integers.c, outside, least)}")
    return 0
