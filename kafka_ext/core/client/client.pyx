# One rd_kafka_t with its queue of events and its life. Producers, consumers and admin clients are
# subclasses: each adds what it does, and answers the events that are its own.

# What is alive in this process, for the tests that nothing leaks.
cdef int64_t live_clients = 0

cdef dict _NO_CALLBACKS = {}

if kx_watch_forks() != 0 or kx_handover_init() != 0:
    raise ImportError(
        "kafka_ext: pthread_atfork failed; without it a forked child could not be told from its "
        "parent")


cdef class Client:
    """The C side of a client. The object that users hold and the events thread share it, so that
    the former can be collected while work is left.

    Internal: everything public goes through KafkaProducer and the like.
    """

    def __cinit__(self, *args, **kwargs):
        self.rk = NULL
        self.queue = NULL
        memset(&self.life, 0, sizeof(self.life))
        memset(&self.serving, 0, sizeof(self.serving))
        memset(&self.errors, 0, sizeof(self.errors))
        self.life.state = NEW
        self.life.generation = kx_fork_generation
        self.life.users = 1

    cdef int connect(
            self, rd_kafka_type_t kind, int events, dict settings, object extra_names) except -1:
        """Make the rd_kafka_t. `extra_names` are this package's own properties, for the hint that
        an unknown one gets."""
        cdef char[512] errstr
        cdef rd_kafka_conf_t *conf
        cdef rd_kafka_t *rk
        cdef bint unsecured = False
        if self.rk != NULL:
            raise RuntimeError(f"a {type(self).__name__} is initialised once")
        if kx_gate_init(&self.life.gate) != 0:
            raise MemoryError()
        self.life.gate_made = True
        self.secrets = _secrets_for(settings)
        self.connection_errors = ConnectionErrors()
        self.callback_errors = CallbackErrors()
        conf = make_conf(settings, extra_names)
        # Everything that librdkafka has to say comes through queues, so none of its threads ever
        # runs Python. The refresh event is asked for only with a callback that serves it: without
        # one librdkafka fetches OIDC tokens by itself.
        events |= RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS | RD_KAFKA_EVENT_LOG
        if "oauthbearer_token_refresh_cb" in self.callbacks:
            events |= RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH
        elif settings.get("enable.sasl.oauthbearer.unsecure.jwt", "false").lower() in (
                "true", "t", "1"):
            unsecured = True            # librdkafka's own callback makes it, in its own thread
            rd_kafka_conf_enable_sasl_queue(conf, 1)
        rd_kafka_conf_set_events(conf, events)
        # Borrowed: rk does not outlive self.
        rd_kafka_conf_set_opaque(conf, <void *>&self.serving.throttles)
        if "throttle_cb" in self.callbacks:
            rd_kafka_conf_set_throttle_cb(conf, _on_throttle)
        with nogil:
            rk = rd_kafka_new(kind, conf, errstr, sizeof(errstr))
        if rk == NULL:
            rd_kafka_conf_destroy(conf)     # a refused conf stays the caller's
            raise refused_conf(errstr, settings)
        self.rk = rk
        self.queue = rd_kafka_queue_get_main(rk)
        rd_kafka_set_log_queue(rk, self.queue)
        if unsecured:
            rd_kafka_error_destroy(rd_kafka_sasl_background_callbacks_enable(rk))
        KX_ADD(live_clients, 1)
        return 0

    def __dealloc__(self):
        # Frees C only, and only in the process that made it. A client that is still open here is
        # one whose events thread died with the interpreter: it cannot be waited for any more.
        if self.life.generation != kx_fork_generation or self.life.state in (OPEN, CLOSING):
            return
        if self.rk != NULL and self.life.state == NEW:      # its constructor was interrupted
            rd_kafka_queue_destroy(self.queue)
            with nogil:
                rd_kafka_destroy(self.rk)
            KX_ADD(live_clients, -1)
        if self.life.gate_made:
            kx_gate_destroy(&self.life.gate)

    def open(self):
        """From here on something serves it, and will close it."""
        if self.life.state == NEW:
            self.life.state = OPEN

    # ------------------------------------------------------------------ who may call

    cdef int enter(self) except -1:
        """Count a call in. Until `leave` the client is not destroyed, and only C may run."""
        if not Client.try_enter(self):
            self.refuse()
        return 0

    cdef bint try_enter(self) noexcept:
        KX_ADD(self.life.callers, 1)
        if self.life.generation != kx_fork_generation or self.life.state > OPEN:
            KX_ADD(self.life.callers, -1)
            return False
        kx_enters()
        return True

    cdef int leave(self) noexcept:
        kx_leaves()
        KX_ADD(self.life.callers, -1)
        return 0

    cdef int let_signals(self) except -1:
        """Let signal handlers run during a call that waits. Raise if one of them, or another
        thread, has closed the client."""
        _pause()
        if KX_FREE_THREADED:
            _some_bytecode()
        if self.life.generation != kx_fork_generation or self.life.state > OPEN:
            self.refuse()
        return 0

    cdef bint retain(self) noexcept:
        """Keep librdkafka's side until `release`; False when it is gone."""
        cdef bint there
        with cython.critical_section(self):
            there = self.life.users > 0 and self.life.generation == kx_fork_generation
            self.life.users += there
        return there

    cdef int retain_open(self) except -1:
        """As `retain`, for a call: raise unless the client is open in this process."""
        if (self.life.generation != kx_fork_generation or self.life.state > OPEN
                or not self.retain()):
            self.refuse()
        return 0

    cdef int refuse(self) except -1:
        """Raise what a call gets where the client is closed or belongs to another process."""
        if self.life.generation != kx_fork_generation:
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__STATE,
                "this client was made before fork() and belongs to the parent; make one in this "
                "process"))
        raise KafkaException(KafkaError(RD_KAFKA_RESP_ERR__STATE, "the client is closed"))

    def check_usable(self):
        """Raise unless the client is open in this process."""
        if self.life.generation != kx_fork_generation or self.life.state > OPEN:
            self.refuse()

    def check_not_in_callback(self, str call):
        """Raise when the calling thread runs a callback of this client, where `call` would wait
        for itself."""
        if (self.serving.thread == PyThread_get_thread_ident()
                and self.life.generation == kx_fork_generation):
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__STATE,
                f"{call}() inside a callback of the same producer would wait for that callback; "
                "call it outside"))

    @property
    def loop_thread_id(self):
        """The thread whose event loop serves, as threading.get_ident() has it; 0: none."""
        return 0 if self.loop is None else self.loop.thread

    @property
    def abandoned(self):
        """Its owner was collected: what there is is finished, then it ends."""
        return bool(KX_FLAG(self.life.abandoned))

    @abandoned.setter
    def abandoned(self, bint abandoned):
        KX_SET(self.life.abandoned, abandoned)

    @property
    def out_of_time(self):
        """Whether a close that waits for this one has run out of time: what is left is given up."""
        return self.life.out_of_time

    @out_of_time.setter
    def out_of_time(self, bint out_of_time):
        self.life.out_of_time = out_of_time

    @property
    def forked(self):
        return self.life.generation != kx_fork_generation

    @property
    def closed(self):
        return self.life.state == CLOSED

    @property
    def closing(self):
        return self.life.state > OPEN

    @property
    def running(self):
        """Whether a thread is inside `run`. One that gets there after `stop_events` serves
        nothing."""
        return self.life.in_run

    # ------------------------------------------------------------------ the end

    def begin_close(self):
        """No new calls from here on; those that wait give up."""
        if self.life.state <= OPEN:
            self.life.state = CLOSING
        kx_gate_open(&self.life.gate)

    def finish_close(self, timeout):
        """Wait until all work is done, and give up what is left after `timeout` seconds.

        Returns:
            True when nothing had to be given up.
        """
        cdef int64_t deadline = _deadline(timeout)
        cdef bint in_time = True
        cdef bint done
        while KX_LOAD(self.life.callers) > 0:
            kx_gate_open(&self.life.gate)
            with nogil:
                kx_gate_wait(&self.life.gate, kx_gate_seen(&self.life.gate), 1)
            _pause()
            if self.ended():
                return True
        while True:
            if in_time:
                done = self.finish_slice(_remaining_ms(deadline, _slice_ms(SLICE_MS)))
            else:
                done = self.finish_slice(_slice_ms(SLICE_MS // 2))
            self.release_rest()
            if not done:
                _pause()
            if self.ended():
                return True
            if done:
                return in_time
            if self.life.out_of_time or _expired(deadline):
                in_time = False
                self.give_up()

    cdef bint ended(self) noexcept:
        """Whether a signal handler or a callback has closed the client, or forked, meanwhile."""
        return self.life.state == CLOSED or self.life.generation != kx_fork_generation

    def stop_events(self):
        """Make the events thread end once it has served what there is."""
        KX_SET(self.life.stop, 1)
        if self.queue != NULL:
            rd_kafka_queue_yield(self.queue)

    def destroy(self):
        """End it, after finish_close and with no thread in `run`."""
        if self.life.state == CLOSED or self.life.generation != kx_fork_generation:
            return
        while self.serve_here(0):
            pass                # the last logs and errors: destroying the queue would lose them
        if self.ended():
            return
        self.life.state = CLOSED
        kx_gate_open(&self.life.gate)
        self.ready()            # what another thread's call has left when close() stopped it
        self.finish_turn()
        self.release()

    cdef int release(self) except -1:
        """One user fewer. The last one frees librdkafka's side: close() does not wait for calls
        in threads of their own, which cannot be interrupted."""
        cdef bint last
        cdef Throttle *throttle
        cdef rd_kafka_t *rk = self.rk
        with cython.critical_section(self):
            self.life.users -= 1
            last = self.life.users == 0
        if not last:
            return 0
        self.before_destroy()
        rd_kafka_queue_destroy(self.queue)
        self.queue = NULL
        self.rk = NULL
        with nogil:
            rd_kafka_destroy(rk)
        while self.serving.throttles != NULL:
            throttle = self.serving.throttles
            self.serving.throttles = throttle.next
            free(throttle)
        self.after_destroy()
        self.callbacks = _NO_CALLBACKS
        KX_ADD(live_clients, -1)
        return 0

    # ------------------------------------------------------------------ serving

    def run(self):
        """The events thread: serve until `stop_events`. Holds the GIL only while there is
        something to call."""
        self.life.in_run = True
        kx_enter_callbacks()        # finalizers of what it releases run here too
        if not self.abandoned:
            self.serving.thread = PyThread_get_thread_ident()
        try:
            with nogil:
                # A callback that forks comes back here in the child too, where nothing is left.
                while not (KX_FLAG(self.life.stop) or KX_FLAG(self.life.abandoned)
                           or self.life.generation != kx_fork_generation):
                    if serve(self, 5 if self.has_rest() else SLICE_MS * 10, MAX_MESSAGES) == 0 \
                            and self.has_rest():
                        with gil:
                            self.release_rest()
            while KX_FLAG(self.life.abandoned) and not self.ended():
                try:
                    self.begin_close()
                    self.finish_close(None)
                    self.destroy()
                except MemoryError as exc:          # no other thread would do it
                    unraisable(exc, None)
                    with nogil:
                        kx_gate_wait(
                            &self.life.gate, kx_gate_seen(&self.life.gate), SLICE_MS)
        finally:
            self.callback_errors.report_not_shown()
            kx_leave_callbacks()
            self.serving.thread = 0
            self.life.in_run = False

    def poll(self, timeout):
        """Serve on this thread: wait up to `timeout` seconds for the first event, then serve all
        that are there."""
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
            now = self.serve_here(milliseconds)
            self.leave()
            self.release_rest()
            served += now
            if self.life.state == OPEN and self.serving.at_hand != NULL:
                continue            # the rest of an event that this call has begun with
            if (served and (now == 0 or served >= waiting)) or (
                    not served and _expired(deadline)):
                break
            if self.callback_errors.kept or (served and self.life.state != OPEN):
                break
            self.let_signals()
        return served

    cdef int64_t serve_here(self, int timeout_ms) except -1:
        """Serve one turn on this thread, one thread at a time.

        Returns:
            The number of messages and other events served.
        """
        cdef unsigned long me = PyThread_get_thread_ident()
        cdef int64_t served
        if self.serving.thread == me:
            with nogil:                         # the events thread itself, or its successor
                return serve(self, timeout_ms, MAX_MESSAGES)
        cdef unsigned long seen = kx_gate_seen(&self.life.gate)
        if not KX_TRY(self.serving.taken):
            with nogil:                         # another thread serves
                kx_gate_wait(&self.life.gate, seen, timeout_ms)
            return 0
        self.serving.thread = me
        try:
            with nogil:
                served = serve(self, timeout_ms, MAX_MESSAGES)
            return served
        finally:
            self.serving.thread = 0
            KX_LET(self.serving.taken)

    def take_raised(self):
        """What callbacks raised under manual polling since the last time: a list of at most
        MAX_RAISED."""
        cdef CallbackErrors errors = self.callback_errors
        raised, count = errors.kept, errors.not_kept
        errors.kept, errors.not_kept = [], 0
        if count:
            text = f"{count} more callbacks raised; the first {len(raised)} exceptions are kept"
            _log.warning(text)
            last = raised[len(raised) - 1]
            if hasattr(last, "add_note"):               # Python 3.11
                last.add_note(text)
        return raised

    # ------------------------------------------------------------------ what each kind adds

    cdef int64_t progress(self) noexcept:
        """A count that grows while the cluster answers; an old connection error is over then."""
        return 0

    cdef rd_kafka_topic_t *topic_handle(self, object name) except NULL:
        """The handle of topic `name`, borrowed: it stays until the client goes."""
        raise KafkaException(KafkaError(
            RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED, "this client has no topics"))

    cdef int64_t take(self, rd_kafka_event_t *event, int64_t at_most) noexcept nogil:
        """Sort at most so many messages of `event`, which librdkafka owns until the turn's end:
        count, and note those that need the GIL. Returns how many."""
        return 0

    cdef int64_t ready(self) noexcept nogil:
        """After the last `take` of a turn: how many callbacks wait; -1: nothing needs the GIL."""
        return -1

    cdef bint answer(self) noexcept:
        """Call the callbacks that wait. False: one has forked, and this is the child."""
        return True

    cdef bint finish_turn(self) noexcept:
        """After all callbacks of a turn: whether anything ended that is no message."""
        return False

    cdef int give_back(self, int64_t messages) noexcept nogil:
        """So many messages are librdkafka's again, and there is room for others."""
        return 0

    cdef bint has_rest(self) noexcept nogil:
        """Whether something waits to be released by a thread that holds the GIL anyway."""
        return False

    cdef int release_rest(self) noexcept:
        """Release that."""
        return 0

    cdef bint finish_slice(self, int milliseconds) noexcept:
        """Go on with the work that close() waits for, for about so long; True when it is done."""
        return True

    cdef int give_up(self) except -1:
        """Fail the work that is left, so that it ends soon."""
        return 0

    cdef int before_destroy(self) except -1:
        """Free what must go before the rd_kafka_t."""
        return 0

    cdef int after_destroy(self) except -1:
        """Free what the rd_kafka_t pointed at."""
        return 0

    # ------------------------------------------------------------------ what is known

    def get_property(self, str name):
        self.retain_open()
        try:
            return get_conf(rd_kafka_conf(self.rk), name)
        finally:
            self.release()

    def fatal_error(self):
        """The fatal error that ended the client's work, or None (rd_kafka_fatal_error)."""
        if self.life.generation != kx_fork_generation or not self.retain():
            return None
        try:
            return _fatal_error(self.rk)
        finally:
            self.release()

    @property
    def cause(self):
        """The last error of a connection, to append to the message of a timeout; "": none is
        known, or it is over."""
        return self.connection_errors.hint(self)

    def test_fatal_error(self, int code, str reason):
        """Raise a fatal error as a broker would, for tests (rd_kafka_test_fatal_error)."""
        self.retain_open()
        try:
            check(rd_kafka_test_fatal_error(self.rk, code, reason.encode()),
                  "rd_kafka_test_fatal_error")
        finally:
            self.release()


cdef dict by_code(const kx_counts *counts):
    cdef dict found = {}
    cdef int code
    for code in range(KX_FIRST_CODE, KX_FIRST_CODE + KX_CODES):
        if kx_counted(counts, code):
            found[KafkaError(code).code] = kx_counted(counts, code)
    return found


cdef object _fatal_error(rd_kafka_t *rk):
    cdef char[512] reason
    cdef rd_kafka_resp_err_t code = rd_kafka_fatal_error(rk, reason, sizeof(reason))
    if code == RD_KAFKA_RESP_ERR_NO_ERROR:
        return None
    return KafkaError(code, (<bytes>reason).decode("utf-8", "replace"), is_fatal=True)


def end_handovers():
    """The interpreter is about to end: serving threads wait their turn for the GIL from now on."""
    kx_handover_end()


def in_callback():
    """Whether the calling thread runs a callback, of any client."""
    return bool(kx_in_callback())


def version():
    """The version of the loaded librdkafka, as `(number, text)`."""
    return rd_kafka_version(), rd_kafka_version_str().decode()
