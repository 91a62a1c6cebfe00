# Text as a column: what is between delimiters, where it is.


@cython.final
cdef class Lines:
    """What is between delimiters in a piece of text, where it is: a column of values for
    `send_batch` with no object for each.

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
            found = <const char *>(memchr(at, wanted[0], stop - at) if size == 1
                                   else memmem(at, stop - at, wanted, size))
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
