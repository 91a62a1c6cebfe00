# Transactions: one call about them at a time, and each answer to the call that asked for it (DESIGN.md, rule 12).
#
# What waits in librdkafka and outlives its caller (a commit, an abort, the sending of offsets) is noted in the handle until librdkafka has
# returned, and keeps everything else away from the transaction: the same call again joins it, any other waits for it or raises CONFLICT.


cdef enum:
    # How long a call that was refused for the moment is let be: retry.backoff.ms of librdkafka.
    RETRY_PAUSE_MS = 100
    # How long one call that ends a transaction waits: much longer than librdkafka's main thread ever takes to answer, and no longer than
    # a producer that is closed meanwhile may keep its handle.
    ENDING_MS = 3000


cdef int _let_be(int milliseconds) noexcept nogil:
    cdef timespec pause
    pause.tv_sec = milliseconds // 1000
    pause.tv_nsec = <long>(milliseconds % 1000) * 1000000
    nanosleep(&pause, NULL)
    return 0


cdef tuple _NEXT_CALL = (
    None,
    "call init_transactions() first",
    "init_transactions() has not finished; call it again first",
    "no transaction is open; call begin_transaction() first",
    "a transaction is open; call commit_transaction() or abort_transaction() first",
)


cdef int check_turn(Handle handle, str call, int least, int most) except -1:
    """Raise unless it is the turn of `call`, which states from `least` to `most` allow: at once, for no wait would change it."""
    cdef int state = handle.transactions
    if state == NO_TRANSACTIONS:
        raise KafkaException(KafkaError(
            RD_KAFKA_RESP_ERR__NOT_CONFIGURED, f"{call}() is for producers of transactions: set the property transactional.id"))
    if least <= state <= most:
        return 0
    fatal = handle.fatal_error()
    if fatal is not None:
        raise KafkaException(fatal_hint(fatal))
    if state == BETWEEN_TRANSACTIONS and most == INITIALISING:
        why = "that is done, once is enough; call begin_transaction()"
    else:
        why = _NEXT_CALL[state]
    raise KafkaException(KafkaError(RD_KAFKA_RESP_ERR__STATE, f"{call}(): {why}"))


cdef object refused_outside(Handle handle):
    """The error of a record that librdkafka refused because it would be in no transaction."""
    if handle.ending is not None:
        call = "commit" if handle.ending.commits else "abort"
        return KafkaError(
            RD_KAFKA_RESP_ERR__STATE, f"{call}_transaction is under way; send this in the next transaction")
    if handle.transactions == IN_TRANSACTION:
        return KafkaError(
            RD_KAFKA_RESP_ERR__STATE, "the transaction has failed; call abort_transaction()", transaction_requires_abort=True)
    return KafkaError(RD_KAFKA_RESP_ERR__STATE, _NEXT_CALL[handle.transactions])


cdef int check_complete(Handle handle) except -1:
    """Raise where a record that was to be in the transaction is not. What was enqueued and not delivered, librdkafka counts."""
    cdef int64_t missed = handle.missed()
    if not missed:
        return 0
    why = f", the first with {KafkaError(handle.parts.missed_code).name}" if handle.parts.missed_code else ""
    raise KafkaException(KafkaError(
        RD_KAFKA_RESP_ERR__INCONSISTENT,
        f"commit_transaction(): {missed} records of the transaction were refused{why}; send them again, or call abort_transaction()",
        transaction_requires_abort=True))


# ------------------------------------------------------------------ beginning

cdef rd_kafka_error_t *init_slice(Handle handle, int milliseconds) except? NULL:
    """Begin rd_kafka_init_transactions() or take it up again, which it allows at any moment: nothing but the producer id answers its first
    step, and the second has no timeout (2.15.1). The caller owns the error."""
    cdef rd_kafka_error_t *error
    handle.check_usable()
    with cython.critical_section(handle):
        check_turn(handle, "init_transactions", NOT_INITIALISED, INITIALISING)
        handle.transactions = INITIALISING
    handle.enter()
    with nogil:
        error = rd_kafka_init_transactions(handle.rk, milliseconds)
    if error == NULL:
        handle.transactions = BETWEEN_TRANSACTIONS
    handle.leave()
    return error


def init_transactions(Handle handle, timeout):
    """In slices, which let signals through."""
    cdef int64_t deadline = _deadline(timeout)
    cdef rd_kafka_error_t *error
    cdef bint waits
    cdef str refused = ""           # why the coordinator could not, when it was last heard
    while True:
        error = init_slice(handle, _remaining_ms(deadline, _slice_ms(SLICE_MS)))
        if error == NULL:
            return
        waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
        if not rd_kafka_error_is_retriable(error) or _expired(deadline):
            check_error(error, "rd_kafka_init_transactions", handle.cause if waits else handle.cause + refused)
        # Time is up for this slice; or the coordinator cannot do it yet: it is loading, has moved, or still aborts what a fenced
        # predecessor has left (CONCURRENT_TRANSACTIONS). librdkafka leaves the second to its caller; the Java client tries again.
        if waits:
            refused = last_refusal(KafkaError(
                rd_kafka_error_code(error), rd_kafka_error_string(error).decode("utf-8", "replace")))
        rd_kafka_error_destroy(error)
        handle.let_signals()
        if waits:
            with nogil:
                _let_be(_remaining_ms(deadline, RETRY_PAUSE_MS))


def last_refusal(error):
    """What a timeout says of the last answer before it."""
    return f"; the last answer was {error.name}: {error.message}"


def begin_transaction(Handle handle):
    cdef rd_kafka_error_t *error
    cdef _Ending ending
    handle.check_usable()
    with cython.critical_section(handle):
        ending = handle.ending
        if ending is not None:
            # How a commit ended has to be seen. An abort that has ended, nobody needs to ask for.
            if ending.commits or ending.outcome is None or ending.outcome[0]:
                raise conflict(ending.commits)
            handle.ending = None
        check_turn(handle, "begin_transaction", BETWEEN_TRANSACTIONS, BETWEEN_TRANSACTIONS)
    handle.owed = None
    handle.parts.missed = handle.parts.missed_code = 0
    handle.enter()
    with nogil:         # it asks librdkafka's main thread and waits for the answer
        error = rd_kafka_begin_transaction(handle.rk)
    if error == NULL:
        handle.transactions = IN_TRANSACTION
    handle.leave()
    check_error(error, "rd_kafka_begin_transaction")


# ------------------------------------------------------------------ ending

def end_transaction(Handle handle, bint commits, timeout):
    """Wait for a commit's or an abort's end, having begun it unless it is under way: after a timeout or a signal it is taken up again.

    Under manual polling this thread serves meanwhile; what callbacks raise is kept for `take_raised`.
    """
    cdef int64_t deadline = _deadline(timeout)
    cdef _Told told = _Told(_WakeServer(handle) if handle.manual else None)
    cdef _Ending ending = start_ending(handle, commits, told)
    cdef int milliseconds
    try:
        while ending.outcome is None and not _expired(deadline):
            handle.check_usable()
            if handle.manual:
                milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
                handle.enter()
                serve_here(handle, milliseconds)
                handle.leave()
            else:
                told.done.wait(_remaining_ms(deadline, SLICE_MS) / 1000.0)
            _pause()
    finally:
        ending.leave(told)
    ending.take()


def abort_under_way(Handle handle):
    """Whether an abort has been given up by those who waited for it, and has not ended."""
    cdef _Ending ending = handle.ending
    return ending is not None and not ending.commits and ending.outcome is None


def conflict(bint commits):
    """What is raised where a call has to wait until a commit, or abort, has ended and somebody has seen how."""
    call = "commit_transaction" if commits else "abort_transaction"
    return KafkaException(KafkaError(
        RD_KAFKA_RESP_ERR__CONFLICT, f"{call} is under way; call that again, to see how the transaction ends", is_retriable=True))


@cython.final
cdef class _WakeServer:
    """Makes the thread that serves look up."""

    cdef Handle handle

    def __init__(self, Handle handle):
        self.handle = handle

    def __call__(self, outcome):
        try:
            self.handle.enter()
        except KafkaException:
            return                              # closed: nobody serves
        rd_kafka_queue_yield(self.handle.queue)
        self.handle.leave()


@cython.final
cdef class _Ending:
    """A commit or abort, from the first call of it until somebody has taken its outcome. The handle's critical section guards it."""

    def __init__(self, Handle handle, bint commits):
        self.handle = handle
        self.commits = commits
        self.waiting = []

    def leave(self, tell):
        """`tell` does not wait any more."""
        with cython.critical_section(self.handle):
            self.waiting = [other for other in self.waiting if other is not tell]

    def take(self):
        """Return or raise as it ended, once that is known; before, raise KafkaTimeoutError."""
        if self.outcome is None:
            what = "commit" if self.commits else "abort"
            raise KafkaTimeoutError(KafkaError(
                RD_KAFKA_RESP_ERR__TIMED_OUT,
                f"the {what} is under way; call {what}_transaction again{self.handle.cause}", is_retriable=True))
        with cython.critical_section(self.handle):
            if self.handle.ending is self:
                self.handle.ending = None
        failed, result = self.outcome
        if failed:
            raise result

    def __call__(self, outcome):
        """The thread is done; the last thing that it does, so that a handle that is closed now goes at once."""
        failed, result = outcome
        if not failed and result is _NOBODY_WAITS:
            return
        with cython.critical_section(self.handle):
            if not failed:
                self.handle.transactions = BETWEEN_TRANSACTIONS
            self.running = False
            self.outcome = outcome
            waiting = self.waiting
            self.waiting = []
        for tell in waiting:
            tell(outcome)


cdef object _NOBODY_WAITS = object()


def start_ending(Handle handle, bint commits, tell):
    """Begin a commit or abort, or join the one that is under way: the _Ending, which calls `tell(outcome)` unless it has one already.

    Call its `leave` when nobody waits for `tell` any more, and `take` for the outcome.
    """
    cdef _Ending ending
    cdef str call = "commit_transaction" if commits else "abort_transaction"
    cdef bint starts = False
    handle.keep_open()
    try:
        with cython.critical_section(handle):
            ending = handle.ending
            if ending is not None and ending.commits != commits:
                if ending.outcome is None:
                    raise conflict(ending.commits)
                ending = handle.ending = None
            if ending is None:
                check_turn(handle, call, IN_TRANSACTION, IN_TRANSACTION)
                if commits:
                    check_complete(handle)
                ending = handle.ending = _Ending(handle, commits)
            if ending.outcome is None:
                ending.waiting.append(tell)
                starts = not ending.running
                ending.running = True
        if starts:
            try:
                start_aside(handle, ending, _end, handle, ending)
            except BaseException as exc:    # "can't start new thread", for one
                with cython.critical_section(handle):
                    ending.running = False
                    ending.outcome = (True, exc)
                    waiting = ending.waiting
                    ending.waiting = []
                    handle.ending = None
                for other in waiting:       # who has joined meanwhile waits for it as well
                    if other is not tell:
                        other(ending.outcome)
                raise
    finally:
        handle.let_go()
    return ending


def _end(Handle handle, _Ending ending):
    """What the thread of a commit or abort does: call librdkafka until it is done, or until nobody waits any more.

    In a thread and not in slices: where the first step of a call that is taken up again (begin_commit, begin_abort) is not answered by
    librdkafka's main thread within the call's timeout, librdkafka forgets which call it was, and gives the answers to whichever steps wait
    by then. Of a commit it takes the coordinator's answer for that of an abort, and ends the process with "Invalid transaction state
    transition" (rd_kafka_txn_endtxn_complete; tests/embedded/commit_slices.c shows it). An abort gets STATE, or the next begin_transaction
    is told that it is done before it is (rd_kafka_txn_curr_api_set_result). All of 2.15.1.

    It can only ever end the transaction that it was begun for: no other begins while handle.ending is without an outcome.
    """
    cdef rd_kafka_error_t *error
    cdef bint waits
    cdef bint commits = ending.commits
    while True:
        # Offsets that are still on their way belong to this transaction, and not to whichever is open when their thread comes to run.
        if KX_LOAD(handle.sending_offsets) == 0:
            with nogil:
                if commits:
                    error = rd_kafka_commit_transaction(handle.rk, ENDING_MS)
                else:
                    error = rd_kafka_abort_transaction(handle.rk, ENDING_MS)
            if error == NULL:
                return
            if not rd_kafka_error_is_retriable(error) or rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__CONFLICT:
                check_error(error, "rd_kafka_commit_transaction" if commits else "rd_kafka_abort_transaction")
            waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
            rd_kafka_error_destroy(error)
        else:
            waits = True
        if handle.state > OPEN or handle.over():
            handle.refuse()
        with cython.critical_section(handle):
            if not ending.waiting:
                ending.running = False
                return _NOBODY_WAITS
        if waits:
            with nogil:
                _let_be(RETRY_PAUSE_MS)


# ------------------------------------------------------------------ a consumer's offsets

def send_offsets_to_transaction(Handle handle, list offsets, group, timeout):
    """`offsets` are `(topic, partition, offset, leader_epoch)`, a leader_epoch of -1 not being known; `group` is a tuple of what
    ConsumerGroupMetadata has, or the bytes of rd_kafka_consumer_group_metadata_write()."""
    cdef int64_t deadline = _deadline(timeout)
    cdef int milliseconds
    cdef _Told told
    if not offsets:
        handle.check_usable()
        check_turn(handle, "send_offsets_to_transaction", NOT_INITIALISED, IN_TRANSACTION)
        return
    while KX_LOAD(handle.sending_offsets):
        # Given up, and still in librdkafka.
        if _expired(deadline):
            raise offsets_under_way()
        milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
        with nogil:
            _let_be(milliseconds)
        handle.let_signals()
    told = _Told()
    start_send_offsets(handle, told, offsets, group, deadline)
    told.wait(handle)


def start_send_offsets(Handle handle, tell, list offsets, group, int64_t deadline):
    """Begin what send_offsets_to_transaction waits for, with `tell` as start_aside's. Earlier offsets must not be on their way any more."""
    cdef int timeout_ms = -1 if deadline < 0 else _remaining_ms(deadline, MAX_WAIT_MS)
    handle.keep_open()
    try:
        with cython.critical_section(handle):
            if handle.ending is not None:
                raise conflict(handle.ending.commits)
            check_turn(handle, "send_offsets_to_transaction", IN_TRANSACTION, IN_TRANSACTION)
            KX_ADD(handle.sending_offsets, 1)
        try:
            start_aside(handle, tell, _send_offsets, handle, offsets, group, timeout_ms)
        except BaseException:
            KX_ADD(handle.sending_offsets, -1)
            raise
    finally:
        handle.let_go()


def offsets_on_their_way(Handle handle):
    """Whether a thread that nobody may be waiting for any more still sends offsets to the transaction."""
    return KX_LOAD(handle.sending_offsets) != 0


def offsets_under_way():
    """What is raised where the time to wait for that is over."""
    return KafkaTimeoutError(KafkaError(
        RD_KAFKA_RESP_ERR__TIMED_OUT, "earlier offsets are still on their way to the transaction; try again", is_retriable=True))


def _send_offsets(Handle handle, list offsets, group, int timeout_ms):
    cdef rd_kafka_topic_partition_list_t *c_offsets = NULL              # owned
    cdef rd_kafka_consumer_group_metadata_t *c_group = NULL             # owned
    cdef rd_kafka_topic_partition_t *c_offset
    cdef rd_kafka_error_t *error
    try:
        c_offsets = rd_kafka_topic_partition_list_new(len(offsets))
        for topic, partition, offset, leader_epoch in offsets:
            name = topic.encode()
            c_offset = rd_kafka_topic_partition_list_add(c_offsets, name, partition)
            c_offset.offset = offset
            if leader_epoch >= 0:
                rd_kafka_topic_partition_set_leader_epoch(c_offset, leader_epoch)
        c_group = _group(group)
        with nogil:
            error = rd_kafka_send_offsets_to_transaction(handle.rk, c_offsets, c_group, timeout_ms)
        check_error(error, "rd_kafka_send_offsets_to_transaction", handle.cause)
    finally:
        KX_ADD(handle.sending_offsets, -1)
        if c_offsets != NULL:
            rd_kafka_topic_partition_list_destroy(c_offsets)
        if c_group != NULL:
            rd_kafka_consumer_group_metadata_destroy(c_group)


cdef rd_kafka_consumer_group_metadata_t *_group(object group) except NULL:
    """Owned by the caller."""
    cdef rd_kafka_consumer_group_metadata_t *made = NULL
    cdef const char *c_instance = NULL
    if isinstance(group, bytes):
        # Of bytes that end too early it reads one at the end of each of three strings, and the flag before the third (2.15.1).
        padded = <bytes>group + b"\0\0\0\0"
        check_error(
            rd_kafka_consumer_group_metadata_read(&made, <const char *>padded, len(group)), "rd_kafka_consumer_group_metadata_read")
        return made
    group_id, generation_id, member_id, group_instance_id = group
    group_id, member_id = exact_str(group_id).encode(), exact_str(member_id).encode()
    if group_instance_id is not None:
        group_instance_id = exact_str(group_instance_id).encode()
        c_instance = group_instance_id
    return rd_kafka_consumer_group_metadata_new_with_genid(group_id, generation_id, member_id, c_instance)


def check_group(bytes group):
    """Raise unless `group` is what rd_kafka_consumer_group_metadata_write() makes."""
    rd_kafka_consumer_group_metadata_destroy(_group(group))


def version():
    """The version of the loaded librdkafka, as `(number, text)`."""
    return rd_kafka_version(), rd_kafka_version_str().decode()
