# Transactions: one call about them at a time, and each answer to the call that asked for it.
#
# What waits in librdkafka and outlives its caller (a commit, an abort, the sending of offsets) is
# noted in the client until librdkafka has returned, and keeps everything else away from the
# transaction: the same call again joins it, any other waits for it or raises CONFLICT.


cdef enum:
    # How long one call that ends a transaction waits: much longer than librdkafka's main thread
    # ever takes to answer, and no longer than a closed producer may keep its rd_kafka_t.
    ENDING_MS = 3000
    # So many refused records of a transaction are kept, to be recognised when they are sent again;
    # more are counted as lost.
    MAX_REFUSED = 1000

# The call that comes next. librdkafka has the state itself, and tells of it too late: the calls
# that end a transaction wait in threads of their own.
cdef enum TransactionState:
    NO_TRANSACTIONS = 0         # no transactional.id
    NOT_INITIALISED = 1
    INITIALISING = 2            # init_transactions() has not returned: call it again
    BETWEEN_TRANSACTIONS = 3
    IN_TRANSACTION = 4          # until librdkafka has said that it is committed or aborted

cdef tuple _NEXT_CALL = (
    None,
    "call init_transactions() first",
    "init_transactions() has not finished; call it again first",
    "no transaction is open; call begin_transaction() first",
    "a transaction is open; call commit_transaction() or abort_transaction() first",
)


@cython.final
cdef class Transaction:
    """The transaction of a producer, and the records that it lacks."""

    cdef int note_refused(self, object record, int code) noexcept:
        """`record` (None: of a batch) was not enqueued: the transaction cannot be committed,
        unless it is sent again."""
        cdef Py_ssize_t i, place
        if self.state != IN_TRANSACTION or self.end is not None:
            return 0
        try:
            with cython.critical_section(self):
                if self.refused is None:
                    self.refused = []
                if record is not None:
                    place = len(self.refused)
                    for i in range(len(self.refused)):
                        if self.refused[i] is record:
                            return 0
                        if self.refused[i] is None:
                            place = i
                    if place < MAX_REFUSED:
                        if place < len(self.refused):
                            self.refused[place] = record
                        else:
                            self.refused.append(record)
                        if self.parts.missed_code == 0:
                            self.parts.missed_code = code
                        return 0
        except MemoryError:
            pass
        kx_missed(self.parts, code)
        return 0

    cdef int note_sent(self, object record) noexcept:
        """`record` is enqueued, so this must not raise: it needs no memory, and leaves None in the
        record's place."""
        cdef Py_ssize_t i
        cdef bint others = False
        with cython.critical_section(self):
            if self.refused is not None:
                for i in range(len(self.refused)):
                    if self.refused[i] is record:
                        self.refused[i] = None
                    elif self.refused[i] is not None:
                        others = True
                if not others:
                    self.refused = None
        return 0

    cdef int64_t missing(self) except -1:
        """How many records the open transaction lacks."""
        cdef int64_t missing = KX_LOAD(self.parts.missed)
        with cython.critical_section(self):
            if self.refused is not None:
                for other in self.refused:
                    missing += other is not None
        return missing


cdef int check_turn(ProducerClient client, str call, int least, int most) except -1:
    """Raise unless it is the turn of `call`, which states from `least` to `most` allow: at once,
    for no wait would change it."""
    cdef int state = client.transaction.state
    if state == NO_TRANSACTIONS:
        raise KafkaException(KafkaError(
            RD_KAFKA_RESP_ERR__NOT_CONFIGURED,
            f"{call}() is for producers of transactions: set the property transactional.id"))
    if least <= state <= most:
        return 0
    fatal = client.fatal_error()
    if fatal is not None:
        raise KafkaException(fatal_hint(fatal))
    if state == BETWEEN_TRANSACTIONS and most == INITIALISING:
        why = "that is done, once is enough; call begin_transaction()"
    else:
        why = _NEXT_CALL[state]
    raise KafkaException(KafkaError(RD_KAFKA_RESP_ERR__STATE, f"{call}(): {why}"))


cdef object refused_outside(ProducerClient client):
    """The error of a record that librdkafka refused because it would be in no transaction."""
    if client.transaction.end is not None:
        call = "commit" if client.transaction.end.commits else "abort"
        return KafkaError(
            RD_KAFKA_RESP_ERR__STATE,
            f"{call}_transaction is under way; send this in the next transaction")
    if client.transaction.state == IN_TRANSACTION:
        return KafkaError(
            RD_KAFKA_RESP_ERR__STATE,
            "the transaction has failed; call abort_transaction()", transaction_requires_abort=True)
    return KafkaError(RD_KAFKA_RESP_ERR__STATE, _NEXT_CALL[client.transaction.state])


cdef int check_complete(ProducerClient client) except -1:
    """Raise where a record that was to be in the transaction is not. What was enqueued and not
    delivered, librdkafka counts."""
    cdef int64_t missed = client.transaction.missing()
    if not missed:
        return 0
    cdef int32_t code = client.batches.parts.missed_code
    why = f", the first with {KafkaError(code).name}" if code else ""
    raise KafkaException(KafkaError(
        RD_KAFKA_RESP_ERR__INCONSISTENT,
        f"commit_transaction(): {missed} records of the transaction were refused{why}; send them "
        "again, or call abort_transaction()",
        transaction_requires_abort=True))


# ------------------------------------------------------------------ beginning

cdef rd_kafka_error_t *init_slice(ProducerClient client, int milliseconds) except? NULL:
    """Begin rd_kafka_init_transactions() or take it up again, which it allows at any moment:
    nothing but the producer id answers its first step, and the second has no timeout (2.15.1). The
    caller owns the error."""
    cdef rd_kafka_error_t *error
    client.check_usable()
    with cython.critical_section(client):
        check_turn(client, "init_transactions", NOT_INITIALISED, INITIALISING)
        client.transaction.state = INITIALISING
    client.enter()
    with nogil:
        error = rd_kafka_init_transactions(client.rk, milliseconds)
    if error == NULL:
        client.transaction.state = BETWEEN_TRANSACTIONS
    client.leave()
    return error


def init_transactions(ProducerClient client, timeout):
    """In slices, which let signals through."""
    cdef int64_t deadline = _deadline(timeout)
    cdef rd_kafka_error_t *error
    cdef bint waits
    cdef str refused = ""           # why the coordinator could not, when it was last heard
    while True:
        error = init_slice(client, _remaining_ms(deadline, _slice_ms(SLICE_MS)))
        if error == NULL:
            return
        waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
        if not rd_kafka_error_is_retriable(error) or _expired(deadline):
            check_error(error, "rd_kafka_init_transactions",
                        client.cause if waits else client.cause + refused)
        # Time is up for this slice; or the coordinator cannot do it yet: it is loading, has moved,
        # or still aborts what a fenced predecessor has left (CONCURRENT_TRANSACTIONS). librdkafka
        # leaves the second to its caller; the Java client tries again.
        if waits:
            refused = last_refusal(KafkaError(
                rd_kafka_error_code(error),
                rd_kafka_error_string(error).decode("utf-8", "replace")))
        rd_kafka_error_destroy(error)
        client.let_signals()
        if waits:
            with nogil:
                _sleep_ms(_remaining_ms(deadline, RETRY_PAUSE_MS))


def last_refusal(error):
    """What a timeout says of the last answer before it."""
    return f"; the last answer was {error.name}: {error.message}"


def begin_transaction(ProducerClient client):
    cdef rd_kafka_error_t *error
    cdef TransactionEnd ending
    client.check_usable()
    with cython.critical_section(client):
        ending = client.transaction.end
        if ending is not None:
            # How a commit ended has to be seen. An abort that has ended, nobody needs to ask for.
            if ending.commits or ending.outcome is None or ending.outcome[0]:
                raise conflict(ending.commits)
            client.transaction.end = None
        check_turn(client, "begin_transaction", BETWEEN_TRANSACTIONS, BETWEEN_TRANSACTIONS)
    client.transaction.refused = None
    client.batches.parts.missed = client.batches.parts.missed_code = 0
    client.enter()
    with nogil:         # it asks librdkafka's main thread and waits for the answer
        error = rd_kafka_begin_transaction(client.rk)
    if error == NULL:
        client.transaction.state = IN_TRANSACTION
    client.leave()
    check_error(error, "rd_kafka_begin_transaction")


# ------------------------------------------------------------------ ending

def end_transaction(ProducerClient client, bint commits, timeout):
    """Wait for a commit's or an abort's end, having begun it unless it is under way: after a
    timeout or a signal it is taken up again.

    Under manual polling this thread serves meanwhile; what callbacks raise is kept for
    `take_raised`.
    """
    cdef int64_t deadline = _deadline(timeout)
    cdef ThreadCall told = ThreadCall(_WakeServer(client) if client.manual else None)
    cdef TransactionEnd ending = start_ending(client, commits, told)
    cdef int milliseconds
    try:
        while ending.outcome is None and not _expired(deadline):
            client.check_usable()
            if client.manual:
                milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
                client.enter()
                client.serve_here(milliseconds)
                client.leave()
            else:
                told.done.wait(_remaining_ms(deadline, SLICE_MS) / 1000.0)
            _pause()
    finally:
        ending.leave(told)
    ending.take()


def abort_under_way(ProducerClient client):
    """Whether an abort has been given up by those who waited for it, and has not ended."""
    cdef TransactionEnd ending = client.transaction.end
    return ending is not None and not ending.commits and ending.outcome is None


def conflict(bint commits):
    """What is raised where a call has to wait until a commit, or abort, has ended and somebody has
    seen how."""
    call = "commit_transaction" if commits else "abort_transaction"
    return KafkaException(KafkaError(
        RD_KAFKA_RESP_ERR__CONFLICT,
        f"{call} is under way; call that again, to see how the transaction "
        "ends", is_retriable=True))


@cython.final
cdef class _WakeServer:
    """Makes the thread that serves look up."""

    cdef ProducerClient client

    def __init__(self, ProducerClient client):
        self.client = client

    def __call__(self, outcome):
        try:
            self.client.enter()
        except KafkaException:
            return                              # closed: nobody serves
        rd_kafka_queue_yield(self.client.queue)
        self.client.leave()


@cython.final
cdef class TransactionEnd:
    """A commit or abort, from the first call of it until somebody has taken its outcome. The
    handle's critical section guards it."""

    def __init__(self, ProducerClient client, bint commits):
        self.client = client
        self.commits = commits
        self.waiting = []

    def leave(self, tell):
        """`tell` does not wait any more."""
        with cython.critical_section(self.client):
            self.waiting = [other for other in self.waiting if other is not tell]

    def take(self):
        """Return or raise as it ended, once that is known; before, raise KafkaTimeoutError."""
        if self.outcome is None:
            what = "commit" if self.commits else "abort"
            raise KafkaTimeoutError(KafkaError(
                RD_KAFKA_RESP_ERR__TIMED_OUT,
                f"the {what} is under way; call {what}_transaction "
                f"again{self.client.cause}", is_retriable=True))
        with cython.critical_section(self.client):
            if self.client.transaction.end is self:
                self.client.transaction.end = None
        failed, result = self.outcome
        if failed:
            raise result

    def __call__(self, outcome):
        """The thread is done; the last thing that it does, so that a client that is closed now goes
        at once."""
        failed, result = outcome
        if not failed and result is _NOBODY_WAITS:
            return
        with cython.critical_section(self.client):
            if not failed:
                self.client.transaction.state = BETWEEN_TRANSACTIONS
            self.running = False
            self.outcome = outcome
            waiting = self.waiting
            self.waiting = []
        for tell in waiting:
            tell(outcome)


cdef object _NOBODY_WAITS = object()


def start_ending(ProducerClient client, bint commits, tell):
    """Begin a commit or abort, or join the one that is under way: the TransactionEnd, which calls
    `tell(outcome)` unless it has one already.

    Call its `leave` when nobody waits for `tell` any more, and `take` for the outcome.
    """
    cdef TransactionEnd ending
    cdef str call = "commit_transaction" if commits else "abort_transaction"
    cdef bint starts = False
    client.retain_open()
    try:
        with cython.critical_section(client):
            ending = client.transaction.end
            if ending is not None and ending.commits != commits:
                if ending.outcome is None:
                    raise conflict(ending.commits)
                ending = client.transaction.end = None
            if ending is None:
                check_turn(client, call, IN_TRANSACTION, IN_TRANSACTION)
                if commits:
                    check_complete(client)
                ending = client.transaction.end = TransactionEnd(client, commits)
            if ending.outcome is None:
                ending.waiting.append(tell)
                starts = not ending.running
                ending.running = True
        if starts:
            try:
                call_in_thread(client, ending, _end, client, ending)
            except BaseException as exc:    # "can't start new thread", for one
                with cython.critical_section(client):
                    ending.running = False
                    ending.outcome = (True, exc)
                    waiting = ending.waiting
                    ending.waiting = []
                    client.transaction.end = None
                for other in waiting:       # who has joined meanwhile waits for it as well
                    if other is not tell:
                        other(ending.outcome)
                raise
    finally:
        client.release()
    return ending


def _end(ProducerClient client, TransactionEnd ending):
    """What the thread of a commit or abort does: call librdkafka until it is done, or until nobody
    waits any more.

    In a thread and not in slices: where the first step of a call that is taken up again
    (begin_commit, begin_abort) is not answered by librdkafka's main thread within the call's
    timeout, librdkafka forgets which call it was, and gives the answers to whichever steps wait by
    then. Of a commit it takes the coordinator's answer for that of an abort, and ends the process
    with "Invalid transaction state transition" (rd_kafka_txn_endtxn_complete;
    tests/embedded/commit_slices.c shows it). An abort gets STATE, or the next begin_transaction is
    told that it is done before it is (rd_kafka_txn_curr_api_set_result). All of 2.15.1.

    It can only ever end the transaction that it was begun for: no other begins while
    client.transaction.end is without an outcome.
    """
    cdef rd_kafka_error_t *error
    cdef bint waits
    cdef bint commits = ending.commits
    while True:
        # Offsets that are still on their way belong to this transaction, and not to whichever is
        # open when their thread comes to run.
        if KX_LOAD(client.transaction.sending_offsets) == 0:
            with nogil:
                if commits:
                    error = rd_kafka_commit_transaction(client.rk, ENDING_MS)
                else:
                    error = rd_kafka_abort_transaction(client.rk, ENDING_MS)
            if error == NULL:
                return
            if not rd_kafka_error_is_retriable(
                    error) or rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__CONFLICT:
                check_error(
                    error,
                    "rd_kafka_commit_transaction" if commits else "rd_kafka_abort_transaction")
            waits = rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT
            rd_kafka_error_destroy(error)
        else:
            waits = True
        if client.life.state > OPEN or client.ended():
            client.refuse()
        with cython.critical_section(client):
            if not ending.waiting:
                ending.running = False
                return _NOBODY_WAITS
        if waits:
            with nogil:
                _sleep_ms(RETRY_PAUSE_MS)


# ------------------------------------------------------------------ a consumer's offsets

def send_offsets_to_transaction(ProducerClient client, list offsets, group, timeout):
    """`offsets` are `(topic, partition, offset, leader_epoch)`, a leader_epoch of -1 not being
    known; `group` is a tuple of what ConsumerGroupMetadata has, or the bytes of
    rd_kafka_consumer_group_metadata_write()."""
    cdef int64_t deadline = _deadline(timeout)
    cdef int milliseconds
    cdef ThreadCall told
    if not offsets:
        client.check_usable()
        check_turn(client, "send_offsets_to_transaction", NOT_INITIALISED, IN_TRANSACTION)
        return
    while KX_LOAD(client.transaction.sending_offsets):
        # Given up, and still in librdkafka.
        if _expired(deadline):
            raise offsets_under_way()
        milliseconds = _remaining_ms(deadline, _slice_ms(SLICE_MS))
        with nogil:
            _sleep_ms(milliseconds)
        client.let_signals()
    told = ThreadCall()
    start_send_offsets(client, told, offsets, group, deadline)
    told.wait(client)


def start_send_offsets(ProducerClient client, tell, list offsets, group, int64_t deadline):
    """Begin what send_offsets_to_transaction waits for, with `tell` as `call_in_thread`'s. Earlier
    offsets must not be on their way any more."""
    cdef int timeout_ms = -1 if deadline < 0 else _remaining_ms(deadline, MAX_WAIT_MS)
    client.retain_open()
    try:
        with cython.critical_section(client):
            if client.transaction.end is not None:
                raise conflict(client.transaction.end.commits)
            check_turn(client, "send_offsets_to_transaction", IN_TRANSACTION, IN_TRANSACTION)
            KX_ADD(client.transaction.sending_offsets, 1)
        try:
            call_in_thread(client, tell, _send_offsets, client, offsets, group, timeout_ms)
        except BaseException:
            KX_ADD(client.transaction.sending_offsets, -1)
            raise
    finally:
        client.release()


def offsets_on_their_way(ProducerClient client):
    """Whether a thread that nobody may be waiting for any more still sends offsets to the
    transaction."""
    return KX_LOAD(client.transaction.sending_offsets) != 0


def offsets_under_way():
    """What is raised where the time to wait for that is over."""
    return KafkaTimeoutError(KafkaError(
        RD_KAFKA_RESP_ERR__TIMED_OUT,
        "earlier offsets are still on their way to the transaction; try again", is_retriable=True))


def _send_offsets(ProducerClient client, list offsets, group, int timeout_ms):
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
            error = rd_kafka_send_offsets_to_transaction(client.rk, c_offsets, c_group, timeout_ms)
        check_error(error, "rd_kafka_send_offsets_to_transaction", client.cause)
    finally:
        KX_ADD(client.transaction.sending_offsets, -1)
        if c_offsets != NULL:
            rd_kafka_topic_partition_list_destroy(c_offsets)
        if c_group != NULL:
            rd_kafka_consumer_group_metadata_destroy(c_group)


cdef rd_kafka_consumer_group_metadata_t *_group(object group) except NULL:
    """Owned by the caller."""
    cdef rd_kafka_consumer_group_metadata_t *made = NULL
    cdef const char *c_instance = NULL
    if isinstance(group, bytes):
        # Of bytes that end too early it reads one at the end of each of three strings, and the flag
        # before the third (2.15.1).
        padded = <bytes>group + b"\0\0\0\0"
        check_error(
            rd_kafka_consumer_group_metadata_read(&made, <const char *>padded, len(group)),
            "rd_kafka_consumer_group_metadata_read")
        return made
    group_id, generation_id, member_id, group_instance_id = group
    group_id, member_id = exact_str(group_id).encode(), exact_str(member_id).encode()
    if group_instance_id is not None:
        group_instance_id = exact_str(group_instance_id).encode()
        c_instance = group_instance_id
    return rd_kafka_consumer_group_metadata_new_with_genid(
        group_id, generation_id, member_id, c_instance)


def check_group(bytes group):
    """Raise unless `group` is what rd_kafka_consumer_group_metadata_write() makes."""
    rd_kafka_consumer_group_metadata_destroy(_group(group))
