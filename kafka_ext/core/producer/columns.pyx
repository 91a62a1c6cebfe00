# From what users hold columns in (lists, buffers, Arrow) to what the enqueue loop reads: segments,
# see include/kafka_ext/columns.h. What keeps the memory in place goes into a Column's `pins`.

from array import array as _array

# So many messages of a column are reported on, kept in place and released together.
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
    """References to exact `bytes` and None. What a tuple would do, but it walks through memory
    without waiting for each object."""

    cdef PyObject **items       # owned, with a reference to each
    cdef Py_ssize_t count

    def __cinit__(self):
        self.items = NULL

    def __dealloc__(self):
        kx_objects_drop(self.items, self.count)
        free(self.items)


cdef bint _add_objects(Column column, object sequence) except -1:
    """Add the items of a list or tuple, a snapshot; False, and nothing is added, where there are
    others than exact `bytes` and None.

    In pieces that are let go one by one: nobody waits, in the end, for the release of millions.
    """
    cdef _Objects objects
    cdef kx_segment *segment
    cdef Py_ssize_t start = 0, n, piece
    # it keeps its length and its items until all are held
    with cython.critical_section(sequence):
        n = PySequence_Fast_GET_SIZE(sequence)
        while start < n:
            piece = min(n - start, PART)
            objects = _Objects()
            objects.items = <PyObject **>malloc(piece * sizeof(PyObject *))
            if objects.items == NULL:
                raise MemoryError()
            objects.count = kx_objects_hold(PySequence_Fast_ITEMS(sequence) + start, piece,
                                            objects.items)
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
    """Pointer and length of each item of a sequence that holds more than exact `bytes`, and what
    keeps each in place."""

    # owned; each begins as a kx_span does, so that the enqueue loop reads them as KX_POINTERS
    cdef kx_bytes *items
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
        cdef kx_segment *larger = <kx_segment *>realloc(self.segments,
                                                        (self.count + 1) * sizeof(kx_segment))
        if larger == NULL:
            raise MemoryError()
        self.segments = larger
        memset(&larger[self.count], 0, sizeof(kx_segment))
        self.count += 1
        return &larger[self.count - 1]

    cdef int add_arrow(self, kx_arrow_schema *schema, kx_arrow_array *array, str what,
                       kx_arrow_array *parent) except -1:
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
                # its pieces keep it now, as long as they are in flight
                self.column.pins[self.segment] = None
                self.segment += 1
                self.at = 0
        piece.length = count
        return piece


cdef _Cursor _cursor(Column column):
    cdef _Cursor cursor = _Cursor()
    cursor.column = column
    return cursor


cdef Column column_of(object source, str what, object one_for=None):
    """`source` as a Column. A single key may stand for all where `one_for`, their number, is
    given."""
    cdef Column column = Column()
    cdef kx_segment *segment
    cdef _Stream stream
    cdef _Export export
    cdef Py_ssize_t start
    if isinstance(source, (str, bytes, bytearray)):
        if one_for is None:
            raise TypeError(
                f"{what} must be many values; a lone {type(source).__name__} is one: put it in a "
                "list")
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
        if one_for is not None and export.view.ndim == 1 and export.view.itemsize == 1 and _format(
                export).lstrip("@=<>!") in "Bbc":
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
        f"{what} must be a list or tuple, an Arrow column (__arrow_c_array__ or "
        "__arrow_c_stream__) or a buffer of rows, "
        f"not {type(source).__name__}")


cdef str _format(_Export export):
    return export.view.format.decode() if export.view.format != NULL else "B"


cdef int _refuse_one_or_each(object source, int64_t length, int64_t count, str what) except -1:
    """An array of as many one-byte numbers as there are values: one key of all these bytes, or one
    of one byte for each?"""
    source = source.obj if isinstance(source, memoryview) else source
    if length == count > 1 and (isinstance(source, _array) or hasattr(source, "dtype")):
        raise TypeError(
            f"{what}: an array of {length} one-byte items for {count} values could be one key or a "
            "key for each; "
            "give tobytes() of it for one, or reshape(-1, 1) or a list of bytes for one each")
    return 0


cdef int _add_rows(Column column, _Export export, str what) except -1:
    cdef Py_buffer *view = &export.view
    cdef kx_segment *segment
    cdef str format = _format(export)
    cdef int64_t padded
    cdef Py_ssize_t width, strings
    if kx_content_of(view.format) == KX_ADDRESSES:
        raise TypeError(
            f"{what} must be a buffer of plain data; this one holds pointers (format {format!r})")
    if view.ndim == 2 and not format.endswith(("u", "w")):
        width = view.shape[1] * view.itemsize
    elif view.ndim == 1 and (format.startswith("T{") or format.endswith(("s", "x", "p"))):
        width = view.itemsize
    elif view.ndim == 1 and view.itemsize == 1:
        raise TypeError(
            f"{what} must be many values; a flat buffer of bytes is one: put it in a list")
    else:
        raise TypeError(
            f"{what} must be a buffer of two dimensions, or of one dimension of records, whose "
            "rows are the messages; "
            f"this one has {view.ndim} dimension{'' if view.ndim == 1 else 's'} of {format!r}")
    if kx_content_of(view.format) == KX_PADDED and width:
        strings = width if view.itemsize == 1 else view.itemsize
        with nogil:
            padded = kx_first_padded(view.buf, view.len // strings, strings)
        if padded >= 0:
            raise _invalid_record(
                f"{what}: item {padded * strings // width} ends in NUL, which is padding or "
                "content: NumPy forgets how long its "
                "strings were; give a list of bytes (tolist())")
    segment = column.add()
    segment.layout = KX_ROWS
    segment.length = view.shape[0]
    segment.data = view.buf
    segment.width = width
    column.length = view.shape[0]
    return 0
