# librdkafka's mock cluster: Kafka-protocol brokers on loopback ports, served by one C thread that
# never takes the GIL. What users see of it is kafka_ext.testing.EmbeddedBroker; this class only
# owns it, and keeps callers from what would end the process.

import errno as _errno
import os as _os
import resource as _resource

from librdkafka_mock cimport *

cdef int64_t live_mock_clusters = 0


# A broker is a listening socket; a hundred of them are more than any test needs, and librdkafka
# aborts when it runs out of descriptors while it makes them (rd_kafka_mock_cluster_new destroys a
# cluster it has not counted yet).
cdef enum:
    MAX_MOCK_BROKERS = 100
    SPARE_DESCRIPTORS = 32

# The cluster's thread serves its commands first and then empties the pipe that woke it for them. A
# command that comes between the two loses its wake-up and waits until something else wakes the
# thread, up to a second. So commands take turns, with a pause in between that is long for a thread
# and short for a test.
cdef enum:
    COMMAND_GAP_US = 300


cdef int _check_descriptors(int brokers) except -1:
    limit, _ = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    if limit == _resource.RLIM_INFINITY:
        return 0
    try:
        used = len(_os.listdir("/dev/fd"))
    except OSError:
        return 0
    if used + brokers + SPARE_DESCRIPTORS > limit:
        raise OSError(
            _errno.EMFILE,
            f"{brokers} broker{'s' if brokers > 1 else ''} need {brokers + SPARE_DESCRIPTORS} file "
            f"descriptors, and {used} "
            f"of this process's {limit} are in use (ulimit -n)")
    return 0


@cython.final
cdef class MockCluster:
    """A cluster of `brokers` mock brokers, with ids from 1. Internal: EmbeddedBroker checks
    arguments, this does not.

    Args:
        brokers (int): how many, 1 to 100.

    Raises:
        ValueError: another number of brokers.
        OSError: not enough file descriptors are left for them.
        KafkaException: librdkafka cannot make them.

    Every method raises KafkaException (STATE) once it is closed, and in a forked child, where its
    thread is missing. Source: rdkafka_mock.h.
    """

    cdef rd_kafka_t *rk                         # owned; destroyed after the cluster
    cdef rd_kafka_mock_cluster_t *cluster       # owned; destroyed first
    cdef int generation                         # kx_fork_generation of the process that made it
    cdef int64_t callers                        # calls that may touch the cluster right now
    cdef int closing                            # KX_FLAG
    cdef object turn                            # Monitor: one command at a time
    # when it was done, in microseconds of the monotonic clock
    cdef int64_t last_command
    cdef readonly int brokers
    cdef readonly str bootstrap_servers

    def __cinit__(self):
        self.rk = NULL
        self.cluster = NULL
        self.callers = 0
        self.last_command = 0
        self.closing = 0
        self.generation = kx_fork_generation

    def __init__(self, int brokers):
        cdef char[512] errstr
        cdef rd_kafka_conf_t *conf
        cdef rd_kafka_t *rk
        cdef rd_kafka_mock_cluster_t *cluster = NULL
        if self.rk != NULL:
            raise RuntimeError("a MockCluster is initialised once")
        if not 1 <= brokers <= MAX_MOCK_BROKERS:
            raise ValueError(f"brokers must be from 1 to {MAX_MOCK_BROKERS}, not {brokers}")
        _check_descriptors(brokers)
        self.turn = Monitor()
        # Its own handle, which is never used for anything else. Larger requests are refused by
        # closing the connection: from 256 MiB on an assertion of librdkafka's would end the process
        # (rd_slice_init_full). Errors it logs (a request it does not know) go to stderr.
        conf = make_conf({
            "client.id": "kafka_ext.testing", "log_level": "3",
            "receive.message.max.bytes": "268435456",
            "enable.metrics.push": "false"}, ())
        with nogil:
            rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, errstr, sizeof(errstr))
            if rk != NULL:
                cluster = rd_kafka_mock_cluster_new(rk, brokers)
        if rk == NULL:
            rd_kafka_conf_destroy(conf)     # a refused conf stays the caller's
            raise KafkaException(KafkaError(RD_KAFKA_RESP_ERR__FAIL,
                                            (<bytes>errstr).decode("utf-8", "replace")))
        if cluster == NULL:
            with nogil:
                rd_kafka_destroy(rk)
            raise KafkaException(KafkaError(RD_KAFKA_RESP_ERR__FAIL,
                                            "rd_kafka_mock_cluster_new: the brokers cannot be "
                                            "made"))
        # A consumer group has its members at once instead of after three seconds.
        rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
        self.rk = rk
        self.cluster = cluster
        self.brokers = brokers
        self.bootstrap_servers = rd_kafka_mock_cluster_bootstraps(cluster).decode()
        KX_ADD(live_mock_clusters, 1)

    def __dealloc__(self):
        # Only C is freed here. Neither destroy needs the GIL: the cluster's thread has never heard
        # of it.
        if self.cluster != NULL and self.generation == kx_fork_generation:
            self.free()

    cdef void free(self) noexcept:
        """The one place where the C side ends: the cluster, then the handle it was made on."""
        cdef rd_kafka_t *rk = self.rk
        cdef rd_kafka_mock_cluster_t *cluster = self.cluster
        self.cluster = NULL
        self.rk = NULL
        self.wait_gap()
        rd_kafka_mock_cluster_destroy(cluster)
        rd_kafka_destroy(rk)
        KX_ADD(live_mock_clusters, -1)

    cdef int enter(self) except -1:
        """Count a call in: until `leave`, the cluster is not destroyed (a critical section would
        not outlast a released GIL)."""
        KX_ADD(self.callers, 1)
        if KX_FLAG(self.closing) or self.cluster == NULL or self.generation != kx_fork_generation:
            KX_ADD(self.callers, -1)
            if self.generation != kx_fork_generation:
                raise KafkaException(KafkaError(
                    RD_KAFKA_RESP_ERR__STATE,
                    "this broker was made before fork() and belongs to the parent; make one in "
                    "this process"))
            raise KafkaException(KafkaError(RD_KAFKA_RESP_ERR__STATE, "the broker is closed"))
        return 0

    cdef int leave(self) noexcept:
        KX_ADD(self.callers, -1)
        return 0

    cdef void wait_gap(self) noexcept nogil:
        cdef timespec pause
        cdef int64_t left = self.last_command + COMMAND_GAP_US - kx_now_us()
        if left > 0:
            pause.tv_sec = 0
            pause.tv_nsec = left * 1000
            nanosleep(&pause, NULL)

    cdef int begin_command(self) except -1:
        """`enter`, for a call that is a command to the cluster's thread."""
        self.turn.acquire()
        try:
            self.enter()
        except BaseException:
            self.turn.release()
            raise
        with nogil:
            self.wait_gap()
        return 0

    cdef int end_command(self) except -1:
        self.last_command = kx_now_us()
        self.leave()
        self.turn.release()
        return 0

    def close(self):
        """End it, once no other call is in it. Idempotent; in a forked child it only forgets."""
        cdef timespec pause
        pause.tv_sec = 0
        pause.tv_nsec = 200000
        if KX_FLAG(self.closing) or self.cluster == NULL:
            return
        KX_SET(self.closing, 1)
        if self.generation != kx_fork_generation:
            return
        while KX_LOAD(self.callers) > 0:
            with nogil:
                nanosleep(&pause, NULL)
        self.free()

    @property
    def closed(self):
        return bool(KX_FLAG(self.closing)) or self.cluster == NULL

    # ------------------------------------------------------------------ topics

    def create_topic(self, str name, int partitions, int replication_factor):
        """rd_kafka_mock_topic_create()."""
        cdef bytes c_name = name.encode()
        cdef const char *topic = c_name
        cdef rd_kafka_resp_err_t err
        self.begin_command()
        with nogil:
            err = rd_kafka_mock_topic_create(self.cluster, topic, partitions, replication_factor)
        self.end_command()
        if err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
            raise KafkaException(KafkaError(err, f"topic {name!r} exists already"))
        check(err, "rd_kafka_mock_topic_create")

    def set_topic_error(self, str name, int error):
        """rd_kafka_mock_topic_set_error(): what Metadata says of the topic from now on. Makes the
        topic if there is none."""
        cdef bytes c_name = name.encode()
        cdef const char *topic = c_name
        self.begin_command()
        with nogil:
            rd_kafka_mock_topic_set_error(self.cluster, topic, error)
        self.end_command()

    def set_leader(self, str name, int partition, int broker_id):
        """rd_kafka_mock_partition_set_leader(). Makes the topic if there is none. Never -1:
        producing to no leader ends the process."""
        cdef bytes c_name = name.encode()
        cdef const char *topic = c_name
        cdef rd_kafka_resp_err_t err
        if not 1 <= broker_id <= self.brokers:
            raise ValueError(f"broker_id must be from 1 to {self.brokers}, not {broker_id}")
        self.begin_command()
        with nogil:
            err = rd_kafka_mock_partition_set_leader(self.cluster, topic, partition, broker_id)
        self.end_command()
        check(err, "rd_kafka_mock_partition_set_leader")

    # ------------------------------------------------------------------ brokers

    def set_up(self, int broker_id, bint up):
        """rd_kafka_mock_broker_set_up(), rd_kafka_mock_broker_set_down(): down closes its
        connections and refuses new ones."""
        cdef rd_kafka_resp_err_t err
        self.begin_command()
        with nogil:
            if up:
                err = rd_kafka_mock_broker_set_up(self.cluster, broker_id)
            else:
                err = rd_kafka_mock_broker_set_down(self.cluster, broker_id)
        self.end_command()
        check(err, "rd_kafka_mock_broker_set_up" if up else "rd_kafka_mock_broker_set_down")

    def set_round_trip_time(self, int broker_id, int milliseconds):
        """rd_kafka_mock_broker_set_rtt()."""
        cdef rd_kafka_resp_err_t err
        self.begin_command()
        with nogil:
            err = rd_kafka_mock_broker_set_rtt(self.cluster, broker_id, milliseconds)
        self.end_command()
        check(err, "rd_kafka_mock_broker_set_rtt")

    def set_port(self, int broker_id, int port):
        """rd_kafka_mock_broker_set_host_port(): the port it tells clients. Not before librdkafka
        2.14."""
        if not KX_MOCK_HAS_HOST_PORT:
            raise KafkaException(KafkaError(
                RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED,
                "a broker can only come back under its old address with librdkafka 2.14 or newer"))
        self.enter()
        with nogil:
            rd_kafka_mock_broker_set_host_port(self.cluster, broker_id, b"127.0.0.1", port)
        self.leave()

    # ------------------------------------------------------------------ errors on requests

    def push_errors(self, int broker_id, int api_key, errors):
        """Queue `(error, delay in milliseconds)` pairs for one broker's next requests
        (rd_kafka_mock_broker_push_request_error_rtts).

        From then on the cluster's own errors of that kind pass this broker by, even once its queue
        is empty.
        """
        cdef rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR
        cdef int code, delay
        self.enter()
        try:
            for code, delay in errors:
                err = rd_kafka_mock_broker_push_request_error_rtts(
                    self.cluster, broker_id, <int16_t>api_key, 1, <rd_kafka_resp_err_t>code, delay)
                check(err, "rd_kafka_mock_broker_push_request_error_rtts")
        finally:
            self.leave()

    def count_errors(self, int broker_id, int api_key):
        """How many of one broker's errors are still to come
        (rd_kafka_mock_broker_error_stack_cnt)."""
        cdef size_t count = 0
        self.enter()
        cdef rd_kafka_resp_err_t err = rd_kafka_mock_broker_error_stack_cnt(
            self.cluster, broker_id, <int16_t>api_key, &count)
        self.leave()
        check(err, "rd_kafka_mock_broker_error_stack_cnt")
        return count

    def wait_for_errors(self, expected, int milliseconds):
        """Wait, without the GIL, until the count of one of `(broker id, API key, count)` is not
        `count` any more; False: time is up."""
        cdef timespec pause
        cdef int64_t deadline = kx_now_us() + milliseconds * 1000
        cdef list watched = list(expected)
        cdef Py_ssize_t n = len(watched)
        cdef Py_ssize_t i
        cdef size_t count
        cdef bint changed = False
        cdef int32_t *numbers = <int32_t *>malloc((n or 1) * 3 * sizeof(int32_t))
        if numbers == NULL:
            raise MemoryError()
        pause.tv_sec = 0
        pause.tv_nsec = 300000
        try:
            for i in range(n):
                numbers[3 * i], numbers[3 * i + 1], numbers[3 * i + 2] = watched[i]
            self.enter()
            try:
                with nogil:
                    while not changed and not KX_FLAG(self.closing) and kx_now_us() < deadline:
                        for i in range(n):
                            count = 0
                            rd_kafka_mock_broker_error_stack_cnt(
                                self.cluster, numbers[3 * i], <int16_t>numbers[3 * i + 1], &count)
                            if count != <size_t>numbers[3 * i + 2]:
                                changed = True
                                break
                        else:
                            nanosleep(&pause, NULL)
            finally:
                self.leave()
        finally:
            free(numbers)
        return changed

    def push_cluster_errors(self, int api_key, errors):
        """Queue errors for the next requests to whichever broker
        (rd_kafka_mock_push_request_errors_array)."""
        cdef list codes = list(errors)
        cdef size_t count = len(codes)
        cdef rd_kafka_resp_err_t *c_codes = <rd_kafka_resp_err_t *>malloc(
            (count or 1) * sizeof(rd_kafka_resp_err_t))
        if c_codes == NULL:
            raise MemoryError()
        try:
            for i in range(count):
                c_codes[i] = <int>codes[i]
            self.enter()
            rd_kafka_mock_push_request_errors_array(self.cluster, <int16_t>api_key, count, c_codes)
            self.leave()
        finally:
            free(c_codes)

    def clear_cluster_errors(self, int api_key):
        """rd_kafka_mock_clear_request_errors()."""
        self.enter()
        rd_kafka_mock_clear_request_errors(self.cluster, <int16_t>api_key)
        self.leave()

    # ------------------------------------------------------------------ requests seen

    def track_requests(self, bint on):
        """rd_kafka_mock_start_request_tracking(), rd_kafka_mock_stop_request_tracking(). It keeps
        each request until it is stopped."""
        self.enter()
        if on:
            rd_kafka_mock_start_request_tracking(self.cluster)
        else:
            rd_kafka_mock_stop_request_tracking(self.cluster)
        self.leave()

    def count_requests(self):
        """How many requests came since tracking started, as `{(broker id, API key): count}`
        (rd_kafka_mock_get_requests)."""
        cdef rd_kafka_mock_request_t **requests     # owned
        cdef size_t count = 0
        counts = {}
        self.enter()
        with nogil:
            requests = rd_kafka_mock_get_requests(self.cluster, &count)
        self.leave()
        try:
            for i in range(count):
                key = (rd_kafka_mock_request_id(requests[i]),
                       rd_kafka_mock_request_api_key(requests[i]))
                counts[key] = counts.get(key, 0) + 1
        finally:
            rd_kafka_mock_request_destroy_array(requests, count)
        return counts


def live_testing_objects():
    """How many of what kafka_ext.testing is made of are alive in the process, by name, as
    `live_objects` does for producers."""
    return {"mock_clusters": KX_LOAD(live_mock_clusters), "clients": KX_LOAD(live_readers)}
