# Transactions. Each of librdkafka's calls can be taken up again after a timeout, so each is made in slices that let signals through.

from posix.time cimport timespec, nanosleep

# How long a call that was refused for the moment is let be: retry.backoff.ms of librdkafka.
cdef enum:
    RETRY_PAUSE_MS = 100
    # How long one call of rd_kafka_commit_transaction() waits: much longer than librdkafka's main thread ever takes to answer, and no
    # longer than a producer that is closed meanwhile may keep its handle.
    COMMIT_MS = 3000

ctypedef rd_kafka_error_t *(*TransactionCall)(rd_kafka_t *rk, int timeout_ms) noexcept nogil


cdef int _in_slices(Handle handle, TransactionCall call, str name, object timeout) except -1:
    cdef int64_t deadline = _deadline(timeout)
    cdef rd_kafka_error_t *error
    cdef int milliseconds
    cdef bint waits
    cdef timespec pause
    while True:
        milliseconds = _remaining_ms(deadline, SLICE_MS)
        with nogil:
            error = call(handle.rk, milliseconds)
        if error == NULL:
            return 0
        if not rd_kafka_error_is_retriable(error) or _expired(deadline):
            check_error(error, name)
        # Time is up for this slice; or the coordinator cannot do it yet: it is loading, has moved, or still aborts what a fenced
        # predecessor has left (CONCURRENT_TRANSACTIONS). librdkafka leaves the second to its caller; the Java client tries again.
        waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
        rd_kafka_error_destroy(error)
        handle.let_signals()    # a signal handler may close the producer, and close() waits for the calls under way
        if waits:
            pause.tv_sec = 0
            pause.tv_nsec = <long>_remaining_ms(deadline, RETRY_PAUSE_MS) * 1000000
            with nogil:
                nanosleep(&pause, NULL)


def init_transactions(Handle handle, timeout):
    handle.enter()
    try:
        _in_slices(handle, rd_kafka_init_transactions, "rd_kafka_init_transactions", timeout)
    finally:
        handle.leave()


def begin_transaction(Handle handle):
    cdef rd_kafka_error_t *error
    handle.enter()
    try:
        with nogil:         # it asks librdkafka's main thread and waits for the answer
            error = rd_kafka_begin_transaction(handle.rk)
        check_error(error, "rd_kafka_begin_transaction")
        handle.committing = None    # one that nobody waited for any more, and that is over
    finally:
        handle.leave()


def commit_transaction(Handle handle, timeout):
    """Wait for a commit's end, having begun it unless it is under way: after a timeout or a signal it is taken up again."""
    cdef int64_t deadline = _deadline(timeout)
    mine = _Commit()
    # One at a time, whichever threads ask: a second one that nobody waits for would be tried again later, and commit what was begun since.
    with cython.critical_section(handle):
        committing = handle.committing
        if committing is None:
            committing = handle.committing = mine
    if committing is mine:
        try:
            start_commit(handle, mine)
        except BaseException as exc:
            handle.committing = None
            mine((True, exc))
            raise
    # Not Thread.join(): up to Python 3.12 one that a signal has interrupted takes the thread for ended from then on.
    if not committing.done.wait(None if deadline < 0 else _remaining_ms(deadline, MAX_WAIT_MS) / 1000.0):
        raise KafkaTimeoutError(KafkaError(RD_KAFKA_RESP_ERR__TIMED_OUT, "the commit is under way; call it again", is_retriable=True))
    with cython.critical_section(handle):
        if handle.committing is committing:
            handle.committing = None
    failed, result = committing.outcome
    if failed:
        raise result


@cython.final
cdef class _Commit:
    """A commit that is under way, and its outcome once it is done: what its thread tells."""

    cdef readonly object done           # threading.Event
    cdef readonly tuple outcome         # (failed, result)

    def __init__(self):
        self.done = _threading.Event()

    def __call__(self, outcome):
        self.outcome = outcome
        self.done.set()


def start_commit(Handle handle, tell):
    """Begin a commit in a thread of its own, which calls `tell` as start_aside's.

    Not in slices, as the others: where rd_kafka_commit_transaction() is taken up again and librdkafka's main thread does not answer its
    first step within the timeout, librdkafka forgets which call it was, takes the coordinator's answer for that of an abort, and ends the
    process with "Invalid transaction state transition" (2.14.2, rd_kafka_txn_endtxn_complete; tests/embedded/commit_slices.c shows it).
    """
    return start_aside(handle, tell, _commit, handle)


def _commit(Handle handle):
    cdef rd_kafka_error_t *error
    cdef timespec pause
    cdef bint waits
    while True:
        with nogil:
            error = rd_kafka_commit_transaction(handle.rk, COMMIT_MS)
        if error == NULL:
            return
        if not rd_kafka_error_is_retriable(error):
            check_error(error, "rd_kafka_commit_transaction")
        waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
        rd_kafka_error_destroy(error)
        if handle.state != OPEN or handle.over():
            handle.refuse()
        if waits:
            pause.tv_sec = 0
            pause.tv_nsec = RETRY_PAUSE_MS * 1000000
            with nogil:
                nanosleep(&pause, NULL)


def abort_transaction(Handle handle, timeout):
    handle.enter()
    try:
        _in_slices(handle, rd_kafka_abort_transaction, "rd_kafka_abort_transaction", timeout)
    finally:
        handle.leave()


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
