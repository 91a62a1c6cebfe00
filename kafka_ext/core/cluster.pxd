# Layouts of what kafka_ext.testing asks a cluster with: admin.pyx, consumer.pyx.


cdef class ClusterClient:
    cdef rd_kafka_t *rk                 # owned
    cdef int generation                 # kx_fork_generation of the process that made it
    cdef bint closing
    # reads what open transactions have written; a partition's end is behind that too
    cdef bint uncommitted
    cdef int asking                     # metadata threads that use rk; changed with `leaving`
    # threading.Lock: one call at a time, and none while it is destroyed
    cdef object lock
    cdef object leaving                 # threading.Lock: who frees
    cdef object __weakref__

    cdef void free(self) noexcept
    cdef void free_more(self) noexcept
    cdef int check_open(self) except -1
    cdef rd_kafka_AdminOptions_t *options(self, rd_kafka_admin_op_t api,
                                          int64_t deadline) except NULL
    cdef rd_kafka_event_t *answer(self, rd_kafka_queue_t *queue, int64_t deadline,
                                  str what) except NULL
    cdef object metadata(self, object topic, int64_t deadline, str what)
    cdef int partitions_of(self, bytes topic, int64_t deadline) except -1
    cdef bint asks_again(self, rd_kafka_resp_err_t err, int64_t deadline) noexcept
    cdef int pause(self, int64_t deadline, str what) except -1
    cdef dict offsets_of(self, list partitions, int64_t which, int64_t deadline)


cdef class TopicReader(ClusterClient):
    cdef rd_kafka_topic_t *rkt              # owned; destroyed before the client is
    cdef rd_kafka_queue_t *queue            # owned: where all the partitions' messages come
    cdef rd_kafka_message_t **batch         # owned: room for one exchange
    cdef int64_t *next_offset               # owned: of each partition
    cdef bint *started                      # owned: of each partition
    cdef int count
    cdef list kept                          # read, and not handed out because something raised
    cdef object failed                      # the exception that ends reading, or None
    cdef readonly str topic

    cdef int open(self, bytes name, list offsets) except -1
    cdef void free_more(self) noexcept
    cdef list take(self, Py_ssize_t wanted, dict ends, int64_t deadline, object patience=*)
    cdef Py_ssize_t exchange(self, Py_ssize_t at_most, int milliseconds) noexcept
    cdef int sort(self, Py_ssize_t n, list messages) except -1
    cdef object failure(self, const rd_kafka_message_t *message)
    cdef bint reached(self, dict ends) except -1
    cdef str missing(self, dict ends)
