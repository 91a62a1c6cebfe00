# What becomes of a batch: one object that knows the outcome of each message.


@cython.final
cdef class BatchPart:
    """A piece of a batch, or a chunk of a stream. What its messages pin goes with the last report
    of them."""

    def __dealloc__(self):
        kx_part_destroy(&self.c)


@cython.final
cdef class _Numbers:
    """A buffer over a batch's, or a part's, own memory."""

    cdef object keeper              # keeps the memory
    cdef const void *data           # borrowed from `keeper`
    cdef Py_ssize_t[1] shape
    cdef Py_ssize_t[1] strides
    cdef bint wide

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("read-only")
        view.buf = <void *>self.data
        view.obj = self
        view.itemsize = 8 if self.wide else 4
        view.len = self.shape[0] * view.itemsize
        view.readonly = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = <char *>"q" if self.wide else <char *>"i"
        view.ndim = 1
        view.shape = self.shape
        view.strides = self.strides
        view.suboffsets = NULL
        view.internal = NULL


cdef object _numbers(object keeper, const int64_t *offsets, const int32_t *partitions,
                     int64_t length, bint wide):
    cdef _Numbers numbers = _Numbers.__new__(_Numbers)
    numbers.keeper = keeper
    numbers.wide = wide
    numbers.data = <const void *>offsets if wide else <const void *>partitions
    numbers.shape[0] = length
    numbers.strides[0] = 8 if wide else 4
    return memoryview(numbers)


@cython.final
cdef class BatchDelivery:
    """BatchDelivery(*args, **kwargs)\n--\n\n\
    What becomes of a batch: the result of `send_batch` and `send_table`. Thread-safe; `await` it,
    `wait` for it, or leave it. Once it is `done()`, it can be pickled and copied: what comes of
    that says the same, and knows no producer.

    Attributes:
        pending (int): messages without a report yet.
        failed (int): messages that were not enqueued or not delivered, so far.
        offsets (memoryview): int64, by index; -1 while, or where, it is not known. NumPy and Arrow
            take it without a copy; complete once `done()`.
        partitions (memoryview): int32, in the same way.
        ids (object): what was given as `ids`.
        topic (str): where it went.
    """

    def __init__(self):
        raise TypeError("a BatchDelivery is made by send_batch and send_table only")

    def __dealloc__(self):
        free(self.all_offsets)
        free(self.all_partitions)

    def __len__(self):
        return self.length

    def __bool__(self):
        return True

    @property
    def pending(self):
        cdef int64_t pending = 0
        cdef BatchPart part
        for item in self.parts:
            part = item
            pending += KX_LOAD(part.c.pending)
        return pending

    @property
    def failed(self):
        cdef int64_t failed = 0
        cdef BatchPart part
        if self.restored is not None:
            return len(self.restored)
        for item in self.parts:
            part = item
            failed += KX_LOAD(part.c.failed)
        return failed

    def done(self):
        """Whether every message has been reported, and `on_delivery` has returned."""
        return self.ended

    def wait(self, timeout=None):
        """Wait until every message has been reported; True.

        Under manual polling it serves the producer's events meanwhile.

        Raises:
            KafkaTimeoutError: messages are still without a report after `timeout` seconds. They
                stay on their way.
            KafkaException: called inside a callback of the same producer.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef int milliseconds
        if self.ended:
            return True
        if (self.client.loop is not None and not self.client.closing
                and self.client.loop.thread == PyThread_get_thread_ident()):
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__STATE,
                "wait() on the event loop's own thread would wait for itself; await the batch"))
        self.client.check_not_in_callback("wait")
        while not self.ended:
            if self.client.forked:
                self.client.refuse()            # its reports come to the parent
            if self.client.manual and not self.client.closing and self.client.loop is None:
                milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
                self.client.enter()
                self.client.serve_here(milliseconds)
                self.client.leave()
                raise_together(self.client.take_raised())
                _pause()
            else:
                self.finished.wait(_remaining_ms(deadline, 1000) / 1000.0)
            if not self.ended and _expired(deadline):
                raise KafkaTimeoutError(KafkaError(
                    RD_KAFKA_RESP_ERR__TIMED_OUT,
                    f"{self.pending} of {self.length} records have no report after {timeout} "
                    f"s{self.client.cause}"))
        return True

    def errors(self):
        """What failed, so far: `(index, KafkaError)` in the order of the index."""
        cdef BatchPart part
        cdef kx_failure *failures               # owned
        cdef size_t i, count
        if self.restored is not None:
            return list(self.restored)
        found = []
        made = {}
        for item in self.parts:
            part = item
            # A copy: Python objects are made without the lock, which others take while they hold
            # the GIL.
            count = kx_part_failures(&part.c, &failures)
            if count and failures == NULL:
                raise MemoryError()
            try:
                for i in range(count):
                    code = int(failures[i].code)
                    error = made.get(code)
                    if error is None:
                        error = made[code] = self.error_of(code)
                    found.append((part.start + failures[i].index, error))
            finally:
                free(failures)
        found.sort(key=_index_of)
        return found

    cdef object error_of(self, int code):
        return delivery_error(self.client, code)

    def raise_for_errors(self):
        """Raise a KafkaException for the first failure, if there is one; `errors()` has them
        all."""
        errors = self.errors()
        if errors:
            index, error = errors[0]
            raise _exception(KafkaError(
                error.code,
                f"{len(errors)} of {self.length} records failed; the first, at index {index}: "
                f"{error.message}",
                is_fatal=error.is_fatal))

    @property
    def offsets(self):
        return self.numbers(True)

    @property
    def partitions(self):
        return self.numbers(False)

    cdef object numbers(self, bint wide):
        cdef list parts = self.parts
        cdef BatchPart part
        if self.all_offsets != NULL:
            return _numbers(self, self.all_offsets, self.all_partitions, self.length, wide)
        joined = bytearray()
        for item in parts:
            part = item
            one = _numbers(part, part.c.offsets, part.c.partitions, part.c.length, wide)
            if len(parts) == 1:
                return one
            joined += one
        return memoryview(bytes(joined)).cast("q" if wide else "i")

    def add_done_callback(self, callback):
        """Have `callback(batch)` called once every message has been reported: by the thread that
        serves the events, or at once here."""
        if not PyCallable_Check(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        _check_runs(callback, "callback", False)
        self.heard = True
        self._observe(callback)

    def _observe(self, callback):
        """As add_done_callback, by who only looks on: failures nobody else hears of are still
        logged."""
        cdef bint later = False
        with cython.critical_section(self):
            if self.callbacks is not None:
                self.callbacks.append(callback)
                later = True
        if not later:
            callback(self)

    def __await__(self):
        # Only where it is used: importing it takes longer than importing all of this package.
        from asyncio import get_running_loop

        _import_asyncio()
        loop = get_running_loop()
        future = loop.create_future()
        self.add_done_callback(_Resolve(loop, future))
        return future.__await__()

    def __repr__(self):
        counts = f"{self.pending} pending, {self.failed} failed"
        return f"<BatchDelivery of {self.length} to {self.topic}: {counts}>"

    def __reduce__(self):
        if not self.ended:
            raise TypeError(
                "a BatchDelivery can be pickled or copied only once it is done(): wait() for it "
                "first")
        return _restore_batch, (self.topic, self.ids, self.errors(), bytes(self.offsets),
                                bytes(self.partitions))

    cdef int close_part(self) except -1:
        """One part fewer to wait for; with the last one there is nothing left but to tell it."""
        cdef int64_t left
        with cython.critical_section(self):
            self.open_parts -= 1
            left = self.open_parts
        if not left:
            to_be_completed(self.client, self)
        return 0

    cdef int complete(self) noexcept:
        """Tell who is to be told. It always comes to its end: whatever raises on the way, and where
        there is no memory either."""
        cdef ProducerClient client = self.client
        cdef list callbacks
        cdef Py_ssize_t i
        KX_ADD(client.batches.pending, -1)      # before anybody is told: who is may look
        try:
            if self.on_delivery is not None:
                call(client, self.on_delivery, (self,))
            elif self.failed and not self.heard:
                _log.warning(
                    "kafka_ext: %d of %d records of a batch to %s not delivered, and no callback "
                    "to tell: %s",
                    self.failed, self.length, self.topic, self.errors()[0][1])
        except BaseException as exc:
            KX_ADD(client.callback_errors.count, self.on_delivery is not None)
            not_lost(client, exc)
        with cython.critical_section(self):
            callbacks = self.callbacks
            self.callbacks = None
            self.on_delivery = None
            self.ended = True
        try:
            self.finished.set()
        except BaseException as exc:            # who waits looks at `ended` every second
            not_lost(client, exc)
        for i in range(len(callbacks)):
            try:
                call(client, callbacks[i], (self,))
            except BaseException as exc:
                KX_ADD(client.callback_errors.count, 1)
                not_lost(client, exc)
        KX_ADD(client.batches.open, -1)
        return 0


def _restore_batch(topic, ids, errors, bytes offsets, bytes partitions):
    cdef BatchDelivery batch = BatchDelivery.__new__(BatchDelivery)
    batch.topic = topic
    batch.ids = ids
    batch.restored = errors
    batch.parts = []
    batch.length = len(partitions) // sizeof(int32_t)
    batch.ended = True
    batch.all_offsets = <int64_t *>malloc(len(offsets) or 1)        # freed with the batch
    batch.all_partitions = <int32_t *>malloc(len(partitions) or 1)
    if batch.all_offsets == NULL or batch.all_partitions == NULL:
        raise MemoryError()
    memcpy(batch.all_offsets, <const char *>offsets, len(offsets))
    memcpy(batch.all_partitions, <const char *>partitions, len(partitions))
    return batch


def _index_of(pair):
    return pair[0]


@cython.final
cdef class _Resolve:
    """Wakes the coroutine that awaits a batch, from whichever thread."""

    cdef object loop
    cdef object future

    def __init__(self, loop, future):
        self.loop = loop
        self.future = future

    def __call__(self, batch):
        try:
            self.loop.call_soon_threadsafe(self.resolve, batch)
        except RuntimeError:            # the loop is closed, and whoever waited is gone with it
            pass

    def resolve(self, batch):
        if not self.future.done():
            resolve(self.future, batch, False)


cdef int finish_parts(ProducerClient client, kx_part *part) noexcept:
    """Let go of what finished parts pin (once: the list is taken whole);
    complete_batches is to follow."""
    cdef kx_part *next
    cdef BatchPart owner
    while part != NULL:
        next = part.next
        kx_parts_remove(&client.batches.parts, part)
        owner = <BatchPart>part.owner
        Py_DECREF(owner)                # the reference that `_start_part` took
        owner.pins = None
        owner.batch.close_part()
        # no cycle: the batch's memory goes with the last reference to it
        owner.batch = None
        part = next
    return 0


cdef int to_be_completed(ProducerClient client, BatchDelivery batch) noexcept:
    """Put `batch` into its place among those to be completed, the last one sent first: at the head,
    as a rule."""
    cdef BatchDelivery at
    with cython.critical_section(client):
        at = client.completed
        if at is None or at.number < batch.number:
            batch.next = at
            client.completed = batch
        else:
            while at.next is not None and at.next.number > batch.number:
                at = at.next
            batch.next = at.next
            at.next = batch
    KX_ADD(client.batches.completed_count, 1)
    return 0


cdef int64_t complete_batches(ProducerClient client) noexcept:
    """Complete the batches with which nobody has anything left to do, in the order in which they
    were sent; how many."""
    cdef int64_t count = 0
    cdef BatchDelivery batch, first = None, following
    with cython.critical_section(client):
        batch = client.completed
        client.completed = None
    while batch is not None:            # turned round: the oldest goes first
        following = batch.next
        batch.next = first
        first = batch
        batch = following
    while first is not None:
        batch = first
        first = batch.next
        batch.next = None
        KX_ADD(client.batches.completed_count, -1)
        batch.complete()
        count += 1
    return count
