# One rd_kafka_t and what goes with it: its queue of events, its topics, its counters, and its end.

import re as _re

# What is alive in this process, for the tests that nothing leaks.
cdef int64_t live_handles = 0
cdef int64_t live_topics = 0


# How long a wait goes on before signal handlers get their turn, so that Ctrl-C is served in time (DESIGN.md, rule 4).
cdef enum:
    SLICE_MS = 100
    MAX_WAIT_MS = 1000 * 3600 * 24
    # So many refused records of a transaction are kept, to be known when they are sent again; those behind them count as lost.
    MOST_OWED = 1000

cdef object _TOPIC_NAME = _re.compile(r"[a-zA-Z0-9._-]{1,249}")


cdef int64_t _deadline(object timeout) except -2:
    """The moment, in microseconds of the monotonic clock, at which `timeout` seconds are over; -1: never."""
    if timeout is None:
        return -1
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        raise TypeError(f"timeout must be a number of seconds or None, not {_shorten(timeout)}") from None
    if isinstance(timeout, (str, bytes)):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if not seconds >= 0:
        raise ValueError(f"timeout must be 0 or more seconds, or None for no limit, not {timeout!r}")
    return kx_now_us() + <int64_t>(min(seconds, 1e9) * 1e6)


cdef int _remaining_ms(int64_t deadline, int at_most) noexcept nogil:
    """Milliseconds until `deadline`, rounded up, at least 0 and at most `at_most`."""
    if deadline < 0:
        return at_most
    cdef int64_t left = (deadline - kx_now_us() + 999) // 1000
    if left < 0:
        return 0
    return <int>left if left < at_most else at_most


cdef bint _expired(int64_t deadline) noexcept nogil:
    return deadline >= 0 and kx_now_us() >= deadline


@cython.final
cdef class Topic:
    """A topic handle, and its name as the one str all its records' metadata share."""

    def __cinit__(self):
        self.rkt = NULL


# The life of a client (DESIGN.md, rule 10), each step of it taken once and in this order; nothing goes back.
#
#   NEW       made, and nobody serves it yet                   open()           it gets its events thread, its loop, or who polls
#   OPEN      calls are let in                                 begin_close()    close(), or the producer was dropped
#   CLOSING   no new calls; reports still come                 destroy()        every report has come, by a purge if time was up
#   CLOSED    librdkafka's side goes with its last user
#
# A fork ends it in the child, in whichever state it was (`generation`): every call raises ProducerForkedError, and nothing is freed.
#
# Between enter() and leave() a call counts as inside, and close() waits for it before it lets anything go. So there is nothing but C in
# between, a tenth of a second at most (rule 9): whatever could run the user's code, a garbage collection too, comes before or after, and
# then the state is looked at anew. Where Python and C take turns, keep() and let_go() keep librdkafka's side instead; close() does not
# wait for those.
#
# All waiting is done at the handle's gate, with its deadline on CLOCK_MONOTONIC: the gate opens whenever reports have been served and when
# the state changes, and who waits looks at the state in between.
cdef enum HandleState:
    NEW = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


# What a producer of transactions is to call next. librdkafka has the state itself, and says so too late: the calls that end a transaction
# wait in threads of their own.
cdef enum TransactionState:
    NO_TRANSACTIONS = 0         # no transactional.id
    NOT_INITIALISED = 1
    INITIALISING = 2            # init_transactions() has been called and has not returned: call it again
    BETWEEN_TRANSACTIONS = 3
    IN_TRANSACTION = 4          # until librdkafka has said that it is committed or aborted


# What a thread has made and another lets go, free-threaded CPython frees only when the first runs bytecode again. So a call that waits runs
# some: else whatever its own records held would stay until it returns, a stream of batches whole.
cdef object _some_bytecode = eval("lambda: None")


@cython.final
cdef class Handle:
    """A producer's C side. `Producer` and the events thread share it, so that a producer can be collected while it works.

    Internal: everything public goes through KafkaProducer.
    """

    def __cinit__(self):
        self.rk = NULL
        self.queue = NULL
        self.todo = NULL
        self.throttles = NULL
        self.at_hand = NULL
        self.gate_made = False
        self.state = NEW
        self.generation = kx_fork_generation
        self.users = 1
        memset(&self.pool, 0, sizeof(self.pool))
        memset(&self.releases, 0, sizeof(self.releases))

    def __init__(self, dict settings, dict callbacks, bint manual, extra_names):
        cdef char[512] errstr
        cdef rd_kafka_conf_t *conf
        cdef rd_kafka_t *rk
        cdef int events = RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS | RD_KAFKA_EVENT_LOG
        if self.rk != NULL:
            raise RuntimeError("a Handle is initialised once")
        if kx_gate_init(&self.gate) != 0:
            raise MemoryError()
        self.gate_made = True
        if kx_parts_init(&self.parts) != 0:
            raise MemoryError()
        self.parts_made = True
        self.parts.refused = &self.refused
        self.reserve = RecordMetadata.__new__(RecordMetadata)
        self.topics = {}
        self.callbacks = callbacks
        self.manual = manual
        self.raised = []
        self.setting_secrets = self.secrets = secrets_of(settings)
        self.causes = _Causes()
        conf = make_conf(settings, extra_names)
        # Rule 3: all that librdkafka has to say comes through queues. The refresh event is asked for only with a callback to
        # serve it, for without one librdkafka fetches OIDC tokens by itself.
        cdef bint unsecured = False
        if "oauthbearer_token_refresh_cb" in callbacks:
            events |= RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
        elif settings.get("enable.sasl.oauthbearer.unsecure.jwt", "false").lower() in ("true", "t", "1"):
            unsecured = True                # made by librdkafka's own callback, in its background thread
            rd_kafka_conf_enable_sasl_queue(conf, 1)
        rd_kafka_conf_set_events(conf, events)
        rd_kafka_conf_set_opaque(conf, <void *>&self.throttles)     # borrowed: rk does not outlive self
        if "throttle_cb" in callbacks:
            rd_kafka_conf_set_throttle_cb(conf, _on_throttle)
        with nogil:
            rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr))
        if rk == NULL:
            rd_kafka_conf_destroy(conf)     # a refused conf stays the caller's
            raise refused_conf(errstr, settings)
        self.rk = rk
        if settings.get("transactional.id"):
            self.transactions = NOT_INITIALISED
        self.queue = rd_kafka_queue_get_main(rk)
        rd_kafka_set_log_queue(rk, self.queue)
        if unsecured:
            rd_kafka_error_destroy(rd_kafka_sasl_background_callbacks_enable(rk))
        KX_ADD(live_handles, 1)

    def __dealloc__(self):
        # Only C is freed here, and only by the process that owns it. A handle that still lives is one whose events thread died with
        # the interpreter: nobody may wait for it any more (rule 1 was kept by the exit handler, or cannot be).
        if self.generation != kx_fork_generation or self.state in (OPEN, CLOSING):
            return
        if self.rk != NULL and self.state == NEW:       # whoever made it has not come so far as to pass it on
            rd_kafka_queue_destroy(self.queue)
            with nogil:
                rd_kafka_destroy(self.rk)
            KX_ADD(live_handles, -1)
        kx_pool_destroy(&self.pool)
        free(self.todo)
        if self.gate_made:
            kx_gate_destroy(&self.gate)
        if self.parts_made:
            kx_parts_destroy(&self.parts)

    def open(self):
        """From here on somebody serves it, and will close it."""
        if self.state == NEW:
            self.state = OPEN

    # ------------------------------------------------------------------ who may call

    cdef int enter(self) except -1:
        """Count a call in: until `leave` the handle is not destroyed, and nothing but C may run (a callback excepted)."""
        if not self.try_enter():
            self.refuse()
        return 0

    cdef bint try_enter(self) noexcept:
        KX_ADD(self.callers, 1)
        if self.generation != kx_fork_generation or self.state > OPEN:
            KX_ADD(self.callers, -1)
            return False
        kx_enters()
        return True

    cdef int leave(self) noexcept:
        kx_leaves()
        KX_ADD(self.callers, -1)
        return 0

    cdef inline int leave_produce(self, int err, int64_t size) noexcept:
        """As `leave`, with a record that was enqueued unless there is an `err`: counted before close() may look."""
        if err == RD_KAFKA_RESP_ERR_NO_ERROR:
            KX_ADD(self.sent, 1)
            KX_ADD(self.sent_bytes, size)
        self.leave()
        return 0

    cdef int let_signals(self) except -1:
        """Let signal handlers run in the middle of a call that waits. They may close the producer, and so may others: then this raises."""
        _pause()
        if KX_FREE_THREADED:
            _some_bytecode()
        if self.generation != kx_fork_generation or self.state > OPEN:
            self.refuse()
        return 0

    cdef bint keep(self) noexcept:
        """One user more of librdkafka's side, until `let_go`; False when that is gone."""
        cdef bint there
        with cython.critical_section(self):
            there = self.users > 0 and self.generation == kx_fork_generation
            self.users += there
        return there

    cdef int keep_open(self) except -1:
        """As `keep`, for a call: it raises unless the producer is open in this process."""
        if self.generation != kx_fork_generation or self.state > OPEN or not self.keep():
            self.refuse()
        return 0

    cdef int refuse(self) except -1:
        if self.generation != kx_fork_generation:
            raise ProducerForkedError(KafkaError(
                RD_KAFKA_RESP_ERR__STATE, "this producer was made before fork() and belongs to the parent; make one in this process"))
        raise ProducerClosedError(KafkaError(RD_KAFKA_RESP_ERR__STATE, "the producer is closed"))

    def check_usable(self):
        """Raise unless the producer is open in this process."""
        if self.generation != kx_fork_generation or self.state > OPEN:
            self.refuse()

    def check_not_in_callback(self, str call):
        """Raise when the calling thread is inside one of this producer's callbacks, where `call` would wait for itself."""
        if self.serving_thread == PyThread_get_thread_ident() and self.generation == kx_fork_generation:
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__STATE,
                f"{call}() inside a callback of the same producer would wait for that callback; call it outside"))

    @property
    def loop_thread_id(self):
        """The thread whose event loop serves, as threading.get_ident() has it; 0: none."""
        return self.loop_thread

    @property
    def abandoned(self):
        """Its producer was dropped: what there is is delivered, then it ends."""
        return bool(KX_FLAG(self.dropped))

    @abandoned.setter
    def abandoned(self, bint abandoned):
        KX_SET(self.dropped, abandoned)

    @property
    def forked(self):
        return self.generation != kx_fork_generation

    @property
    def closed(self):
        return self.state == CLOSED

    @property
    def running(self):
        """Whether a thread is inside `run`; none that comes there after `stop_events` serves anything."""
        return self.in_run

    @property
    def closing(self):
        return self.state > OPEN

    @property
    def outstanding(self):
        """Records sent whose report has not been served to its end."""
        return KX_LOAD(self.sent) - KX_LOAD(self.reported)

    # ------------------------------------------------------------------ what an open transaction lacks

    cdef int miss(self, object record, int code) noexcept:
        """`record` (None: of a batch) was to be sent and was not enqueued: the transaction cannot be committed, unless it is sent again."""
        cdef Py_ssize_t i, place
        if self.transactions != IN_TRANSACTION or self.ending is not None:
            return 0
        try:
            with cython.critical_section(self):
                if self.owed is None:
                    self.owed = []
                if record is not None:
                    place = len(self.owed)
                    for i in range(len(self.owed)):
                        if self.owed[i] is record:
                            return 0
                        if self.owed[i] is None:
                            place = i
                    if place < MOST_OWED:
                        if place < len(self.owed):
                            self.owed[place] = record
                        else:
                            self.owed.append(record)
                        if self.parts.missed_code == 0:
                            self.parts.missed_code = code
                        return 0
        except MemoryError:
            pass
        kx_missed(&self.parts, code)
        return 0

    cdef int catch_up(self, object record) noexcept:
        """`record` has been enqueued, so this must not raise: it needs no memory, and leaves None in the record's place."""
        cdef Py_ssize_t i
        cdef bint others = False
        with cython.critical_section(self):
            if self.owed is not None:
                for i in range(len(self.owed)):
                    if self.owed[i] is record:
                        self.owed[i] = None
                    elif self.owed[i] is not None:
                        others = True
                if not others:
                    self.owed = None
        return 0

    cdef int64_t missed(self) except -1:
        """How many records the open transaction lacks."""
        cdef int64_t missed = KX_LOAD(self.parts.missed)
        with cython.critical_section(self):
            if self.owed is not None:
                for other in self.owed:
                    missed += other is not None
        return missed

    # ------------------------------------------------------------------ topics

    cdef Topic topic(self, object name):
        """The handle of topic `name`, made at its first use. Looking a topic up in librdkafka costs more than the rest of a send."""
        cdef Topic topic
        if not KX_FREE_THREADED:
            topic = self.last_topic             # one comparison of pointers, and most producers send to one topic at a time
            if topic is not None and topic.name is name:
                return topic
        name = exact_str(name)
        topic = <Topic>self.topics.get(name)
        if topic is not None:
            if not KX_FREE_THREADED:
                self.last_topic = topic
            return topic
        if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
            raise InvalidRecordError(KafkaError(
                RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
                f"topic {_shorten(name)}: a topic's name is 1 to 249 of the characters a-z A-Z 0-9 . _ -, and neither . nor .."))
        topic = Topic()
        topic.name = name
        cdef bytes c_name = topic.name.encode()
        cdef const char *c_text = c_name
        cdef rd_kafka_topic_conf_t *conf
        cdef rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR
        self.enter()
        conf = rd_kafka_default_topic_conf_dup(self.rk)
        rd_kafka_topic_conf_set_opaque(conf, <void *>topic.name)
        topic.rkt = rd_kafka_topic_new(self.rk, c_text, conf)
        if topic.rkt == NULL:
            rd_kafka_topic_conf_destroy(conf)
            err = rd_kafka_last_error()
        else:
            # Two threads may have come here for the same name: librdkafka counts references, the first one's name stays in use.
            KX_ADD(live_topics, 1)
            with cython.critical_section(self):
                topic.next = self.all_topics
                self.all_topics = topic
        self.leave()
        check(err, "rd_kafka_topic_new")
        return self.topics.setdefault(topic.name, topic)

    # ------------------------------------------------------------------ waiting

    cdef int wait_for_room(self, unsigned long seen, int64_t deadline) except -1:
        """Wait, without the GIL, until the events thread has made room; signal handlers get their turn. 0: try again, 1: time is up."""
        cdef int64_t started = kx_now_us()
        cdef int milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
        with nogil:
            kx_gate_wait(&self.gate, seen, milliseconds)
        KX_ADD(self.blocked_us, kx_now_us() - started)
        self.let_signals()
        return _expired(deadline)

    def settle(self):
        """Release what reports nobody listened to have left behind."""
        kx_releases_empty(&self.releases, &self.pool)

    def flush(self, timeout):
        """Send what waits and wait for every report to have been served; False when the time was not enough.

        With an events thread, that serves; without one, this thread does. Source: rd_kafka_flush(), which waits but serves no events.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef bint done
        cdef int milliseconds
        while True:
            milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
            self.enter()
            done = self.flush_slice(milliseconds)
            self.leave()
            kx_releases_empty(&self.releases, &self.pool)
            if done:
                return True
            self.let_signals()          # raises when close() has begun elsewhere: that sees to the reports, within its own time
            if _expired(deadline):
                return False

    cdef bint all_reported(self) noexcept:
        return KX_LOAD(self.sent) == KX_LOAD(self.reported) and KX_LOAD(self.open_batches) == 0

    cdef bint flush_slice(self, int milliseconds) noexcept:
        """Go on sending what waits, at most about so long: True once every report has been served. Callable while closing.

        What it has left to be released is the caller's to see to.
        """
        cdef rd_kafka_resp_err_t err
        if self.manual or KX_FLAG(self.dropped):
            # rd_kafka_flush ignores linger.ms only while it runs, so it takes turns with serving.
            if not self.all_reported():
                with nogil:
                    rd_kafka_flush(self.rk, 1)
                serve_here(self, min(milliseconds, 10))
            return self.all_reported()
        with nogil:
            err = rd_kafka_flush(self.rk, milliseconds)
        if self.all_reported():
            return True
        if err == RD_KAFKA_RESP_ERR_NO_ERROR:
            # librdkafka has counted the last one down; our own count follows when the events thread is back from destroying it.
            with nogil:
                kx_gate_wait(&self.gate, kx_gate_seen(&self.gate), 1)
        return False

    def purge(self, bint in_queue, bint in_flight):
        """Fail what waits locally (PURGE_QUEUE) and what is on its way (PURGE_INFLIGHT); the reports come as always."""
        if self.serving_thread == PyThread_get_thread_ident() and self.generation == kx_fork_generation:
            check(self.purge_now(in_queue, in_flight), "rd_kafka_purge")    # in a callback, for whose end close() waits
            return
        self.enter()
        cdef rd_kafka_resp_err_t err = self.purge_now(in_queue, in_flight)
        self.leave()
        check(err, "rd_kafka_purge")

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

    # ------------------------------------------------------------------ the end

    def begin_close(self):
        """No new calls from here on; those that wait for room give up."""
        if self.state <= OPEN:
            self.state = CLOSING
        kx_gate_open(&self.gate)

    def finish_close(self, timeout):
        """Wait for every report, then purge and wait for the rest. True when all were delivered without a purge."""
        cdef int64_t deadline = _deadline(timeout)
        cdef bint delivered = True
        cdef bint done
        while KX_LOAD(self.callers) > 0:
            kx_gate_open(&self.gate)
            with nogil:
                kx_gate_wait(&self.gate, kx_gate_seen(&self.gate), 1)
            _pause()
            if self.over():
                return True
        while True:
            done = self.flush_slice(_remaining_ms(deadline, _slice_ms(SLICE_MS)) if delivered else _slice_ms(SLICE_MS // 2))
            kx_releases_empty(&self.releases, &self.pool)
            if not done:
                _pause()
            if self.over():
                return True
            if done:
                return delivered
            if self.hurry or _expired(deadline):
                # All that is left fails now. In flight requests are answered locally, so this ends (rd_kafka_purge).
                delivered = False
                check(self.purge_now(True, True), "rd_kafka_purge")

    cdef bint over(self) noexcept:
        """Whether a signal handler or a callback has closed the producer, or has forked, while this call was waiting."""
        return self.state == CLOSED or self.generation != kx_fork_generation

    def stop_events(self):
        """Make the events thread end once it has served what there is."""
        KX_SET(self.stop, 1)
        if self.queue != NULL:
            rd_kafka_queue_yield(self.queue)

    def destroy(self):
        """Free librdkafka's side. Only after finish_close, and with no thread in `run`."""
        if self.state == CLOSED or self.generation != kx_fork_generation:
            return
        while serve_here(self, 0):
            pass                # the last logs and errors; all reports have been served (rule 8)
        if self.over():
            return
        self.state = CLOSED
        kx_gate_open(&self.gate)
        finish_parts(self, kx_parts_take_finished(&self.parts))     # of a send_batch that another thread's close() has just stopped
        complete_batches(self)
        self.let_go()

    cdef int let_go(self) except -1:
        """One user fewer; the last one frees. A call set `aside` cannot be interrupted, and close() does not wait for it."""
        cdef bint last
        cdef Topic topic
        cdef Throttle *throttle
        cdef rd_kafka_t *rk = self.rk
        with cython.critical_section(self):
            self.users -= 1
            last = self.users == 0
        if not last:
            return 0
        kx_releases_empty(&self.releases, &self.pool)
        topic = self.all_topics
        while topic is not None:
            rd_kafka_topic_destroy(topic.rkt)
            topic.rkt = NULL
            KX_ADD(live_topics, -1)
            topic = topic.next
        rd_kafka_queue_destroy(self.queue)
        self.queue = NULL
        self.rk = NULL
        with nogil:
            rd_kafka_destroy(rk)
        while self.throttles != NULL:
            throttle = self.throttles
            self.throttles = throttle.next
            free(throttle)
        # The names are the C topics' opaques: they go only now that nothing can look at them.
        self.topics.clear()
        while self.all_topics is not None:      # one by one: a chain that goes at once goes by recursion
            topic = self.all_topics
            self.all_topics = topic.next
            topic.next = None
        self.last_topic = None
        self.spare = self.reserve = None
        self.ending = None
        self.owed = None
        self.callbacks = _NO_CALLBACKS
        KX_ADD(live_handles, -1)
        return 0

    # ------------------------------------------------------------------ serving

    def run(self):
        """The events thread: serve until `stop`. The GIL is only held while there is something to call."""
        self.in_run = True
        kx_enter_callbacks()        # all that runs on this thread is like a callback: finalizers of what it releases, garbage collections
        if not self.abandoned:
            self.serving_thread = PyThread_get_thread_ident()
        try:
            with nogil:
                # A callback that forks comes back here in the child as well, where there is nothing to serve.
                while not (KX_FLAG(self.stop) or KX_FLAG(self.dropped) or self.generation != kx_fork_generation):
                    if serve(self, 5 if kx_releases_waiting(&self.releases) else SLICE_MS * 10) == 0 \
                            and kx_releases_waiting(&self.releases):
                        with gil:
                            kx_releases_empty(&self.releases, &self.pool)
            while KX_FLAG(self.dropped) and not self.over():
                try:
                    self.begin_close()
                    self.finish_close(None)
                    self.destroy()
                except MemoryError as exc:          # nobody else would do it
                    unraisable(exc, None)
                    with nogil:
                        kx_gate_wait(&self.gate, kx_gate_seen(&self.gate), SLICE_MS)
        finally:
            report_not_shown(self)
            kx_leave_callbacks()
            self.serving_thread = 0
            self.in_run = False

    def poll(self, timeout):
        """Serve on this thread: wait up to `timeout` seconds for the first event, then serve all that is there."""
        cdef int64_t deadline = _deadline(timeout)
        cdef int64_t served = 0
        cdef int64_t waiting
        cdef int64_t now
        cdef int milliseconds
        self.enter()
        waiting = rd_kafka_queue_length(self.queue) + 1
        self.leave()
        while True:
            milliseconds = 0 if served else _remaining_ms(deadline, _slice_ms(SLICE_MS))
            self.enter()
            now = serve_here(self, milliseconds)
            self.leave()
            kx_releases_empty(&self.releases, &self.pool)
            served += now
            if (served and (now == 0 or served >= waiting)) or (not served and _expired(deadline)):
                break
            if self.raised or (served and self.state != OPEN):
                break
            self.let_signals()
        return served

    def take_raised(self):
        """What callbacks raised under manual polling since the last time, as a list of at most MAX_RAISED."""
        raised, count = self.raised, self.not_kept
        self.raised, self.not_kept = [], 0
        if count:
            text = f"{count} more callbacks raised; the first {len(raised)} exceptions are kept"
            _log.warning(text)
            last = raised[len(raised) - 1]
            if hasattr(last, "add_note"):               # Python 3.11
                last.add_note(text)
        return raised

    # ------------------------------------------------------------------ what is known

    def get_property(self, str name):
        self.keep_open()
        try:
            return get_conf(rd_kafka_conf(self.rk), name)
        finally:
            self.let_go()

    def fatal_error(self):
        """The fatal error that ended the producer's work, or None (rd_kafka_fatal_error)."""
        if self.generation != kx_fork_generation or not self.keep():
            return None
        try:
            return _fatal_error(self.rk)
        finally:
            self.let_go()

    @property
    def cause(self):
        """The last error of a connection, to put behind the message of a timeout; "": none is known, or it is over."""
        return self.causes.known(self)

    def test_fatal_error(self, int code, str reason):
        """Raise a fatal error as a broker would (rd_kafka_test_fatal_error): for tests of what must happen then."""
        self.keep_open()
        try:
            check(rd_kafka_test_fatal_error(self.rk, code, reason.encode()), "rd_kafka_test_fatal_error")
        finally:
            self.let_go()

    def counters(self):
        """The counts of ProducerMetrics, in its order; times in seconds."""
        cdef int64_t pinned = KX_LOAD(self.pool.pinned_messages), pinned_bytes = KX_LOAD(self.pool.pinned_bytes)
        cdef int64_t waiting = 0
        kx_parts_pinned(&self.parts, &pinned, &pinned_bytes)
        KX_ADD(self.callers, 1)         # as enter(), but a closed producer has its counts as well
        if self.generation == kx_fork_generation and self.state == OPEN:
            waiting = rd_kafka_queue_length(self.queue)
        KX_ADD(self.callers, -1)
        return (KX_LOAD(self.sent), KX_LOAD(self.sent_bytes), KX_LOAD(self.delivered), KX_LOAD(self.failed), pinned, pinned_bytes,
                KX_LOAD(self.sent) - KX_LOAD(self.reported), KX_LOAD(self.callback_errors), KX_LOAD(self.blocked_us) / 1e6, self.stats_json,
                KX_LOAD(self.failed_bytes), by_code(&self.failures), by_code(&self.refused), by_code(&self.errors),
                KX_LOAD(self.batches), KX_LOAD(self.pending_batches), waiting)


cdef dict by_code(const kx_counts *counts):
    cdef dict found = {}
    cdef int code
    for code in range(KX_FIRST_CODE, KX_FIRST_CODE + KX_CODES):
        if kx_counted(counts, code):
            found[KafkaError(code).code] = kx_counted(counts, code)
    return found


def end_handovers():
    """The interpreter is about to end: from here on, whoever serves waits its time for the GIL."""
    kx_handover_end()


def in_callback():
    """Whether the calling thread is inside a callback, of whichever producer."""
    return bool(kx_in_callback())


cdef dict _NO_CALLBACKS = {}


@cython.final
cdef class _Told:
    """What a thread that was set aside has to tell, and whether anybody still waits for it: what `start_aside` calls at its end."""

    def __init__(self, tell=None):
        self.tell = tell
        self.done = Event()

    def __call__(self, outcome):
        self.outcome = outcome
        self.done.set()
        if self.tell is not None:
            self.tell(outcome)

    cdef object wait(self, Handle handle):
        """The result, or what was raised. The caller stays open to signals, and gives up when the producer is closed meanwhile."""
        try:
            while not self.done.wait(SLICE_MS / 1000.0):
                handle.check_usable()
        finally:
            self.given_up = True
        failed, result = self.outcome
        if failed:
            raise result
        return result


def start_aside(Handle handle, tell, function, *arguments):
    """Call `function(*arguments)` in a thread of its own, which calls `tell((False, result))` or `tell((True, exception))` at its end: for
    calls of librdkafka's that wait and cannot be interrupted.

    Who waits can give up, because of a signal or a close. The call goes on by itself until librdkafka returns, and keeps what it uses:
    close() does not wait for it, and the handle goes with the last one.
    """
    handle.keep_open()
    try:
        start_thread("kafka_ext call", _aside, (handle, tell, function, arguments))
    except BaseException:
        handle.let_go()
        raise


def _aside(Handle handle, tell, function, arguments):
    try:
        outcome = (False, function(*arguments))
    except BaseException as exc:
        outcome = (True, exc)
    finally:
        handle.let_go()
    tell(outcome)


cdef object _fatal_error(rd_kafka_t *rk):
    cdef char[512] reason
    cdef rd_kafka_resp_err_t code = rd_kafka_fatal_error(rk, reason, sizeof(reason))
    if code == RD_KAFKA_RESP_ERR_NO_ERROR:
        return None
    return KafkaError(code, (<bytes>reason).decode("utf-8", "replace"), is_fatal=True)


def live_objects():
    """How many of each thing the extension owns are alive in the process, by name. All zero when every producer is closed."""
    return {"handles": KX_LOAD(live_handles), "topics": KX_LOAD(live_topics), "messages": KX_LOAD(kx_live_messages),
            "batches": KX_LOAD(kx_live_batches)}
