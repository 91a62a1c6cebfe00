# The extension module's types. Its truth is checked by stubtest; the codes of ErrorCode are those of librdkafka 2.14.2.

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from datetime import datetime
from enum import Enum, IntEnum
from threading import Thread
from typing import Any, Protocol, SupportsIndex, TypeAlias, final

from typing_extensions import Self, disjoint_base

# Anything with the buffer protocol (PEP 688; CPython gives C exporters `__buffer__` from 3.12 on, type checkers always).
class _Buffer(Protocol):
    def __buffer__(self, flags: int, /) -> memoryview: ...

class _DLPack(Protocol):
    def __dlpack__(self) -> object: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...

_Content: TypeAlias = _Buffer | _DLPack | str | None
_Headers: TypeAlias = Mapping[str, _Content] | Iterable[tuple[str, _Content] | list[Any]]
_OnDelivery: TypeAlias = Callable[[RecordMetadata, KafkaError | None], object]

class ErrorCode(IntEnum):
    BAD_MSG = -199
    BAD_COMPRESSION = -198
    DESTROY = -197
    FAIL = -196
    TRANSPORT = -195
    CRIT_SYS_RESOURCE = -194
    RESOLVE = -193
    MSG_TIMED_OUT = -192
    PARTITION_EOF = -191
    UNKNOWN_PARTITION = -190
    FS = -189
    UNKNOWN_TOPIC = -188
    ALL_BROKERS_DOWN = -187
    INVALID_ARG = -186
    TIMED_OUT = -185
    QUEUE_FULL = -184
    ISR_INSUFF = -183
    NODE_UPDATE = -182
    SSL = -181
    WAIT_COORD = -180
    UNKNOWN_GROUP = -179
    IN_PROGRESS = -178
    PREV_IN_PROGRESS = -177
    EXISTING_SUBSCRIPTION = -176
    ASSIGN_PARTITIONS = -175
    REVOKE_PARTITIONS = -174
    CONFLICT = -173
    STATE = -172
    UNKNOWN_PROTOCOL = -171
    NOT_IMPLEMENTED = -170
    AUTHENTICATION = -169
    NO_OFFSET = -168
    OUTDATED = -167
    TIMED_OUT_QUEUE = -166
    UNSUPPORTED_FEATURE = -165
    WAIT_CACHE = -164
    INTR = -163
    KEY_SERIALIZATION = -162
    VALUE_SERIALIZATION = -161
    KEY_DESERIALIZATION = -160
    VALUE_DESERIALIZATION = -159
    PARTIAL = -158
    READ_ONLY = -157
    NOENT = -156
    UNDERFLOW = -155
    INVALID_TYPE = -154
    RETRY = -153
    PURGE_QUEUE = -152
    PURGE_INFLIGHT = -151
    FATAL = -150
    INCONSISTENT = -149
    GAPLESS_GUARANTEE = -148
    MAX_POLL_EXCEEDED = -147
    UNKNOWN_BROKER = -146
    NOT_CONFIGURED = -145
    FENCED = -144
    APPLICATION = -143
    ASSIGNMENT_LOST = -142
    NOOP = -141
    AUTO_OFFSET_RESET = -140
    LOG_TRUNCATION = -139
    INVALID_DIFFERENT_RECORD = -138
    DESTROY_BROKER = -137
    UNKNOWN = -1
    NO_ERROR = 0
    OFFSET_OUT_OF_RANGE = 1
    INVALID_MSG = 2
    UNKNOWN_TOPIC_OR_PART = 3
    INVALID_MSG_SIZE = 4
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_FOR_PARTITION = 6
    REQUEST_TIMED_OUT = 7
    BROKER_NOT_AVAILABLE = 8
    REPLICA_NOT_AVAILABLE = 9
    MSG_SIZE_TOO_LARGE = 10
    STALE_CTRL_EPOCH = 11
    OFFSET_METADATA_TOO_LARGE = 12
    NETWORK_EXCEPTION = 13
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    TOPIC_EXCEPTION = 17
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    INVALID_REQUIRED_ACKS = 21
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    INVALID_COMMIT_OFFSET_SIZE = 28
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    CLUSTER_AUTHORIZATION_FAILED = 31
    INVALID_TIMESTAMP = 32
    UNSUPPORTED_SASL_MECHANISM = 33
    ILLEGAL_SASL_STATE = 34
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_REPLICA_ASSIGNMENT = 39
    INVALID_CONFIG = 40
    NOT_CONTROLLER = 41
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    INVALID_PRODUCER_ID_MAPPING = 49
    INVALID_TRANSACTION_TIMEOUT = 50
    CONCURRENT_TRANSACTIONS = 51
    TRANSACTION_COORDINATOR_FENCED = 52
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    SECURITY_DISABLED = 54
    OPERATION_NOT_ATTEMPTED = 55
    KAFKA_STORAGE_ERROR = 56
    LOG_DIR_NOT_FOUND = 57
    SASL_AUTHENTICATION_FAILED = 58
    UNKNOWN_PRODUCER_ID = 59
    REASSIGNMENT_IN_PROGRESS = 60
    DELEGATION_TOKEN_AUTH_DISABLED = 61
    DELEGATION_TOKEN_NOT_FOUND = 62
    DELEGATION_TOKEN_OWNER_MISMATCH = 63
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65
    DELEGATION_TOKEN_EXPIRED = 66
    INVALID_PRINCIPAL_TYPE = 67
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    FETCH_SESSION_ID_NOT_FOUND = 70
    INVALID_FETCH_SESSION_EPOCH = 71
    LISTENER_NOT_FOUND = 72
    TOPIC_DELETION_DISABLED = 73
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    UNSUPPORTED_COMPRESSION_TYPE = 76
    STALE_BROKER_EPOCH = 77
    OFFSET_NOT_AVAILABLE = 78
    MEMBER_ID_REQUIRED = 79
    PREFERRED_LEADER_NOT_AVAILABLE = 80
    GROUP_MAX_SIZE_REACHED = 81
    FENCED_INSTANCE_ID = 82
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83
    ELECTION_NOT_NEEDED = 84
    NO_REASSIGNMENT_IN_PROGRESS = 85
    GROUP_SUBSCRIBED_TO_TOPIC = 86
    INVALID_RECORD = 87
    UNSTABLE_OFFSET_COMMIT = 88
    THROTTLING_QUOTA_EXCEEDED = 89
    PRODUCER_FENCED = 90
    RESOURCE_NOT_FOUND = 91
    DUPLICATE_RESOURCE = 92
    UNACCEPTABLE_CREDENTIAL = 93
    INCONSISTENT_VOTER_SET = 94
    INVALID_UPDATE_VERSION = 95
    FEATURE_UPDATE_FAILED = 96
    PRINCIPAL_DESERIALIZATION_FAILURE = 97
    UNKNOWN_TOPIC_ID = 100
    FENCED_MEMBER_EPOCH = 110
    UNRELEASED_INSTANCE_ID = 111
    UNSUPPORTED_ASSIGNOR = 112
    STALE_MEMBER_EPOCH = 113
    UNKNOWN_SUBSCRIPTION_ID = 117
    TELEMETRY_TOO_LARGE = 118
    REBOOTSTRAP_REQUIRED = 129

class SendOption(IntEnum):
    NO_COPY_RECORD_VALUE = 0
    TO_COPY_RECORD_VALUE = 1

class ActionWhileQueueIsFull(IntEnum):
    BLOCK = 0
    NO_BLOCK = 1

class PersistedStatus(IntEnum):
    NOT = 0
    POSSIBLY = 1
    DONE = 2

class TimestampType(str, Enum):
    def __new__(cls, value: str) -> Self: ...
    NOT_AVAILABLE = "NotAvailable"
    CREATE_TIME = "CreateTime"
    LOG_APPEND_TIME = "LogAppendTime"

class KafkaError:
    def __init__(
        self,
        code: int,
        message: str | None = None,
        *,
        is_fatal: bool = False,
        is_retriable: bool | None = None,
        transaction_requires_abort: bool = False,
    ) -> None: ...
    @property
    def code(self) -> ErrorCode: ...
    @property
    def name(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def is_fatal(self) -> bool: ...
    @property
    def is_retriable(self) -> bool: ...
    @property
    def transaction_requires_abort(self) -> bool: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

class KafkaException(Exception):
    error: KafkaError
    def __init__(self, error: KafkaError, *args: object) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

class QueueFullError(KafkaException, BufferError): ...
class KafkaTimeoutError(KafkaException, TimeoutError): ...

class InvalidConfigError(KafkaException, ValueError):
    property: str | None
    def __init__(self, error: KafkaError, property: str | None = None) -> None: ...

class InvalidRecordError(KafkaException, ValueError): ...
class ProducerClosedError(KafkaException): ...
class ProducerForkedError(KafkaException): ...

@disjoint_base
class ProducerRecord:
    value: Any  # _Content, or whatever the producer's value_serializer takes
    key: Any
    headers: _Headers | None
    id: Any
    def __init__(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Any = None,
        partition: SupportsIndex | None = None,
        headers: _Headers | None = None,
        timestamp: SupportsIndex | datetime | None = None,
        id: Any = None,
    ) -> None: ...
    @property
    def topic(self) -> str: ...
    @topic.setter
    def topic(self, topic: str) -> None: ...
    @property
    def partition(self) -> int | None: ...
    @partition.setter
    def partition(self, partition: SupportsIndex | None) -> None: ...
    @property
    def timestamp(self) -> int | None: ...
    @timestamp.setter
    def timestamp(self, timestamp: SupportsIndex | datetime | None) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class RecordMetadata:
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int | None: ...
    @property
    def offset(self) -> int | None: ...
    @property
    def record_id(self) -> Any: ...
    @property
    def key_size(self) -> int: ...
    @property
    def value_size(self) -> int: ...
    @property
    def timestamp(self) -> int | None: ...
    @property
    def timestamp_type(self) -> TimestampType: ...
    @property
    def persisted_status(self) -> PersistedStatus: ...
    @property
    def headers(self) -> list[tuple[str, _Content]] | None: ...
    @property
    def latency(self) -> float | None: ...
    @property
    def broker_id(self) -> int | None: ...

@final
class Topic: ...

@final
class Handle:
    hurry: bool
    @property
    def abandoned(self) -> bool: ...
    @abandoned.setter
    def abandoned(self, abandoned: bool) -> None: ...
    @property
    def manual(self) -> bool: ...
    def __init__(
        self, settings: dict[str, str], callbacks: dict[str, Callable[..., Any]], manual: bool, extra_names: Iterable[str]
    ) -> None: ...
    @property
    def loop_thread_id(self) -> int: ...
    @property
    def forked(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def closing(self) -> bool: ...
    @property
    def running(self) -> bool: ...
    @property
    def outstanding(self) -> int: ...
    def check_usable(self) -> None: ...
    def check_not_in_callback(self, call: str) -> None: ...
    def settle(self) -> None: ...
    def flush(self, timeout: float | None) -> bool: ...
    def purge(self, in_queue: bool, in_flight: bool) -> None: ...
    def begin_close(self) -> None: ...
    def finish_close(self, timeout: float | None) -> bool: ...
    def stop_events(self) -> None: ...
    def destroy(self) -> None: ...
    def run(self) -> None: ...
    def poll(self, timeout: float | None) -> int: ...
    def take_raised(self) -> list[BaseException]: ...
    def get_property(self, name: str) -> str | None: ...
    def fatal_error(self) -> KafkaError | None: ...
    def test_fatal_error(self, code: int, reason: str) -> None: ...
    def counters(self) -> tuple[int, int, int, int, int, int, int, int, float, bytes | None]: ...

@disjoint_base
class Producer:
    @property
    def handle(self) -> Handle: ...
    def _handle_or_none(self) -> Handle | None: ...
    def _open(
        self,
        handle: Handle,
        partitioner: Callable[[str, Any, int], int] | None,
        interceptors: tuple[Any, ...] | None,
        serializers: tuple[Callable[[str, Any], Any] | None, Callable[[str, Any], Any] | None] | None = None,
    ) -> None: ...
    def send(
        self,
        record: ProducerRecord,
        on_delivery: _OnDelivery | None = None,
        *,
        option: SendOption = ...,
        action: ActionWhileQueueIsFull = ...,
        timeout: float | None = None,
    ) -> None: ...
    def try_send(
        self, record: ProducerRecord, on_delivery: _OnDelivery | None = None, *, option: SendOption = ...
    ) -> KafkaError | None: ...

@final
class Column: ...

@final
class Integers: ...

@final
class BatchPart: ...

@final
class BatchDelivery:
    @property
    def ids(self) -> Any: ...
    @property
    def topic(self) -> str: ...
    @property
    def pending(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def offsets(self) -> memoryview: ...
    @property
    def partitions(self) -> memoryview: ...
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __await__(self) -> Generator[Any, None, BatchDelivery]: ...
    def done(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def errors(self) -> list[tuple[int, KafkaError]]: ...
    def raise_for_errors(self) -> None: ...
    def add_done_callback(self, callback: Callable[[BatchDelivery], object]) -> None: ...

def send_batch(
    producer: Producer,
    topic: str,
    values: Any,
    keys: Any,
    partitions: Any,
    timestamps: Any,
    headers: Any,
    ids: Any,
    on_delivery: Callable[[BatchDelivery], object] | None,
    option: SendOption,
    action: ActionWhileQueueIsFull,
    timeout: float | None,
) -> BatchDelivery: ...
def send_table(
    producer: Producer,
    table: Any,
    topic: str,
    value: str,
    key: str | None,
    partition: str | None,
    timestamp: str | None,
    headers: Iterable[str],
    on_delivery: Callable[[BatchDelivery], object] | None,
    option: SendOption,
    action: ActionWhileQueueIsFull,
    timeout: float | None,
) -> BatchDelivery: ...

@disjoint_base
class AsyncProducer:
    @property
    def handle(self) -> Handle: ...
    def _handle_or_none(self) -> Handle | None: ...
    def _open(
        self,
        handle: Handle,
        partitioner: Callable[[str, Any, int], int] | None,
        interceptors: tuple[Any, ...] | None,
        loop: AbstractEventLoop,
        serializers: tuple[Callable[[str, Any], Any] | None, Callable[[str, Any], Any] | None] | None = None,
    ) -> None: ...
    def send(self, record: ProducerRecord, *, option: SendOption = ...) -> Sending: ...
    def send_nowait(self, record: ProducerRecord, *, option: SendOption = ...) -> Future[RecordMetadata]: ...
    def _check_loop(self) -> None: ...
    def _enqueue_for(self, record: ProducerRecord, on_delivery: Any, copy: bool) -> None: ...
    def _intercepted(self, record: ProducerRecord, future: Future[RecordMetadata]) -> tuple[ProducerRecord, Any]: ...
    def _prepare(self, record: ProducerRecord) -> tuple[ProducerRecord, Future[RecordMetadata], Any]: ...
    def _topic_needs_partitions(self, partitions: Any) -> bool: ...
    def _partitions_known(self, record: ProducerRecord) -> bool: ...
    def _refuse(self, record: ProducerRecord, on_delivery: Any, exc: BaseException) -> None: ...
    def _wait_begins(self) -> int: ...
    def _wait_ends(self, began: int) -> None: ...

@final
class Sending(Coroutine[Any, Any, Future[RecordMetadata]]):
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def __await__(self) -> Generator[Any, Any, Future[RecordMetadata]]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...

_Outcome: TypeAlias = Callable[[tuple[bool, Any]], object]

def attach_loop(handle: Handle, loop: AbstractEventLoop, fd: int) -> None: ...
def detach_loop(handle: Handle) -> None: ...
def serve_on_loop(handle: Handle) -> bool: ...
def all_reported(handle: Handle) -> bool: ...
def hurry(handle: Handle) -> None: ...
def purge_rest(handle: Handle) -> None: ...
def start_batch(
    producer: AsyncProducer,
    topic: str,
    values: Any,
    keys: Any,
    partitions: Any,
    timestamps: Any,
    headers: Any,
    ids: Any,
    on_delivery: Callable[[BatchDelivery], object] | None,
    option: SendOption,
) -> tuple[Any, BatchDelivery]: ...
def start_table(
    producer: AsyncProducer,
    table: Any,
    topic: str,
    value: str,
    key: str | None,
    partition: str | None,
    timestamp: str | None,
    headers: Iterable[str],
    on_delivery: Callable[[BatchDelivery], object] | None,
    option: SendOption,
) -> tuple[Any, BatchDelivery]: ...
def resume_batch(handle: Handle, steps: Any, batch: BatchDelivery) -> bool | None: ...
def give_up_batch(steps: Any, batch: BatchDelivery, exc: BaseException) -> None: ...
def transaction_slice(handle: Handle, name: str, milliseconds: int) -> KafkaError | None: ...
def start_send_offsets(
    handle: Handle,
    tell: _Outcome,
    offsets: list[tuple[str, int, int, int]],
    group_id: str,
    generation_id: int,
    member_id: str,
    group_instance_id: str | None,
    timeout: float | None,
) -> None: ...
def start_fetch_metadata(handle: Handle, tell: _Outcome, topic: str | None, timeout: float | None) -> None: ...
def start_aside(handle: Handle, tell: _Outcome, function: Callable[..., Any], *arguments: Any) -> Thread: ...
def set_token(handle: Handle, token: Any) -> None: ...
def refuse_token(handle: Handle, exc: BaseException) -> None: ...
def known_properties() -> frozenset[str]: ...
def in_callback() -> bool: ...
def aside(handle: Handle, function: Callable[..., Any], *arguments: Any) -> Any: ...
def live_objects() -> dict[str, int]: ...
def fail_allocations(first: int, times: int = 1, everywhere: bool = False) -> None: ...
def allocations_failed() -> tuple[int, int]: ...
def build_info() -> dict[str, Any]: ...
def exception_for(error: KafkaError) -> KafkaException: ...
def deadline(timeout: float | None) -> int: ...
def seconds_until(deadline: int) -> float | None: ...
def fetch_metadata(handle: Handle, topic: str | None, timeout: float | None) -> tuple[Any, ...]: ...
def init_transactions(handle: Handle, timeout: float | None) -> None: ...
def begin_transaction(handle: Handle) -> None: ...
def commit_transaction(handle: Handle, timeout: float | None) -> None: ...
def abort_transaction(handle: Handle, timeout: float | None) -> None: ...
def send_offsets_to_transaction(
    handle: Handle,
    offsets: list[tuple[str, int, int, int]],
    group_id: str,
    generation_id: int,
    member_id: str,
    group_instance_id: str | None,
    timeout: float | None,
) -> None: ...
def version() -> tuple[int, str]: ...

# --- what kafka_ext.testing is made of: core/admin.pyx, core/consumer.pyx, core/mock.pyx ---

def check_topic_name(topic: str) -> None: ...
def live_testing_objects() -> dict[str, int]: ...

@disjoint_base
class ClusterClient:
    def __init__(self, bootstrap_servers: str, config: Mapping[str, str] | None = None) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def __del__(self) -> None: ...
    def close(self) -> None: ...
    def topics(self, timeout: float | None = 10.0) -> dict[str, int]: ...
    def broker_ids(self, timeout: float | None = 10.0) -> list[int]: ...
    def partition_count(self, topic: str, timeout: float | None = 10.0) -> int: ...
    def end_offsets(self, partitions: Iterable[tuple[str, int]], timeout: float | None = 10.0) -> dict[tuple[str, int], int]: ...
    def create_topic(self, topic: str, partitions: int = 1, replication_factor: int = 1, timeout: float | None = 30.0) -> None: ...
    def _ask_metadata(self, topic: bytes | None, timeout_ms: int, outcome: list[Any]) -> None: ...

class RetentionLost(KafkaException):
    topic: str | None
    partition: int | None
    offset: int | None
    first_available: int | None
    def __init__(
        self,
        error: KafkaError,
        topic: str | None = None,
        partition: int | None = None,
        offset: int | None = None,
        first_available: int | None = None,
    ) -> None: ...

@final
class ConsumedMessage:
    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Iterable[tuple[str, bytes | None]] = (),
        timestamp: int | None = None,
    ) -> None: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> list[tuple[str, bytes | None]]: ...
    @property
    def timestamp(self) -> int | None: ...
    def _fields(self) -> tuple[Any, ...]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class TopicReader(ClusterClient):
    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        config: Mapping[str, str] | None = None,
        *,
        start: Mapping[int, int] | None = None,
        timeout: float | None = 10.0,
    ) -> None: ...
    @property
    def topic(self) -> str: ...
    @property
    def positions(self) -> dict[int, int]: ...
    def read(self, max_messages: int | None = None, timeout: float | None = 10.0) -> list[ConsumedMessage]: ...
    def read_to_end(self, timeout: float | None = 10.0) -> list[ConsumedMessage]: ...

@final
class MockCluster:
    def __init__(self, brokers: int) -> None: ...
    @property
    def brokers(self) -> int: ...
    @property
    def bootstrap_servers(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def create_topic(self, name: str, partitions: int, replication_factor: int) -> None: ...
    def set_topic_error(self, name: str, error: int) -> None: ...
    def set_leader(self, name: str, partition: int, broker_id: int) -> None: ...
    def set_up(self, broker_id: int, up: bool) -> None: ...
    def set_round_trip_time(self, broker_id: int, milliseconds: int) -> None: ...
    def set_port(self, broker_id: int, port: int) -> None: ...
    def push_errors(self, broker_id: int, api_key: int, errors: Iterable[tuple[int, int]]) -> None: ...
    def count_errors(self, broker_id: int, api_key: int) -> int: ...
    def wait_for_errors(self, expected: Iterable[tuple[int, int, int]], milliseconds: int) -> bool: ...
    def push_cluster_errors(self, api_key: int, errors: Iterable[int]) -> None: ...
    def clear_cluster_errors(self, api_key: int) -> None: ...
    def track_requests(self, on: bool) -> None: ...
    def count_requests(self) -> dict[tuple[int, int], int]: ...
