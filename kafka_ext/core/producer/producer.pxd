# Our own C for a producer, and the layouts of core/producer/.

cdef extern from "kafka_ext/message.h" nogil:
    ctypedef struct kx_bytes:
        const void *data        # borrowed
        size_t size
        PyObject *owner         # owned
        void *view              # owned
    ctypedef struct kx_message:
        PyObject *on_delivery   # owned, all three
        PyObject *id
        PyObject *headers
    ctypedef struct kx_pool:
        int64_t pinned_messages
        int64_t pinned_bytes
    ctypedef struct kx_releases:
        pass
    ctypedef enum kx_content:
        KX_ADDRESSES
        KX_PADDED
    int64_t kx_live_messages
    object (*kx_invalid_record)(object message)
    const char *kx_utf8(
        object text, Py_ssize_t *size, const char *what) except NULL with gil
    int kx_bytes_get(object value, kx_bytes *bytes, const char *what) except -1 with gil
    void kx_bytes_drop(kx_bytes *bytes) noexcept with gil
    int kx_message_make(
        kx_pool *pool, kx_bytes *value, bint copied, PyObject *on_delivery, PyObject *id,
        PyObject *headers, void **opaque) except -1 with gil
    kx_message *kx_message_of(void *opaque) noexcept
    bint kx_message_quiet(void *opaque) noexcept
    void kx_message_release(kx_pool *pool, void *opaque) noexcept with gil
    void kx_pool_destroy(kx_pool *pool) noexcept
    kx_content kx_content_of(const char *format) noexcept
    int64_t kx_first_padded(const void *strings, int64_t count, size_t width) noexcept
    bint kx_is_numpy_time(object value) noexcept with gil
    int kx_export(object exporter, Py_buffer *view, const char *what) except -1 with gil
    int kx_releases_add(kx_releases *releases, void *opaque) noexcept
    void kx_releases_publish(kx_releases *releases) noexcept
    bint kx_releases_waiting(kx_releases *releases) noexcept
    void kx_releases_empty(kx_releases *releases, kx_pool *pool) noexcept with gil

cdef extern from "kafka_ext/produce.h" nogil:
    rd_kafka_resp_err_t kx_produce(
        rd_kafka_t *rk, rd_kafka_topic_t *topic, int32_t partition, bint copy,
        const kx_bytes *value, const kx_bytes *key, rd_kafka_headers_t *headers,
        int64_t timestamp, void *opaque) noexcept

cdef extern from "kafka_ext/columns.h" nogil:
    ctypedef struct kx_arrow_schema:
        const char *format
        const char *name
        int64_t n_children
        kx_arrow_schema **children
        kx_arrow_schema *dictionary
        void (*release)(kx_arrow_schema *) noexcept
    ctypedef struct kx_arrow_array:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        kx_arrow_array **children
        void (*release)(kx_arrow_array *) noexcept
    ctypedef struct kx_arrow_stream:
        int (*get_schema)(kx_arrow_stream *, kx_arrow_schema *out) noexcept nogil
        int (*get_next)(kx_arrow_stream *, kx_arrow_array *out) noexcept nogil
        const char *(*get_last_error)(kx_arrow_stream *) noexcept
        void (*release)(kx_arrow_stream *) noexcept
    ctypedef enum kx_layout:
        KX_NULLS
        KX_ONE
        KX_OBJECTS
        KX_POINTERS
        KX_ROWS
    ctypedef struct kx_span:
        const void *data
        size_t size
    ctypedef struct kx_segment:
        kx_layout layout
        int64_t length
        int64_t offset
        const void *index
        const void *data
        size_t width
        const void *codes
        int64_t code_offset
        int64_t code_length
    ctypedef struct kx_integers:
        const void *data
        int width
        int64_t offset
        int64_t length
        const unsigned char *validity
        int64_t one
        int64_t multiply
        int64_t divide
        bint blanks
    const char *kx_changed
    kx_span kx_segment_at(const kx_segment *s, int64_t i) noexcept
    const char *kx_segment_check(kx_segment *s) noexcept
    size_t kx_segment_own_size(const kx_segment *s) noexcept
    void kx_segment_own(kx_segment *s, void *memory) noexcept
    int64_t kx_segment_length(const kx_segment *s) noexcept
    kx_segment kx_segment_slice(const kx_segment *s, int64_t start, int64_t length) noexcept
    const char *kx_segment_from_arrow(
        const kx_arrow_schema *schema, const kx_arrow_array *array, kx_segment *s, char *text,
        size_t size) noexcept
    const char *kx_integers_from_arrow(
        const kx_arrow_schema *schema, const kx_arrow_array *array, bint timestamp,
        kx_integers *c, char *text, size_t size) noexcept
    int64_t kx_integer_at(const kx_integers *c, int64_t i, int64_t absent) noexcept
    int64_t kx_integers_outside(const kx_integers *c, int64_t least, int64_t most) noexcept
    const char *kx_table_check(
        const kx_arrow_schema *schema, const kx_arrow_array *array) noexcept
    bint kx_table_has_nulls(const kx_arrow_array *array) noexcept
    Py_ssize_t kx_objects_hold(
        PyObject *const *objects, Py_ssize_t count, PyObject **held) noexcept
    void kx_objects_drop(PyObject **held, Py_ssize_t count) noexcept

cdef extern from "kafka_ext/batch.h" nogil:
    const int64_t KX_MAX_BATCH
    int64_t kx_live_batches
    ctypedef struct kx_failure:
        int64_t index
        int32_t code
    ctypedef struct kx_part:
        int64_t length
        int64_t pending
        int64_t failed
        int64_t *offsets
        int32_t *partitions
        int64_t number
        void *owner             # one reference, while in flight
        kx_part *next
    ctypedef struct kx_parts:
        kx_counts *refused      # borrowed
        int64_t missed
        int32_t missed_code
    ctypedef struct kx_enqueue:
        const kx_segment *values
        const kx_segment *keys
        const kx_integers *partitions
        const kx_integers *timestamps
        rd_kafka_headers_t *headers
        rd_kafka_headers_t **each_headers
        const kx_segment *header_columns
        const char **header_names
        size_t header_count
        bint copy
        int turns
        rd_kafka_t *rk
        rd_kafka_topic_t *topic
        kx_part *part
        kx_parts *parts
        int64_t base
        int64_t next
        int64_t accepted
        int64_t accepted_bytes
    int kx_parts_init(kx_parts *parts) noexcept
    void kx_parts_destroy(kx_parts *parts) noexcept
    int kx_parts_add(kx_parts *parts, kx_part *part) noexcept
    void kx_parts_remove(kx_parts *parts, kx_part *part) noexcept
    void kx_parts_pinned(kx_parts *parts, int64_t *messages, int64_t *bytes) noexcept
    kx_part *kx_parts_take_finished(kx_parts *parts) noexcept
    void kx_missed(kx_parts *parts, int32_t code) noexcept
    int kx_part_init(
        kx_part *part, int64_t length, int64_t *offsets, int32_t *partitions) noexcept
    void kx_part_destroy(kx_part *part) noexcept
    bint kx_opaque_is_part(const void *opaque) noexcept
    kx_part *kx_part_report(kx_parts *parts, const rd_kafka_message_t *message) noexcept
    int kx_part_answered(kx_parts *parts, kx_part *part, int64_t count) noexcept
    size_t kx_part_failures(kx_part *part, kx_failure **failures) noexcept
    int kx_enqueue_some(kx_enqueue *e) noexcept
    void kx_enqueue_abandon(kx_enqueue *e, int32_t code) noexcept


cdef class BatchDelivery
cdef class TransactionEnd
cdef class ProducerClient
cdef class RecordMetadata


# ------------------------------------------------------------------ records.pyx


@cython.freelist(64)
cdef class ProducerRecord:
    cdef object _topic              # owned, like every Python attribute: a str
    cdef public object value
    cdef public object key
    cdef object _headers
    cdef public object id
    cdef int32_t _partition         # NO_PARTITION: the partitioner chooses
    cdef int64_t _timestamp         # NO_TIMESTAMP: now


@cython.final
@cython.freelist(64)
cdef class RecordMetadata:
    # While the callback runs, `message` points at librdkafka's own message and the fields below are
    # not filled: most callbacks look at one or two of them, or none. `settle` fills them before
    # librdkafka takes the message back.
    cdef const rd_kafka_message_t *message      # borrowed: the event owns it
    cdef object _topic                          # owned
    cdef object _record_id
    cdef object _headers
    cdef int64_t _offset
    cdef int64_t _timestamp
    cdef int64_t _latency                       # microseconds, -1: unknown
    cdef size_t _key_size
    cdef size_t _value_size
    cdef int32_t _partition
    cdef int32_t _broker_id
    cdef int _status
    cdef int _timestamp_type

    cdef int settle(self) except -1
    cdef tuple fields(self)
    cdef object header_pairs(self)


# ------------------------------------------------------------------ topics.pyx


@cython.final
cdef class Topic:
    cdef rd_kafka_topic_t *rkt      # owned; destroyed before the rd_kafka_t is
    # Owned; also the C topic's opaque, borrowed there: Topics keeps us
    cdef str name
    cdef int partition_count        # cached for partitioners written in Python; 0: not known
    cdef int64_t counted_at
    cdef bint asking                # a thread is finding that out
    cdef Topic next                 # in Topics.all


@cython.final
cdef class Topics:
    cdef dict by_name               # str -> Topic: where they are found
    cdef Topic all                  # chained: where they are kept, which needs no memory
    cdef Topic last_used            # unused on free-threaded builds: reading it would need a lock

    cdef Topic make(self, Client client, str name)
    cdef int destroy_handles(self) noexcept
    cdef int forget(self) except -1


# ------------------------------------------------------------------ transactions.pyx


@cython.final
cdef class Transaction:
    # The transaction of a producer, open or not.
    cdef int state                  # TransactionState
    cdef TransactionEnd end         # from the first commit or abort until its outcome is taken
    # Records that `send` has refused in the open transaction, until they are sent again; None: none
    cdef list refused
    cdef int64_t sending_offsets    # threads in rd_kafka_send_offsets_to_transaction()
    cdef kx_parts *parts            # borrowed: it counts the refused records of batches, too

    cdef int note_refused(self, object record, int code) noexcept
    cdef int note_sent(self, object record) noexcept
    cdef int64_t missing(self) except -1


@cython.final
cdef class TransactionEnd:
    # A commit or abort, from the first call of it until its outcome is taken. The critical section
    # of `client` guards it.
    cdef ProducerClient client
    cdef readonly bint commits      # else it is an abort
    cdef readonly tuple outcome     # (failed, result); None: not known yet
    cdef list waiting               # what is to be called with it
    # A thread calls librdkafka; it stops when nobody waits, and the next caller starts another
    cdef bint running


# ------------------------------------------------------------------ producer_client.pyx


cdef struct Counters:
    # Of records, unless it says otherwise.
    int64_t sent                    # accepted by librdkafka
    int64_t sent_bytes
    int64_t reported                # whose report has been served to its end
    int64_t delivered
    int64_t failed
    int64_t failed_bytes
    int64_t batches
    int64_t blocked_us              # time spent waiting for room
    kx_counts failures              # reported as failed, by code
    kx_counts refused               # not enqueued, by code


cdef struct Reports:
    # Of the turn at hand. Only the serving thread touches it.
    const rd_kafka_message_t **waiting  # owned: those that need the GIL
    size_t count
    size_t size
    int64_t quiet                   # delivered, with no callback to call
    int64_t waiting_since           # for the first answer, in microseconds; 0: nothing was sent
    bint silence_logged             # that none has come


cdef struct Batches:
    # Those in flight.
    kx_parts parts
    bint parts_made
    kx_part *finished               # owned: of the turn at hand, all of whose messages have reports
    int64_t pending                 # batches with a record without a report
    # batches not completed, or with callbacks to call: close() waits
    int64_t open
    int64_t last_number             # of the batch begun last
    int64_t completed_count         # of ProducerClient.completed


@cython.final
cdef class SpareMetadata:
    cdef RecordMetadata last        # reused while callbacks do not keep it
    cdef RecordMetadata reserve     # for the report for which there is no memory
    # (topic, code) -> [count, error] of this turn's failures without a callback
    cdef dict unheard


@cython.final
cdef class ProducerClient(Client):
    cdef Topics topics
    cdef kx_pool pool               # of messages' memory
    cdef kx_releases releases       # put off until a thread holds the GIL anyway
    cdef Counters counts
    cdef Reports reports
    cdef SpareMetadata spare
    cdef Batches batches
    cdef BatchDelivery completed    # chained, the newest first: the serving thread completes them
    cdef Transaction transaction

    cdef int leave_produce(self, int err, int64_t size) noexcept
    cdef Topic topic(self, object name)
    cdef int wait_for_room(self, unsigned long seen, int64_t deadline) except -1
    cdef bint nothing_open(self) noexcept
    cdef rd_kafka_resp_err_t purge_now(self, bint in_queue, bint in_flight) noexcept


# ------------------------------------------------------------------ columns.pyx, batch.pyx


@cython.final
cdef class _Export:
    cdef Py_buffer view
    cdef bint held


@cython.final
cdef class _Schema:
    cdef kx_arrow_schema c


@cython.final
cdef class _Array:
    cdef kx_arrow_array c


@cython.final
cdef class _Stream:
    cdef object stream_capsule      # owned: the stream, or None for a single array
    cdef object schema_capsule      # owned, with the next: a single array
    cdef object array_capsule
    cdef kx_arrow_stream *stream    # borrowed from its capsule
    cdef kx_arrow_schema *schema    # borrowed from its capsule, or from `own_schema`
    cdef _Schema own_schema
    cdef bint polars                # whose Object columns look like bytes, and are addresses
    cdef str what
    # the type of a source that can be read once only, until it has given something
    cdef str once

    cdef int open(self, object source, str what) except -1
    cdef int succeeded(self, int code) except -1
    cdef object next(self)


@cython.final
cdef class Column:
    cdef kx_segment *segments       # owned; what they point at is kept by `pins`
    cdef size_t count
    cdef int64_t length             # -1: one for all
    cdef list pins                  # one for each segment (none where somebody else keeps all)
    # what segments need only while they are read, and nobody else may write
    cdef list owned

    cdef int clear(self) except -1
    cdef kx_segment *add(self) except NULL
    cdef int add_arrow(self, kx_arrow_schema *schema, kx_arrow_array *array, str what,
                       kx_arrow_array *parent) except -1


@cython.final
cdef class _Cursor:
    cdef Column column
    cdef size_t segment
    cdef int64_t at                 # in that segment

    cdef Column take(self, int64_t count)


@cython.final
cdef class Lines:
    cdef bytes data
    cdef kx_span *spans         # owned; they point into `data`
    cdef Py_ssize_t count
    cdef readonly Py_ssize_t end
    cdef readonly Py_ssize_t size


@cython.final
cdef class Integers:
    cdef kx_integers c
    cdef object pins
    cdef int64_t length             # -1: one for all


@cython.final
cdef class BatchPart:
    cdef kx_part c
    # what keeps the values in place; None when librdkafka copied them
    cdef object pins
    cdef BatchDelivery batch
    cdef int64_t start              # the index, in the batch, of the first


@cython.final
cdef class BatchDelivery:
    cdef readonly object ids
    cdef readonly str topic
    cdef list parts                 # BatchPart
    # owned: the parts', where their number was known before; or NULL
    cdef int64_t *all_offsets
    cdef int32_t *all_partitions    # owned, likewise
    cdef int64_t length
    # those without all reports, and one more while the enqueueing goes on
    cdef int64_t open_parts
    cdef object on_delivery
    cdef list callbacks             # add_done_callback's; None once done
    cdef bint heard                 # somebody is to be told, who will see what failed
    cdef object finished            # Event: wakes who waits
    cdef bint ended                 # every message has been reported, and on_delivery has returned
    cdef BatchDelivery next         # in ProducerClient.completed
    cdef int64_t number             # the producer's batches are told in this order
    cdef ProducerClient client
    cdef list restored              # of a copy: what errors() gives
    cdef int gave_up                # the code all that is not enqueued yet fails with; 0: none
    cdef object __weakref__

    cdef object error_of(self, int code)
    cdef object numbers(self, bint wide)
    cdef int close_part(self) except -1
    cdef int complete(self) noexcept


# ------------------------------------------------------------------ producer.pyx, aio.pyx


cdef class Producer:
    cdef ProducerClient _client             # None until the constructor is through
    cdef object _partitioner        # a callable, or None: librdkafka's own
    cdef object _interceptors       # a tuple, or None
    # (of keys, of values), each called with (topic, object) or None; or None
    cdef object _serializers
    cdef bint _detour               # there are interceptors or serializers

    cpdef object _open(self, ProducerClient client, partitioner, interceptors, serializers=*)
    cdef int _send(self, ProducerRecord record, object on_delivery, object option, object action,
                   object timeout) except? -9999
    cdef int _enqueue(self, ProducerClient client, ProducerRecord record, object on_delivery,
                      bint copy, bint may_wait,
                      int64_t deadline) except? -9999
    cdef int _enqueue_later(
            self, ProducerClient client, Topic topic, int32_t partition, bint copy,
            const kx_bytes *value, const kx_bytes *key, rd_kafka_headers_t *headers,
            int64_t timestamp, void *opaque, int64_t deadline) except? -9999
    cdef object _send_error(self, int err)
    cdef int _missed(self, object record, int err) noexcept
    cdef int _count_refused(self, int err) noexcept
    cdef int _refused(self, int err) except -1
    cdef int32_t _choose_partition(self, ProducerClient client, Topic topic, object key,
                                   bint may_wait, int64_t deadline) except -1
    cdef object _intercept(self, object record)
    cdef int _send_detour(self, ProducerClient client, object record, object on_delivery, bint copy,
                          bint may_wait,
                          int64_t deadline) except? -9999
    cdef ProducerRecord _serialized(self, ProducerRecord record)


@cython.final
cdef class _Acknowledge:
    cdef tuple interceptors
    cdef object on_delivery

    cdef tell(self, metadata, error)
    cdef refused(self, record, exc)


cdef class AsyncProducer:
    cdef Producer _producer             # None until the constructor is through
    cdef ProducerClient _client
    cdef object _loop
    # where an asyncio.Future has its loop; 0: the loop makes its futures, for it has others
    cdef Py_ssize_t _loop_at
    cdef int _futures_left              # until the loop is asked again
    cdef bint _tells_its_thread         # the loop has the attribute that is_running() looks at
    cdef int _turns_left                # sends before the next pause
    cdef int _paused                    # sends that have let others have a turn, and come next
    cdef int64_t _waiting               # sends that wait for room: others queue up behind them
    cdef object _turnstile              # an asyncio.Lock: the first of those has it

    cpdef object _open(self, ProducerClient client, partitioner, interceptors, loop, serializers=*)
    cdef object _send_now(self, ProducerRecord record, bint copy)
    cdef bint on_its_loop(self) except -1
    cdef object _new_future(self)
    cpdef int _not_sent(self, record, exc) except -1
    cdef int _sent(self, ProducerRecord record) except -1
    cdef int _enqueue_for(self, ProducerRecord record, on_delivery, bint copy) except -1
    cdef tuple _intercepted(self, record, future)
    cdef tuple _prepare(self, record)
    cdef bint _partitions_known(self, ProducerRecord record) except -1
    cdef int64_t _wait_begins(self) noexcept
    cdef int _wait_ends(self, int64_t began) except -1
    cdef int _enqueue_now(self, ProducerRecord record, object on_delivery, bint copy) except? -9999


@cython.final
@cython.freelist(16)
cdef class Sending:
    cdef AsyncProducer producer         # None once it is through
    cdef ProducerRecord record
    # a coroutine: what is left to do when it cannot be done at once
    cdef object rest
    cdef bint copy
    cdef bint begun
    cdef bint paused

    cdef int done(self) except -1
