# Arrow columns and tables, by its C data interface: the memory, and errors in Arrow's own words.

import warnings as _warnings


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
            if not PyCapsule_IsValid(self.schema_capsule,
                                     b"arrow_schema") or not PyCapsule_IsValid(
                                         self.array_capsule, b"arrow_array"):
                raise TypeError(
                    f"{what}: __arrow_c_array__ of {type(source).__name__} gave no pair of Arrow "
                    "capsules")
            self.schema = <kx_arrow_schema *>PyCapsule_GetPointer(
                self.schema_capsule, b"arrow_schema")
        else:
            if hasattr(source, "read_next_batch") or hasattr(source, "__next__"):
                self.once = type(source).__name__
            self.stream_capsule = source.__arrow_c_stream__()
            if not PyCapsule_IsValid(self.stream_capsule, b"arrow_array_stream"):
                raise TypeError(
                    f"{what}: __arrow_c_stream__ of {type(source).__name__} gave no Arrow stream "
                    "capsule")
            self.stream = <kx_arrow_stream *>PyCapsule_GetPointer(
                self.stream_capsule, b"arrow_array_stream")
            if self.stream.release == NULL:
                raise ValueError(f"{what}: the Arrow stream was consumed before")
            self.own_schema = _Schema()
            self.schema = &self.own_schema.c
            # whoever makes the stream may have to run a query first, and that one Python in other
            # threads
            with nogil:
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
        """What holds the next chunk (an _Array, or a capsule), or None at the end. Waits for it
        without the GIL."""
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
            # One that was read before looks just as one that never had anything, and that is no
            # error.
            _warnings.warn(
                f"{self.what}: this {self.once} gave nothing: it is empty, or has been read "
                "before",
                RuntimeWarning, stacklevel=2)
        self.once = None
        return array if array.c.release != NULL else None


cdef kx_arrow_array *_array_of(object holder) except NULL:
    if isinstance(holder, _Array):
        return &(<_Array>holder).c
    return <kx_arrow_array *>PyCapsule_GetPointer(holder, b"arrow_array")


cdef int _validate(object source, str what) except -1:
    """Have pyarrow hold the ends of the offsets against its buffers' sizes, which its C interface
    does not tell. Not all offsets."""
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
        raise TypeError(
            f"{what}: a Polars Object column holds addresses of Python objects; cast it to Binary "
            "or String first")
    return 0


# Arrow's format strings, in the words of those who meet them in an error (Arrow's C data interface,
# "Data type description").
cdef dict _ARROW_TYPES = {
    "b": "bool", "c": "int8", "C": "uint8", "s": "int16", "S": "uint16", "i": "int32",
    "I": "uint32", "l": "int64", "L": "uint64",
    "e": "float16", "f": "float32", "g": "float64", "+s": "struct", "+l": "list",
    "+L": "large_list", "+m": "map", "+r": "run_end_encoded",
    "tdD": "date32", "tdm": "date64",
}


cdef str _arrow_type(str format):
    for prefix, name in (("d:", "decimal"), ("ts", "timestamp"), ("tt", "time"), ("tD", "duration"),
                         ("+w:", "fixed_size_list"),
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
        raise TypeError(
            f"{what}: an Arrow column of {name} cannot be sent as it is; cast it to {wanted} first")
    raise ValueError(f"{what}: malformed Arrow array: {message}")


cdef bint _is_arrow(object source):
    return hasattr(source, "__arrow_c_array__") or hasattr(source, "__arrow_c_stream__")
