# From what Python people hold columns in (lists, buffers, Arrow) to what the enqueue loop reads: segments and integers, see
# include/kafka_ext/columns.h. Whatever keeps the memory in place goes into a Column's `pins`.

from array import array as _array
from collections.abc import Sequence as _Sequence


# So many messages of a column are answered for, kept in place and let go together.
cdef enum:
    PART = 65536


# ------------------------------------------------------------------ what keeps memory in place

@cython.final
cdef class _Export:
    """A buffer's export, released when this goes."""

    def __cinit__(self):
        self.held = False

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef _Export _export(object exporter, str what):
    cdef _Export export = _Export()
    kx_export(exporter, &export.view, what.encode())
    export.held = True
    return export


@cython.final
cdef class _Objects:
    """References to exact `bytes` and None. What a tuple would do, but it walks through memory without waiting for each object."""

    cdef PyObject **items       # owned, with a reference to each
    cdef Py_ssize_t count

    def __cinit__(self):
        self.items = NULL

    def __dealloc__(self):
        kx_objects_drop(self.items, self.count)
        free(self.items)


cdef bint _add_objects(Column column, object sequence) except -1:
    """Add the items of a list or tuple, a snapshot; False, and nothing is added, where there are others than exact `bytes` and None.

    In pieces that are let go one by one: nobody waits, in the end, for the release of millions.
    """
    cdef _Objects objects
    cdef kx_segment *segment
    cdef Py_ssize_t start = 0, n, piece
    with cython.critical_section(sequence):     # it keeps its length and its items until all are held
        n = PySequence_Fast_GET_SIZE(sequence)
        while start < n:
            piece = min(n - start, PART)
            objects = _Objects()
            objects.items = <PyObject **>malloc(piece * sizeof(PyObject *))
            if objects.items == NULL:
                raise MemoryError()
            objects.count = kx_objects_hold(PySequence_Fast_ITEMS(sequence) + start, piece, objects.items)
            if objects.count != piece:
                column.clear()
                return False
            segment = column.add()
            segment.layout = KX_OBJECTS
            segment.index = objects.items
            segment.length = piece
            column.pins.append(objects)
            start += piece
    column.length = n
    return True


@cython.final
cdef class _Spans:
    """Pointer and length of each item of a sequence that holds more than exact `bytes`, and what keeps each in place."""

    cdef kx_bytes *items        # owned; each begins as a kx_span does, so that the enqueue loop reads them as KX_POINTERS
    cdef Py_ssize_t count

    def __cinit__(self):
        self.items = NULL

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            kx_bytes_drop(&self.items[i])
        free(self.items)


cdef _Spans _spans(tuple objects, Py_ssize_t start, Py_ssize_t n, bytes what):
    cdef _Spans spans = _Spans()
    cdef Py_ssize_t i
    spans.items = <kx_bytes *>malloc(n * sizeof(kx_bytes))
    if spans.items == NULL:
        raise MemoryError()
    for i in range(n):
        try:
            kx_bytes_get(objects[start + i], &spans.items[i], what)
        except TypeError as exc:
            raise TypeError(f"item {start + i} of {exc}") from None
        except InvalidRecordError as exc:
            raise _invalid_record(f"item {start + i} of {exc.error.message}") from None
        spans.count = i + 1
    return spans


@cython.final
cdef class _Schema:
    """An Arrow schema of ours, released when this goes."""

    def __cinit__(self):
        self.c.release = NULL

    def __dealloc__(self):
        if self.c.release != NULL:
            self.c.release(&self.c)


@cython.final
cdef class _Array:
    """An Arrow array of ours, released when this goes."""

    def __cinit__(self):
        self.c.release = NULL

    def __dealloc__(self):
        if self.c.release != NULL:
            self.c.release(&self.c)


@cython.final
cdef class _Stream:
    """The chunks of anything with `__arrow_c_stream__` or `__arrow_c_array__`, one at a time."""

    cdef int open(self, object source, str what) except -1:
        cdef int code
        self.what = what
        maker = type(source).__module__.partition(".")[0]
        self.polars = maker == "polars"
        if maker == "pyarrow":
            _validate(source, what)
        if hasattr(source, "__arrow_c_array__") and not hasattr(source, "__arrow_c_stream__"):
            self.schema_capsule, self.array_capsule = source.__arrow_c_array__()
            if not PyCapsule_IsValid(self.schema_capsule, b"arrow_schema") or not PyCapsule_IsValid(self.array_capsule, b"arrow_array"):
                raise TypeError(f"{what}: __arrow_c_array__ of {type(source).__name__} gave no pair of Arrow capsules")
            self.schema = <kx_arrow_schema *>PyCapsule_GetPointer(self.schema_capsule, b"arrow_schema")
        else:
            if hasattr(source, "read_next_batch") or hasattr(source, "__next__"):
                self.once = type(source).__name__
            self.stream_capsule = source.__arrow_c_stream__()
            if not PyCapsule_IsValid(self.stream_capsule, b"arrow_array_stream"):
                raise TypeError(f"{what}: __arrow_c_stream__ of {type(source).__name__} gave no Arrow stream capsule")
            self.stream = <kx_arrow_stream *>PyCapsule_GetPointer(self.stream_capsule, b"arrow_array_stream")
            if self.stream.release == NULL:
                raise ValueError(f"{what}: the Arrow stream was consumed before")
            self.own_schema = _Schema()
            self.schema = &self.own_schema.c
            with nogil:         # whoever makes the stream may have to run a query first, and that one Python in other threads
                code = self.stream.get_schema(self.stream, self.schema)
            self.succeeded(code)
        if self.schema.release == NULL or self.schema.format == NULL:
            raise ValueError(f"{what}: the Arrow schema was released before")
        return 0

    cdef int succeeded(self, int code) except -1:
        """Raise for an error that the stream reports."""
        cdef const char *text
        if code:
            text = self.stream.get_last_error(self.stream)
            said = text.decode("utf-8", "replace") if text != NULL else f"errno {code}"
            raise ValueError(f"{self.what}: the Arrow stream failed: {said}")
        return 0

    cdef object next(self):
        """What holds the next chunk (an _Array, or a capsule), or None at the end. Waits for it without the GIL."""
        cdef _Array array
        cdef int code
        if self.stream_capsule is None:
            capsule = self.array_capsule
            self.array_capsule = None
            return capsule
        array = _Array()
        with nogil:
            code = self.stream.get_next(self.stream, &array.c)
        self.succeeded(code)
        if array.c.release == NULL and self.once is not None:
            # One that was read before looks just as one that never had anything, and that is no error.
            _warnings.warn(f"{self.what}: this {self.once} gave nothing: it is empty, or has been read before", RuntimeWarning,
                           stacklevel=2)
        self.once = None
        return array if array.c.release != NULL else None


cdef kx_arrow_array *_array_of(object holder) except NULL:
    if isinstance(holder, _Array):
        return &(<_Array>holder).c
    return <kx_arrow_array *>PyCapsule_GetPointer(holder, b"arrow_array")


cdef int _validate(object source, str what) except -1:
    """Have pyarrow hold the ends of the offsets against its buffers' sizes, which its C interface does not tell. Not all offsets."""
    validate = getattr(source, "validate", None)        # a RecordBatchReader has none
    if validate is not None:
        try:
            validate()
        except ValueError as exc:
            raise ValueError(f"{what}: malformed Arrow array: {exc}") from None
    return 0


cdef int _check_no_addresses(_Stream stream, const kx_arrow_schema *schema, str what) except -1:
    """Polars exports an Object column as fixed-size binary, a type that it has for nothing else."""
    if stream.polars and schema.format != NULL and schema.format[0] == b"w":
        raise TypeError(f"{what}: a Polars Object column holds addresses of Python objects; cast it to Binary or String first")
    return 0


# Arrow's format strings, in the words of those who meet them in an error (Arrow's C data interface, "Data type description").
cdef dict _ARROW_TYPES = {
    "b": "bool", "c": "int8", "C": "uint8", "s": "int16", "S": "uint16", "i": "int32", "I": "uint32", "l": "int64", "L": "uint64",
    "e": "float16", "f": "float32", "g": "float64", "+s": "struct", "+l": "list", "+L": "large_list", "+m": "map", "+r": "run_end_encoded",
    "tdD": "date32", "tdm": "date64",
}


cdef str _arrow_type(str format):
    for prefix, name in (("d:", "decimal"), ("ts", "timestamp"), ("tt", "time"), ("tD", "duration"), ("+w:", "fixed_size_list"),
                         ("+v", "list_view"), ("+u", "union")):
        if format.startswith(prefix):
            return name
    return _ARROW_TYPES.get(format, format)


cdef int _arrow_problem(const char *problem, const char *text, str what, str wanted) except -1:
    """Raise for what the import of an Arrow array found."""
    if problem == NULL:
        return 0
    message = problem.decode("utf-8", "replace")
    if problem == text:
        name = _arrow_type(message.removeprefix("Arrow type "))
        raise TypeError(f"{what}: an Arrow column of {name} cannot be sent as it is; cast it to {wanted} first")
    raise ValueError(f"{what}: malformed Arrow array: {message}")


# ------------------------------------------------------------------ columns

@cython.final
cdef class Column:
    """Segments, one behind another, and what keeps their memory in place."""

    def __cinit__(self):
        self.segments = NULL
        self.pins = []
        self.owned = []

    def __dealloc__(self):
        free(self.segments)

    cdef int clear(self) except -1:
        self.count = 0
        self.pins.clear()
        return 0

    cdef kx_segment *add(self) except NULL:
        cdef kx_segment *larger = <kx_segment *>realloc(self.segments, (self.count + 1) * sizeof(kx_segment))
        if larger == NULL:
            raise MemoryError()
        self.segments = larger
        memset(&larger[self.count], 0, sizeof(kx_segment))
        self.count += 1
        return &larger[self.count - 1]

    cdef int add_arrow(self, kx_arrow_schema *schema, kx_arrow_array *array, str what, kx_arrow_array *parent) except -1:
        """Add an Arrow array; of a struct array's child only what `parent` (or NULL) says of it."""
        cdef char[128] text
        cdef kx_segment *segment = self.add()
        cdef const char *problem = kx_segment_from_arrow(schema, array, segment, text, sizeof(text))
        _arrow_problem(problem, text, what, "binary or string")
        if kx_segment_own_size(segment):
            memory = PyBytes_FromStringAndSize(NULL, kx_segment_own_size(segment))
            kx_segment_own(segment, <char *>memory)
            self.owned.append(memory)
        if parent != NULL:
            if parent.length > kx_segment_length(segment) - parent.offset:
                raise ValueError(f"{what}: malformed Arrow array: a column shorter than its table")
            segment[0] = kx_segment_slice(segment, parent.offset, parent.length)
        with nogil:
            problem = kx_segment_check(segment)
        _arrow_problem(problem, text, what, "")
        self.length += kx_segment_length(segment)
        return 0


@cython.final
cdef class _Cursor:
    """Takes a column piece by piece."""

    cdef Column take(self, int64_t count):
        """The next `count` messages, which must be there; one for all stays that."""
        cdef Column piece
        cdef int64_t run, left = count
        if self.column.length < 0:
            return self.column
        piece = Column()
        while left:
            run = min(left, kx_segment_length(&self.column.segments[self.segment]) - self.at)
            if run:
                piece.add()[0] = kx_segment_slice(&self.column.segments[self.segment], self.at, run)
                piece.pins.append(self.column.pins[self.segment])
                self.at += run
                left -= run
            else:
                self.column.pins[self.segment] = None       # its pieces keep it now, as long as they are in flight
                self.segment += 1
                self.at = 0
        piece.length = count
        return piece


cdef _Cursor _cursor(Column column):
    cdef _Cursor cursor = _Cursor()
    cursor.column = column
    return cursor


@cython.final
cdef class Lines:
    """What is between delimiters in a piece of text, where it is: a column of values for `send_batch` with no object for each.

    A sequence of `bytes`, made when they are asked for.

    Args:
        data (bytes): is kept as long as this is, or a batch of it in flight.
        delimiter (bytes): one or more.
        last (bool): what comes behind the last delimiter is a line too, unless it is empty.

    Attributes:
        end (int): behind the last delimiter, in bytes from the beginning; 0 where there is none.
        size (int): the bytes of all lines, without the delimiters.
    """

    def __cinit__(self, bytes data not None, bytes delimiter not None, bint last=False):
        cdef const char *text = data
        cdef const char *at = text
        cdef const char *stop = text + len(data)
        cdef const char *found
        cdef const char *wanted = delimiter
        cdef size_t size = len(delimiter)
        cdef kx_span *larger
        cdef Py_ssize_t room = 0
        if not size:
            raise ValueError("delimiter is empty")
        self.data = data
        while True:
            found = <const char *>(memchr(at, wanted[0], stop - at) if size == 1 else memmem(at, stop - at, wanted, size))
            if found == NULL:
                if not last or at == stop:
                    break
                found = stop
            if self.count == room:
                room = room * 2 if room else 1024
                larger = <kx_span *>realloc(self.spans, room * sizeof(kx_span))
                if larger == NULL:
                    raise MemoryError()
                self.spans = larger
            self.spans[self.count].data = at
            self.spans[self.count].size = found - at
            self.size += found - at
            self.count += 1
            at = stop if found == stop else found + size
        self.end = at - text

    def __dealloc__(self):
        free(self.spans)

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t index):
        if index < 0:
            index += self.count
        if not 0 <= index < self.count:
            raise IndexError(f"line {index} of {self.count}")
        return (<const char *>self.spans[index].data)[:self.spans[index].size]

    def __iter__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            yield self[i]


cdef bint _is_arrow(object source):
    return hasattr(source, "__arrow_c_array__") or hasattr(source, "__arrow_c_stream__")


cdef Column column_of(object source, str what, object one_for=None):
    """`source` as a Column. A single key may stand for all where `one_for`, their number, is given."""
    cdef Column column = Column()
    cdef kx_segment *segment
    cdef _Stream stream
    cdef _Export export
    cdef Py_ssize_t start
    if isinstance(source, (str, bytes, bytearray)):
        if one_for is None:
            raise TypeError(f"{what} must be many values; a lone {type(source).__name__} is one: put it in a list")
        spans = _spans((source,), 0, 1, what.encode())
        column.pins.append(spans)
        segment = column.add()
        segment.layout = KX_ONE
        segment.data = (<_Spans>spans).items[0].data
        segment.width = (<_Spans>spans).items[0].size
        column.length = -1
        return column
    if isinstance(source, (list, tuple)):
        items = source if type(source) in (list, tuple) else tuple(source)
        if not _add_objects(column, items):
            items = tuple(items)            # a snapshot: the caller may change the list
            for start in range(0, len(items), PART):
                spans = _spans(items, start, min(len(items) - start, PART), what.encode())
                segment = column.add()
                segment.layout = KX_POINTERS
                segment.index = (<_Spans>spans).items
                segment.length = (<_Spans>spans).count
                segment.width = sizeof(kx_bytes)
                column.pins.append(spans)
            column.length = len(items)
        return column
    if isinstance(source, Lines):
        segment = column.add()
        segment.layout = KX_POINTERS
        segment.index = (<Lines>source).spans
        segment.length = column.length = (<Lines>source).count
        segment.width = sizeof(kx_span)
        column.pins.append(source)
        return column
    if _is_arrow(source):
        stream = _Stream()
        stream.open(source, what)
        _check_no_addresses(stream, stream.schema, what)
        while True:
            holder = stream.next()
            if holder is None:
                return column
            column.add_arrow(stream.schema, _array_of(holder), what, NULL)
            column.pins.append(holder)
    if PyObject_CheckBuffer(source):
        export = _export(source, what)
        column.pins.append(export)
        if kx_is_numpy_time(source):
            raise TypeError(f"{what} must be many values, not one {type(source).__name__}")
        if one_for is not None and export.view.ndim == 1 and export.view.itemsize == 1 and _format(export).lstrip("@=<>!") in "Bbc":
            _refuse_one_or_each(source, export.view.shape[0], one_for, what)
            segment = column.add()
            segment.layout = KX_ONE
            segment.data = <const char *>b""
            if export.view.buf != NULL:
                segment.data = export.view.buf
            segment.width = export.view.len
            column.length = -1
            return column
        _add_rows(column, export, what)
        return column
    raise TypeError(
        f"{what} must be a list or tuple, an Arrow column (__arrow_c_array__ or __arrow_c_stream__) or a buffer of rows, "
        f"not {type(source).__name__}")


cdef str _format(_Export export):
    return export.view.format.decode() if export.view.format != NULL else "B"


cdef int _refuse_one_or_each(object source, int64_t length, int64_t count, str what) except -1:
    """An array of as many one-byte numbers as there are values: one key of all these bytes, or one of one byte for each?"""
    source = source.obj if isinstance(source, memoryview) else source
    if length == count > 1 and (isinstance(source, _array) or hasattr(source, "dtype")):
        raise TypeError(
            f"{what}: an array of {length} one-byte items for {count} values could be one key or a key for each; "
            "give tobytes() of it for one, or reshape(-1, 1) or a list of bytes for one each")
    return 0


cdef int _add_rows(Column column, _Export export, str what) except -1:
    cdef Py_buffer *view = &export.view
    cdef kx_segment *segment
    cdef str format = _format(export)
    cdef int64_t padded
    cdef Py_ssize_t width, strings
    if kx_content_of(view.format) == KX_ADDRESSES:
        raise TypeError(f"{what} must be a buffer of plain data; this one holds pointers (format {format!r})")
    if view.ndim == 2 and not format.endswith(("u", "w")):
        width = view.shape[1] * view.itemsize
    elif view.ndim == 1 and (format.startswith("T{") or format.endswith(("s", "x", "p"))):
        width = view.itemsize
    elif view.ndim == 1 and view.itemsize == 1:
        raise TypeError(f"{what} must be many values; a flat buffer of bytes is one: put it in a list")
    else:
        raise TypeError(
            f"{what} must be a buffer of two dimensions, or of one dimension of records, whose rows are the messages; "
            f"this one has {view.ndim} dimension{'' if view.ndim == 1 else 's'} of {format!r}")
    if kx_content_of(view.format) == KX_PADDED and width:
        strings = width if view.itemsize == 1 else view.itemsize
        with nogil:
            padded = kx_first_padded(view.buf, view.len // strings, strings)
        if padded >= 0:
            raise _invalid_record(
                f"{what}: item {padded * strings // width} ends in NUL, which is padding or content: NumPy forgets how long its "
                "strings were; give a list of bytes (tolist())")
    segment = column.add()
    segment.layout = KX_ROWS
    segment.length = view.shape[0]
    segment.data = view.buf
    segment.width = width
    column.length = view.shape[0]
    return 0


# ------------------------------------------------------------------ integers

@cython.final
cdef class Integers:
    """Partitions or timestamps: one for all, or one for each."""

    def __cinit__(self):
        memset(&self.c, 0, sizeof(self.c))
        self.c.multiply = self.c.divide = 1
        self.length = -1


cdef dict _WIDTHS = {"b": -1, "B": 1, "h": -2, "H": 2, "i": -4, "I": 4, "q": -8, "Q": 8, "n": -8, "N": 8,
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
        raise TypeError(f"{what} must be a buffer of ints in one dimension, not of {format!r} in {export.view.ndim}")
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
        return TypeError(f"{what}: datetime64 has no time zone; if it is UTC give astype('datetime64[ms]').astype('int64') of it")
    return TypeError(f"{what} must be an int, a sequence of ints or an integer buffer, not {type(source).__name__}")


cdef object _one_number(object source, str what, bint timestamp):
    """`source` as one int, or None when it is more than one (a NumPy array has `__index__`, too, and refuses)."""
    if timestamp and isinstance(source, _datetime.datetime):
        return _milliseconds(source, what)
    if not hasattr(source, "__index__"):
        return None
    try:
        return source.__index__()
    except TypeError:
        return None


cdef tuple _numbers_of(object sequence, str what, int64_t least, int64_t most):
    """A sequence of ints (or None; or datetimes, as timestamps) as an array of int64, and whether INT64_MIN is None there."""
    try:
        return _array("q", sequence), False
    except (TypeError, OverflowError):
        pass
    numbers = _array("q")
    for i, item in enumerate(sequence):
        if item is None:
            numbers.append(INT64_MIN)
            continue
        number = _one_number(item, f"item {i} of {what}" if isinstance(item, _datetime.datetime) else what, least > 0)
        if number is None:
            raise TypeError(f"{what} must be ints; item {i} is {_shorten(item)}")
        if not least <= number <= most:
            raise _invalid_record(f"{what} must be from {least} to {most}; item {i} is {number}")
        numbers.append(number)
    return numbers, True


cdef str _integers_wanted(int64_t least):
    """What a column of partitions, or of timestamps, which are from 1, can be cast to."""
    return "int32 or int64" if least == 0 else "int64 or a timestamp"


cdef Integers _arrow_integers(Integers integers, object source, str what, int64_t least, int64_t most):
    cdef _Stream stream = _Stream()
    cdef char[128] text
    cdef const char *problem
    cdef kx_integers chunk
    cdef int64_t i
    stream.open(source, what)
    first = stream.next()
    second = stream.next() if first is not None else None
    if first is not None and second is None:
        problem = kx_integers_from_arrow(stream.schema, _array_of(first), least > 0, &integers.c, text, sizeof(text))
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
            problem = kx_integers_from_arrow(stream.schema, _array_of(holder), least > 0, &chunk, text, sizeof(text))
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
        raise _invalid_record(f"{what} must be from {least} to {most}; item {outside} is {kx_integer_at(&integers.c, outside, least)}")
    return 0
