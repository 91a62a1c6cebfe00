# Transactions. librdkafka's calls can be taken up again after a timeout, but for what ends a transaction (start_ending) that is dangerous.

from posix.time cimport timespec, nanosleep

# How long a call that was refused for the moment is let be: retry.backoff.ms of librdkafka.
cdef enum:
    RETRY_PAUSE_MS = 100
    # How long one call that ends a transaction waits: much longer than librdkafka's main thread ever takes to answer, and no longer than
    # a producer that is closed meanwhile may keep its handle.
    ENDING_MS = 3000


cdef int _let_be(int milliseconds) noexcept nogil:
    cdef timespec pause
    pause.tv_sec = 0
    pause.tv_nsec = <long>milliseconds * 1000000
    nanosleep(&pause, NULL)
    return 0


def init_transactions(Handle handle, timeout):
    """In slices, which let signals through."""
    cdef int64_t deadline = _deadline(timeout)
    cdef rd_kafka_error_t *error
    cdef int milliseconds
    cdef bint waits
    handle.enter()
    try:
        while True:
            milliseconds = _remaining_ms(deadline, SLICE_MS)
            with nogil:
                error = rd_kafka_init_transactions(handle.rk, milliseconds)
            if error == NULL:
                return
            if not rd_kafka_error_is_retriable(error) or _expired(deadline):
                check_error(error, "rd_kafka_init_transactions")
            # Time is up for this slice; or the coordinator cannot do it yet: it is loading, has moved, or still aborts what a fenced
            # predecessor has left (CONCURRENT_TRANSACTIONS). librdkafka leaves the second to its caller; the Java client tries again.
            waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
            rd_kafka_error_destroy(error)
            handle.let_signals()    # a signal handler may close the producer, and close() waits for the calls under way
            if waits:
                with nogil:
                    _let_be(_remaining_ms(deadline, RETRY_PAUSE_MS))
    finally:
        handle.leave()


def begin_transaction(Handle handle):
    cdef rd_kafka_error_t *error
    handle.enter()
    try:
        with nogil:         # it asks librdkafka's main thread and waits for the answer
            error = rd_kafka_begin_transaction(handle.rk)
        check_error(error, "rd_kafka_begin_transaction")
        handle.ending = None        # one that nobody waited for any more, and that is over
    finally:
        handle.leave()


def end_transaction(Handle handle, bint commits, timeout):
    """Wait for a commit's or an abort's end, having begun it unless it is under way: after a timeout or a signal it is taken up again.

    Under manual polling this thread serves meanwhile; what callbacks raise is kept for `take_raised`.
    """
    cdef int64_t deadline = _deadline(timeout)
    cdef _Ending mine = _Ending(handle, commits)
    cdef _Ending ending
    # One at a time, whichever threads ask: a second one that nobody waits for would be tried again later, and end what was begun since.
    with cython.critical_section(handle):
        if handle.ending is None or (handle.ending.commits != commits and handle.ending.outcome is not None):
            handle.ending = mine
        ending = handle.ending
    if ending is mine:
        try:
            start_ending(handle, commits, mine)
        except BaseException as exc:
            handle.ending = None
            mine((True, exc))
            raise
    elif ending.commits != commits:
        raise conflict(ending.commits)
    while ending.outcome is None:
        if _expired(deadline):
            raise ending_under_way(commits)
        if handle.manual and not handle.closing:
            handle.enter()
            try:
                serve_here(handle, _remaining_ms(deadline, _slice_ms(SLICE_MS)))
            finally:
                handle.leave()
            _pause()
        else:
            # Not Thread.join(): up to Python 3.12 one that a signal has interrupted takes the thread for ended from then on.
            ending.done.wait(None if deadline < 0 else _remaining_ms(deadline, MAX_WAIT_MS) / 1000.0)
    with cython.critical_section(handle):
        if handle.ending is ending:
            handle.ending = None
    failed, result = ending.outcome
    if failed:
        raise result


def conflict(bint commits):
    """What is raised where a transaction cannot be ended the other way, because its commit, or abort, is under way."""
    call = "commit_transaction" if commits else "abort_transaction"
    return KafkaException(KafkaError(
        ErrorCode["CONFLICT"], f"{call} is under way; call that again, to see how the transaction ends", is_retriable=True))


def ending_under_way(bint commits):
    """What is raised where the time to wait is over."""
    what = "commit" if commits else "abort"
    return KafkaTimeoutError(KafkaError(RD_KAFKA_RESP_ERR__TIMED_OUT, f"the {what} is under way; call it again", is_retriable=True))


@cython.final
cdef class _Ending:
    """A commit or abort that is under way, and its outcome once it is done: what its thread tells."""

    cdef Handle handle              # None once it is done
    cdef int commits                # 1: a commit, 0: an abort
    cdef object done                # Event
    cdef tuple outcome              # (failed, result); None while it is not done

    def __init__(self, Handle handle, bint commits):
        self.handle = handle
        self.commits = commits
        self.done = Event()

    def __call__(self, outcome):
        cdef Handle handle = self.handle
        self.handle = None
        self.outcome = outcome
        self.done.set()
        if handle.manual:
            try:
                handle.enter()
            except KafkaException:
                return                              # closed: nobody serves
            rd_kafka_queue_yield(handle.queue)      # who waits is serving
            handle.leave()


def start_ending(Handle handle, bint commits, tell):
    """Begin a commit or an abort in a thread of its own, which calls `tell` as start_aside's.

    Not in slices: where the first step of a call that is taken up again (begin_commit, begin_abort) is not answered by librdkafka's main
    thread within the call's timeout, librdkafka forgets which call it was, and gives the answers to whichever steps wait by then. Of a
    commit it takes the coordinator's answer for that of an abort, and ends the process with "Invalid transaction state transition"
    (rd_kafka_txn_endtxn_complete; tests/embedded/commit_slices.c shows it). An abort gets STATE, or the next begin_transaction is told that
    it is done before it is (rd_kafka_txn_curr_api_set_result). All of 2.14.2.
    """
    return start_aside(handle, tell, _end, handle, commits)


def _end(Handle handle, bint commits):
    cdef rd_kafka_error_t *error
    cdef bint waits
    while True:
        with nogil:
            if commits:
                error = rd_kafka_commit_transaction(handle.rk, ENDING_MS)
            else:
                error = rd_kafka_abort_transaction(handle.rk, ENDING_MS)
        if error == NULL:
            return
        if not rd_kafka_error_is_retriable(error):
            check_error(error, "rd_kafka_commit_transaction" if commits else "rd_kafka_abort_transaction")
        waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
        rd_kafka_error_destroy(error)
        if handle.state != OPEN or handle.over():
            handle.refuse()
        if waits:
            with nogil:
                _let_be(RETRY_PAUSE_MS)


def send_offsets_to_transaction(Handle handle, list offsets, str group_id, int generation_id, str member_id, group_instance_id, timeout):
    """`offsets` are `(topic, partition, offset, leader_epoch)`; a leader_epoch of -1 is not known."""
    cdef int64_t deadline = _deadline(timeout)
    aside(handle, _send_offsets, handle, offsets, group_id.encode(), generation_id, member_id.encode(),
          None if group_instance_id is None else group_instance_id.encode(),
          -1 if deadline < 0 else _remaining_ms(deadline, MAX_WAIT_MS))


def _send_offsets(Handle handle, list offsets, bytes group_id, int generation_id, bytes member_id, bytes group_instance_id, int timeout_ms):
    cdef rd_kafka_topic_partition_list_t *c_offsets = NULL          # owned
    cdef rd_kafka_consumer_group_metadata_t *group = NULL           # owned
    cdef rd_kafka_topic_partition_t *c_offset
    cdef rd_kafka_error_t *error
    cdef const char *c_group = group_id
    cdef const char *c_member = member_id
    cdef const char *c_instance = NULL if group_instance_id is None else <const char *>group_instance_id
    try:
        c_offsets = rd_kafka_topic_partition_list_new(len(offsets))
        for topic, partition, offset, leader_epoch in offsets:
            name = topic.encode()
            c_offset = rd_kafka_topic_partition_list_add(c_offsets, name, partition)
            c_offset.offset = offset
            if leader_epoch >= 0:
                rd_kafka_topic_partition_set_leader_epoch(c_offset, leader_epoch)
        group = rd_kafka_consumer_group_metadata_new_with_genid(c_group, generation_id, c_member, c_instance)
        with nogil:
            error = rd_kafka_send_offsets_to_transaction(handle.rk, c_offsets, group, timeout_ms)
        check_error(error, "rd_kafka_send_offsets_to_transaction")
    finally:
        if c_offsets != NULL:
            rd_kafka_topic_partition_list_destroy(c_offsets)
        if group != NULL:
            rd_kafka_consumer_group_metadata_destroy(group)


def version():
    """The version of the loaded librdkafka, as `(number, text)`."""
    return rd_kafka_version(), rd_kafka_version_str().decode()
