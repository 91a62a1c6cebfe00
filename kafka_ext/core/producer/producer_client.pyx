# What a producer adds to a client: topics, counters, batches in flight, a transaction, reports.


@cython.final
cdef class ProducerClient(Client):
    """A producer's C side. Internal: everything public goes through KafkaProducer."""

    def __cinit__(self, *args, **kwargs):
        memset(&self.pool, 0, sizeof(self.pool))
        memset(&self.releases, 0, sizeof(self.releases))
        memset(&self.counts, 0, sizeof(self.counts))
        memset(&self.reports, 0, sizeof(self.reports))
        memset(&self.batches, 0, sizeof(self.batches))

    def __init__(self, dict settings, dict callbacks, bint manual, extra_names):
        if self.rk != NULL:
            raise RuntimeError("a ProducerClient is initialised once")
        if kx_parts_init(&self.batches.parts) != 0:
            raise MemoryError()
        self.batches.parts_made = True
        self.batches.parts.refused = &self.counts.refused
        self.spare = SpareMetadata()
        self.spare.reserve = RecordMetadata.__new__(RecordMetadata)
        self.topics = Topics()
        self.transaction = Transaction()
        self.transaction.parts = &self.batches.parts
        self.callbacks = callbacks
        self.manual = manual
        self.connect(RD_KAFKA_PRODUCER, RD_KAFKA_EVENT_DR, settings, extra_names)
        if settings.get("transactional.id"):
            self.transaction.state = NOT_INITIALISED

    def __dealloc__(self):
        # As the base class's, which frees the rd_kafka_t.
        if self.life.generation != kx_fork_generation or self.life.state in (OPEN, CLOSING):
            return
        kx_pool_destroy(&self.pool)
        free(self.reports.waiting)
        if self.batches.parts_made:
            kx_parts_destroy(&self.batches.parts)

    # ------------------------------------------------------------------ sending

    cdef inline int leave_produce(self, int err, int64_t size) noexcept:
        """As `leave`; a record without an `err` is enqueued, and counted before close() looks."""
        if err == RD_KAFKA_RESP_ERR_NO_ERROR:
            KX_ADD(self.counts.sent, 1)
            KX_ADD(self.counts.sent_bytes, size)
        Client.leave(self)
        return 0

    cdef Topic topic(self, object name):
        """The handle of topic `name`, made at its first use."""
        cdef Topic topic
        if not KX_FREE_THREADED:
            # One comparison of pointers: most producers send to one topic at a time.
            topic = self.topics.last_used
            if topic is not None and topic.name is name:
                return topic
        name = exact_str(name)
        topic = <Topic>self.topics.by_name.get(name)
        if topic is None:
            return self.topics.make(self, name)
        if not KX_FREE_THREADED:
            self.topics.last_used = topic
        return topic

    cdef rd_kafka_topic_t *topic_handle(self, object name) except NULL:
        return self.topic(name).rkt

    cdef int wait_for_room(self, unsigned long seen, int64_t deadline) except -1:
        """Wait, without the GIL, until reports have made room; signal handlers run in between.

        Returns:
            0: try again, 1: time is up.
        """
        cdef int64_t started = kx_now_us()
        cdef int milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
        with nogil:
            kx_gate_wait(&self.life.gate, seen, milliseconds)
        KX_ADD(self.counts.blocked_us, kx_now_us() - started)
        self.let_signals()
        return _expired(deadline)

    cdef int refuse(self) except -1:
        if self.life.generation != kx_fork_generation:
            raise ProducerForkedError(KafkaError(
                RD_KAFKA_RESP_ERR__STATE,
                "this producer was made before fork() and belongs to the parent; make one in this "
                "process"))
        raise ProducerClosedError(KafkaError(RD_KAFKA_RESP_ERR__STATE, "the producer is closed"))

    # ------------------------------------------------------------------ serving

    cdef int64_t progress(self) noexcept:
        return KX_LOAD(self.counts.delivered)

    cdef int64_t take(self, rd_kafka_event_t *event, int64_t at_most) noexcept nogil:
        return sort_reports(self, event, at_most)

    cdef int64_t ready(self) noexcept nogil:
        # Before a batch tells that it is done: its callback may look at the counter.
        KX_ADD(self.counts.delivered, self.reports.quiet)
        self.reports.quiet = 0
        self.batches.finished = kx_parts_take_finished(&self.batches.parts)
        if (self.reports.count or self.batches.finished != NULL
                or KX_LOAD(self.batches.completed_count)):
            return self.reports.count
        return -1

    cdef bint answer(self) noexcept:
        return answer_reports(self)

    cdef bint finish_turn(self) noexcept:
        cdef kx_part *finished = self.batches.finished
        self.batches.finished = NULL
        finish_parts(self, finished)
        return complete_batches(self) > 0 or finished != NULL

    cdef int give_back(self, int64_t messages) noexcept nogil:
        kx_releases_publish(&self.releases)
        # Only the serving thread writes it; a closing thread reads it.
        KX_ADD(self.counts.reported, messages)
        watch_silence(self)
        return 0

    cdef bint has_rest(self) noexcept nogil:
        return kx_releases_waiting(&self.releases)

    cdef int release_rest(self) noexcept:
        kx_releases_empty(&self.releases, &self.pool)
        return 0

    # ------------------------------------------------------------------ flushing, purging, ending

    def flush(self, timeout):
        """Send what waits and wait until every report has been served; False when the time was
        not enough.

        With an events thread, that serves; without one, this thread does. Source:
        rd_kafka_flush(), which waits but serves no events.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef bint done
        cdef int milliseconds
        while True:
            milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
            self.enter()
            done = self.finish_slice(milliseconds)
            self.leave()
            self.release_rest()
            if done:
                return True
            self.let_signals()      # raises when close() has begun: that sees to the reports
            if _expired(deadline):
                return False

    @property
    def all_reported(self):
        """Whether every record and batch has been reported, and its report served to the end."""
        return self.nothing_open()

    cdef bint nothing_open(self) noexcept:
        return (KX_LOAD(self.counts.sent) == KX_LOAD(self.counts.reported)
                and KX_LOAD(self.batches.open) == 0)

    cdef bint finish_slice(self, int milliseconds) noexcept:
        """Go on sending what waits, for about so long; True once every report has been served.
        Callable while closing. The caller releases what it leaves (`release_rest`)."""
        cdef rd_kafka_resp_err_t err
        if self.manual or KX_FLAG(self.life.abandoned):
            # rd_kafka_flush ignores linger.ms only while it runs, so it takes turns with serving.
            if not self.nothing_open():
                with nogil:
                    rd_kafka_flush(self.rk, 1)
                self.serve_here(min(milliseconds, 10))
            return self.nothing_open()
        with nogil:
            err = rd_kafka_flush(self.rk, milliseconds)
        if self.nothing_open():
            return True
        if err == RD_KAFKA_RESP_ERR_NO_ERROR:
            # librdkafka has counted the last one down. Our own count follows when the events
            # thread is back from destroying the event.
            with nogil:
                kx_gate_wait(&self.life.gate, kx_gate_seen(&self.life.gate), 1)
        return False

    def drain_now(self):
        """Send what waits now, whatever linger.ms says. Takes a millisecond: rd_kafka_flush()
        ignores linger.ms only while it waits."""
        if self.life.state != CLOSED:
            rd_kafka_flush(self.rk, 1)

    def purge(self, bint in_queue, bint in_flight):
        """Fail what waits locally (PURGE_QUEUE) and what is on its way (PURGE_INFLIGHT); the
        reports come as always."""
        if (self.serving.thread == PyThread_get_thread_ident()
                and self.life.generation == kx_fork_generation):
            # In a callback, for whose end close() waits.
            check(self.purge_now(in_queue, in_flight), "rd_kafka_purge")
            return
        self.enter()
        cdef rd_kafka_resp_err_t err = self.purge_now(in_queue, in_flight)
        self.leave()
        check(err, "rd_kafka_purge")

    def purge_rest(self):
        """Fail all that is left; callable while closing."""
        if self.life.state != CLOSED and self.life.generation == kx_fork_generation:
            self.purge_now(True, True)

    cdef rd_kafka_resp_err_t purge_now(self, bint in_queue, bint in_flight) noexcept:
        cdef int flags = 0
        cdef rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR
        if in_queue:
            flags |= RD_KAFKA_PURGE_F_QUEUE
        if in_flight:
            flags |= RD_KAFKA_PURGE_F_INFLIGHT
        if flags:
            with nogil:
                err = rd_kafka_purge(self.rk, flags)
        return err

    cdef int give_up(self) except -1:
        # Requests in flight are answered locally, so this ends.
        return check(self.purge_now(True, True), "rd_kafka_purge")

    cdef int before_destroy(self) except -1:
        self.release_rest()
        return self.topics.destroy_handles()

    cdef int after_destroy(self) except -1:
        self.topics.forget()
        self.spare.last = self.spare.reserve = None
        self.transaction.end = None
        self.transaction.refused = None
        return 0

    # ------------------------------------------------------------------ what is known

    @property
    def outstanding(self):
        """Records sent whose report has not been served to its end."""
        return KX_LOAD(self.counts.sent) - KX_LOAD(self.counts.reported)

    def counters(self):
        """The counts of ProducerMetrics, in its order; times in seconds."""
        cdef int64_t pinned = KX_LOAD(self.pool.pinned_messages)
        cdef int64_t pinned_bytes = KX_LOAD(self.pool.pinned_bytes)
        cdef int64_t waiting = 0
        cdef Counters *counters = &self.counts
        kx_parts_pinned(&self.batches.parts, &pinned, &pinned_bytes)
        KX_ADD(self.life.callers, 1)    # as enter(), but a closed producer has its counts as well
        if self.life.generation == kx_fork_generation and self.life.state == OPEN:
            waiting = rd_kafka_queue_length(self.queue)
        KX_ADD(self.life.callers, -1)
        return (
            KX_LOAD(counters.sent), KX_LOAD(counters.sent_bytes), KX_LOAD(counters.delivered),
            KX_LOAD(counters.failed), pinned, pinned_bytes,
            KX_LOAD(counters.sent) - KX_LOAD(counters.reported),
            KX_LOAD(self.callback_errors.count), KX_LOAD(counters.blocked_us) / 1e6,
            self.statistics, KX_LOAD(counters.failed_bytes), by_code(&counters.failures),
            by_code(&counters.refused), by_code(&self.errors), KX_LOAD(counters.batches),
            KX_LOAD(self.batches.pending), waiting)


def live_objects():
    """How many of each thing the extension owns are alive in the process, by name. All zero when
    every producer is closed."""
    return {"handles": KX_LOAD(live_clients), "topics": KX_LOAD(live_topics),
            "messages": KX_LOAD(kx_live_messages), "batches": KX_LOAD(kx_live_batches)}
