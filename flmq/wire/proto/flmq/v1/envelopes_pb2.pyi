from flmq.wire.proto.flmq.v1 import evaluate_pb2 as _evaluate_pb2
from flmq.wire.proto.flmq.v1 import fit_pb2 as _fit_pb2
from flmq.wire.proto.flmq.v1 import get_parameters_pb2 as _get_parameters_pb2
from flmq.wire.proto.flmq.v1 import get_properties_pb2 as _get_properties_pb2
from flmq.wire.proto.flmq.v1 import parameters_pb2 as _parameters_pb2
from flmq.wire.proto.flmq.v1 import reconnect_pb2 as _reconnect_pb2
from flmq.wire.proto.flmq.v1 import scalar_pb2 as _scalar_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_FIT: _ClassVar[Phase]
    PHASE_EVALUATE: _ClassVar[Phase]
    PHASE_GET_PARAMETERS: _ClassVar[Phase]
    PHASE_GET_PROPERTIES: _ClassVar[Phase]
    PHASE_RECONNECT: _ClassVar[Phase]
    PHASE_OF_KIND: _ClassVar[Phase]

class FailureKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_KIND_UNSPECIFIED: _ClassVar[FailureKind]
    FAILURE_KIND_EXCEPTION: _ClassVar[FailureKind]
    FAILURE_KIND_EXPIRED: _ClassVar[FailureKind]
    FAILURE_KIND_REFUSED: _ClassVar[FailureKind]
    FAILURE_KIND_BAD_RETURN: _ClassVar[FailureKind]
    FAILURE_KIND_SETTLED: _ClassVar[FailureKind]

class ReceiptOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECEIPT_OUTCOME_UNSPECIFIED: _ClassVar[ReceiptOutcome]
    RECEIPT_OUTCOME_ACCEPTED: _ClassVar[ReceiptOutcome]
    RECEIPT_OUTCOME_LATE: _ClassVar[ReceiptOutcome]
    RECEIPT_OUTCOME_REJECTED: _ClassVar[ReceiptOutcome]
    RECEIPT_OUTCOME_DUPLICATE: _ClassVar[ReceiptOutcome]

class PresenceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESENCE_KIND_UNSPECIFIED: _ClassVar[PresenceKind]
    PRESENCE_KIND_HELLO: _ClassVar[PresenceKind]
    PRESENCE_KIND_HEARTBEAT: _ClassVar[PresenceKind]
    PRESENCE_KIND_BYE: _ClassVar[PresenceKind]

class ReplyRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLY_RULE_UNSPECIFIED: _ClassVar[ReplyRule]
    REPLY_RULE_LIKE_SENT: _ClassVar[ReplyRule]
    REPLY_RULE_FINITE: _ClassVar[ReplyRule]
    REPLY_RULE_NONE: _ClassVar[ReplyRule]

class EntryOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_OUTCOME_UNSPECIFIED: _ClassVar[EntryOutcome]
    ENTRY_OUTCOME_ACCEPTED: _ClassVar[EntryOutcome]
    ENTRY_OUTCOME_FAILED: _ClassVar[EntryOutcome]
    ENTRY_OUTCOME_REJECTED: _ClassVar[EntryOutcome]
PHASE_UNSPECIFIED: Phase
PHASE_FIT: Phase
PHASE_EVALUATE: Phase
PHASE_GET_PARAMETERS: Phase
PHASE_GET_PROPERTIES: Phase
PHASE_RECONNECT: Phase
PHASE_OF_KIND: Phase
FAILURE_KIND_UNSPECIFIED: FailureKind
FAILURE_KIND_EXCEPTION: FailureKind
FAILURE_KIND_EXPIRED: FailureKind
FAILURE_KIND_REFUSED: FailureKind
FAILURE_KIND_BAD_RETURN: FailureKind
FAILURE_KIND_SETTLED: FailureKind
RECEIPT_OUTCOME_UNSPECIFIED: ReceiptOutcome
RECEIPT_OUTCOME_ACCEPTED: ReceiptOutcome
RECEIPT_OUTCOME_LATE: ReceiptOutcome
RECEIPT_OUTCOME_REJECTED: ReceiptOutcome
RECEIPT_OUTCOME_DUPLICATE: ReceiptOutcome
PRESENCE_KIND_UNSPECIFIED: PresenceKind
PRESENCE_KIND_HELLO: PresenceKind
PRESENCE_KIND_HEARTBEAT: PresenceKind
PRESENCE_KIND_BYE: PresenceKind
REPLY_RULE_UNSPECIFIED: ReplyRule
REPLY_RULE_LIKE_SENT: ReplyRule
REPLY_RULE_FINITE: ReplyRule
REPLY_RULE_NONE: ReplyRule
ENTRY_OUTCOME_UNSPECIFIED: EntryOutcome
ENTRY_OUTCOME_ACCEPTED: EntryOutcome
ENTRY_OUTCOME_FAILED: EntryOutcome
ENTRY_OUTCOME_REJECTED: EntryOutcome

class Envelope(_message.Message):
    __slots__ = ("schema_major", "schema_minor", "sender_version", "task", "reply", "receipt", "presence", "roll_call", "job_ended", "model_request", "begun", "aggregate_order", "partial_sum", "send_partial", "aggregator_report", "sealed")
    SCHEMA_MAJOR_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_MINOR_FIELD_NUMBER: _ClassVar[int]
    SENDER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    ROLL_CALL_FIELD_NUMBER: _ClassVar[int]
    JOB_ENDED_FIELD_NUMBER: _ClassVar[int]
    MODEL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_ORDER_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_SUM_FIELD_NUMBER: _ClassVar[int]
    SEND_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATOR_REPORT_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    schema_major: int
    schema_minor: int
    sender_version: str
    task: Task
    reply: Reply
    receipt: Receipt
    presence: Presence
    roll_call: RollCall
    job_ended: JobEnded
    model_request: ModelRequest
    begun: Begun
    aggregate_order: AggregateOrder
    partial_sum: PartialSum
    send_partial: SendPartial
    aggregator_report: AggregatorReport
    sealed: Sealed
    def __init__(self, schema_major: _Optional[int] = ..., schema_minor: _Optional[int] = ..., sender_version: _Optional[str] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., presence: _Optional[_Union[Presence, _Mapping]] = ..., roll_call: _Optional[_Union[RollCall, _Mapping]] = ..., job_ended: _Optional[_Union[JobEnded, _Mapping]] = ..., model_request: _Optional[_Union[ModelRequest, _Mapping]] = ..., begun: _Optional[_Union[Begun, _Mapping]] = ..., aggregate_order: _Optional[_Union[AggregateOrder, _Mapping]] = ..., partial_sum: _Optional[_Union[PartialSum, _Mapping]] = ..., send_partial: _Optional[_Union[SendPartial, _Mapping]] = ..., aggregator_report: _Optional[_Union[AggregatorReport, _Mapping]] = ..., sealed: _Optional[_Union[Sealed, _Mapping]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "job", "server_round", "phase", "client_id", "epoch", "nonce", "deadline_unix_ms", "timeout_seconds", "fit", "evaluate", "get_parameters", "get_properties", "reconnect", "payload", "model", "reply_codec", "run", "again", "kind", "via")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SERVER_ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    GET_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    GET_PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REPLY_CODEC_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job: str
    server_round: int
    phase: Phase
    client_id: str
    epoch: int
    nonce: bytes
    deadline_unix_ms: int
    timeout_seconds: float
    fit: _fit_pb2.FitIns
    evaluate: _evaluate_pb2.EvaluateIns
    get_parameters: _get_parameters_pb2.GetParametersIns
    get_properties: _get_properties_pb2.GetPropertiesIns
    reconnect: _reconnect_pb2.ReconnectIns
    payload: bytes
    model: BlobRef
    reply_codec: str
    run: str
    again: int
    kind: str
    via: str
    def __init__(self, task_id: _Optional[str] = ..., job: _Optional[str] = ..., server_round: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., client_id: _Optional[str] = ..., epoch: _Optional[int] = ..., nonce: _Optional[bytes] = ..., deadline_unix_ms: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., fit: _Optional[_Union[_fit_pb2.FitIns, _Mapping]] = ..., evaluate: _Optional[_Union[_evaluate_pb2.EvaluateIns, _Mapping]] = ..., get_parameters: _Optional[_Union[_get_parameters_pb2.GetParametersIns, _Mapping]] = ..., get_properties: _Optional[_Union[_get_properties_pb2.GetPropertiesIns, _Mapping]] = ..., reconnect: _Optional[_Union[_reconnect_pb2.ReconnectIns, _Mapping]] = ..., payload: _Optional[bytes] = ..., model: _Optional[_Union[BlobRef, _Mapping]] = ..., reply_codec: _Optional[str] = ..., run: _Optional[str] = ..., again: _Optional[int] = ..., kind: _Optional[str] = ..., via: _Optional[str] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("task_id", "job", "server_round", "phase", "client_id", "epoch", "nonce", "seconds", "fit", "evaluate", "get_parameters", "get_properties", "disconnect", "failure", "payload", "blob", "kind", "base", "run", "times")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SERVER_ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    GET_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    GET_PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job: str
    server_round: int
    phase: Phase
    client_id: str
    epoch: int
    nonce: bytes
    seconds: float
    fit: _fit_pb2.FitRes
    evaluate: _evaluate_pb2.EvaluateRes
    get_parameters: _get_parameters_pb2.GetParametersRes
    get_properties: _get_properties_pb2.GetPropertiesRes
    disconnect: _reconnect_pb2.DisconnectRes
    failure: Failure
    payload: bytes
    blob: BlobRef
    kind: str
    base: str
    run: str
    times: Times
    def __init__(self, task_id: _Optional[str] = ..., job: _Optional[str] = ..., server_round: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., client_id: _Optional[str] = ..., epoch: _Optional[int] = ..., nonce: _Optional[bytes] = ..., seconds: _Optional[float] = ..., fit: _Optional[_Union[_fit_pb2.FitRes, _Mapping]] = ..., evaluate: _Optional[_Union[_evaluate_pb2.EvaluateRes, _Mapping]] = ..., get_parameters: _Optional[_Union[_get_parameters_pb2.GetParametersRes, _Mapping]] = ..., get_properties: _Optional[_Union[_get_properties_pb2.GetPropertiesRes, _Mapping]] = ..., disconnect: _Optional[_Union[_reconnect_pb2.DisconnectRes, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., payload: _Optional[bytes] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ..., kind: _Optional[str] = ..., base: _Optional[str] = ..., run: _Optional[str] = ..., times: _Optional[_Union[Times, _Mapping]] = ...) -> None: ...

class Times(_message.Message):
    __slots__ = ("taken_unix_ms", "begun_unix_ms", "training_started_unix_ms", "training_ended_unix_ms", "upload_started_unix_ms", "deliveries", "deaths", "note")
    TAKEN_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_STARTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_ENDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_STARTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    DEATHS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    taken_unix_ms: int
    begun_unix_ms: int
    training_started_unix_ms: int
    training_ended_unix_ms: int
    upload_started_unix_ms: int
    deliveries: int
    deaths: int
    note: str
    def __init__(self, taken_unix_ms: _Optional[int] = ..., begun_unix_ms: _Optional[int] = ..., training_started_unix_ms: _Optional[int] = ..., training_ended_unix_ms: _Optional[int] = ..., upload_started_unix_ms: _Optional[int] = ..., deliveries: _Optional[int] = ..., deaths: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...

class BlobRef(_message.Message):
    __slots__ = ("digest", "tensor_type", "lengths", "chunk_bytes", "codec", "base", "published_unix_ms", "names", "key")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TENSOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    digest: str
    tensor_type: str
    lengths: _containers.RepeatedScalarFieldContainer[int]
    chunk_bytes: int
    codec: str
    base: str
    published_unix_ms: int
    names: _containers.RepeatedScalarFieldContainer[str]
    key: bytes
    def __init__(self, digest: _Optional[str] = ..., tensor_type: _Optional[str] = ..., lengths: _Optional[_Iterable[int]] = ..., chunk_bytes: _Optional[int] = ..., codec: _Optional[str] = ..., base: _Optional[str] = ..., published_unix_ms: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ..., key: _Optional[bytes] = ...) -> None: ...

class ModelRequest(_message.Message):
    __slots__ = ("job", "client_id", "digest", "with_tasks")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WITH_TASKS_FIELD_NUMBER: _ClassVar[int]
    job: str
    client_id: str
    digest: str
    with_tasks: bool
    def __init__(self, job: _Optional[str] = ..., client_id: _Optional[str] = ..., digest: _Optional[str] = ..., with_tasks: bool = ...) -> None: ...

class Begun(_message.Message):
    __slots__ = ("task_id", "client_id", "instance")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    client_id: str
    instance: str
    def __init__(self, task_id: _Optional[str] = ..., client_id: _Optional[str] = ..., instance: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "exception_type", "message", "traceback_tail")
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_TAIL_FIELD_NUMBER: _ClassVar[int]
    kind: FailureKind
    exception_type: str
    message: str
    traceback_tail: str
    def __init__(self, kind: _Optional[_Union[FailureKind, str]] = ..., exception_type: _Optional[str] = ..., message: _Optional[str] = ..., traceback_tail: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("task_id", "job", "server_round", "phase", "client_id", "outcome", "reason", "late_by_seconds", "kind")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SERVER_ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LATE_BY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job: str
    server_round: int
    phase: Phase
    client_id: str
    outcome: ReceiptOutcome
    reason: str
    late_by_seconds: float
    kind: str
    def __init__(self, task_id: _Optional[str] = ..., job: _Optional[str] = ..., server_round: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., client_id: _Optional[str] = ..., outcome: _Optional[_Union[ReceiptOutcome, str]] = ..., reason: _Optional[str] = ..., late_by_seconds: _Optional[float] = ..., kind: _Optional[str] = ...) -> None: ...

class Presence(_message.Message):
    __slots__ = ("kind", "client_id", "site", "instance", "properties", "sent_unix_ms", "heartbeat_seconds", "flmq_version", "others")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _scalar_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    SENT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FLMQ_VERSION_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    kind: PresenceKind
    client_id: str
    site: str
    instance: str
    properties: _containers.MessageMap[str, _scalar_pb2.Scalar]
    sent_unix_ms: int
    heartbeat_seconds: float
    flmq_version: str
    others: _containers.RepeatedCompositeFieldContainer[Companion]
    def __init__(self, kind: _Optional[_Union[PresenceKind, str]] = ..., client_id: _Optional[str] = ..., site: _Optional[str] = ..., instance: _Optional[str] = ..., properties: _Optional[_Mapping[str, _scalar_pb2.Scalar]] = ..., sent_unix_ms: _Optional[int] = ..., heartbeat_seconds: _Optional[float] = ..., flmq_version: _Optional[str] = ..., others: _Optional[_Iterable[_Union[Companion, _Mapping]]] = ...) -> None: ...

class Companion(_message.Message):
    __slots__ = ("client_id", "properties", "greeting")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _scalar_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ...) -> None: ...
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    GREETING_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    properties: _containers.MessageMap[str, _scalar_pb2.Scalar]
    greeting: str
    def __init__(self, client_id: _Optional[str] = ..., properties: _Optional[_Mapping[str, _scalar_pb2.Scalar]] = ..., greeting: _Optional[str] = ...) -> None: ...

class RollCall(_message.Message):
    __slots__ = ("job", "epoch", "heartbeat_seconds", "run", "refused", "hears_others")
    JOB_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HEARS_OTHERS_FIELD_NUMBER: _ClassVar[int]
    job: str
    epoch: int
    heartbeat_seconds: float
    run: str
    refused: str
    hears_others: bool
    def __init__(self, job: _Optional[str] = ..., epoch: _Optional[int] = ..., heartbeat_seconds: _Optional[float] = ..., run: _Optional[str] = ..., refused: _Optional[str] = ..., hears_others: bool = ...) -> None: ...

class JobEnded(_message.Message):
    __slots__ = ("job", "epoch", "reason", "run")
    JOB_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    job: str
    epoch: int
    reason: str
    run: str
    def __init__(self, job: _Optional[str] = ..., epoch: _Optional[int] = ..., reason: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...

class AggregateOrder(_message.Message):
    __slots__ = ("task_id", "job", "server_round", "phase", "kind", "site", "epoch", "nonce", "run", "call", "deadline_unix_ms", "timeout_seconds", "parameters", "model", "reply_codec", "rule", "cast", "max_reply_bytes", "asks", "answer_to")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SERVER_ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REPLY_CODEC_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    CAST_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TO_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job: str
    server_round: int
    phase: Phase
    kind: str
    site: str
    epoch: int
    nonce: bytes
    run: str
    call: int
    deadline_unix_ms: int
    timeout_seconds: float
    parameters: _parameters_pb2.Parameters
    model: BlobRef
    reply_codec: str
    rule: ReplyRule
    cast: bool
    max_reply_bytes: int
    asks: _containers.RepeatedCompositeFieldContainer[Asked]
    answer_to: str
    def __init__(self, task_id: _Optional[str] = ..., job: _Optional[str] = ..., server_round: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., kind: _Optional[str] = ..., site: _Optional[str] = ..., epoch: _Optional[int] = ..., nonce: _Optional[bytes] = ..., run: _Optional[str] = ..., call: _Optional[int] = ..., deadline_unix_ms: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., parameters: _Optional[_Union[_parameters_pb2.Parameters, _Mapping]] = ..., model: _Optional[_Union[BlobRef, _Mapping]] = ..., reply_codec: _Optional[str] = ..., rule: _Optional[_Union[ReplyRule, str]] = ..., cast: bool = ..., max_reply_bytes: _Optional[int] = ..., asks: _Optional[_Iterable[_Union[Asked, _Mapping]]] = ..., answer_to: _Optional[str] = ...) -> None: ...

class Asked(_message.Message):
    __slots__ = ("task_id", "client_id", "nonce", "name", "site")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    client_id: str
    nonce: bytes
    name: str
    site: str
    def __init__(self, task_id: _Optional[str] = ..., client_id: _Optional[str] = ..., nonce: _Optional[bytes] = ..., name: _Optional[str] = ..., site: _Optional[str] = ...) -> None: ...

class PartialSum(_message.Message):
    __slots__ = ("task_id", "job", "server_round", "phase", "kind", "site", "epoch", "nonce", "run", "parameters", "blob")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SERVER_ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job: str
    server_round: int
    phase: Phase
    kind: str
    site: str
    epoch: int
    nonce: bytes
    run: str
    parameters: _parameters_pb2.Parameters
    blob: BlobRef
    def __init__(self, task_id: _Optional[str] = ..., job: _Optional[str] = ..., server_round: _Optional[int] = ..., phase: _Optional[_Union[Phase, str]] = ..., kind: _Optional[str] = ..., site: _Optional[str] = ..., epoch: _Optional[int] = ..., nonce: _Optional[bytes] = ..., run: _Optional[str] = ..., parameters: _Optional[_Union[_parameters_pb2.Parameters, _Mapping]] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ...) -> None: ...

class PartialEntry(_message.Message):
    __slots__ = ("task_id", "client_id", "outcome", "reason", "fit", "failure", "seconds", "bytes", "digest", "times")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    client_id: str
    outcome: EntryOutcome
    reason: str
    fit: _fit_pb2.FitRes
    failure: Failure
    seconds: float
    bytes: int
    digest: str
    times: Times
    def __init__(self, task_id: _Optional[str] = ..., client_id: _Optional[str] = ..., outcome: _Optional[_Union[EntryOutcome, str]] = ..., reason: _Optional[str] = ..., fit: _Optional[_Union[_fit_pb2.FitRes, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., seconds: _Optional[float] = ..., bytes: _Optional[int] = ..., digest: _Optional[str] = ..., times: _Optional[_Union[Times, _Mapping]] = ...) -> None: ...

class SendPartial(_message.Message):
    __slots__ = ("task_id", "job", "epoch", "run")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    job: str
    epoch: int
    run: str
    def __init__(self, task_id: _Optional[str] = ..., job: _Optional[str] = ..., epoch: _Optional[int] = ..., run: _Optional[str] = ...) -> None: ...

class AggregatorReport(_message.Message):
    __slots__ = ("site", "instance", "covers", "orders", "sent_unix_ms", "report_seconds", "flmq_version")
    SITE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    COVERS_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    SENT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    REPORT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FLMQ_VERSION_FIELD_NUMBER: _ClassVar[int]
    site: str
    instance: str
    covers: _containers.RepeatedScalarFieldContainer[str]
    orders: _containers.RepeatedCompositeFieldContainer[OrderInHand]
    sent_unix_ms: int
    report_seconds: float
    flmq_version: str
    def __init__(self, site: _Optional[str] = ..., instance: _Optional[str] = ..., covers: _Optional[_Iterable[str]] = ..., orders: _Optional[_Iterable[_Union[OrderInHand, _Mapping]]] = ..., sent_unix_ms: _Optional[int] = ..., report_seconds: _Optional[float] = ..., flmq_version: _Optional[str] = ...) -> None: ...

class OrderInHand(_message.Message):
    __slots__ = ("task_id", "list_digest", "held", "answered")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LIST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    list_digest: bytes
    held: bytes
    answered: bool
    def __init__(self, task_id: _Optional[str] = ..., list_digest: _Optional[bytes] = ..., held: _Optional[bytes] = ..., answered: bool = ...) -> None: ...

class Sealed(_message.Message):
    __slots__ = ("kind", "sender", "recipient", "job", "run", "manifest", "letter")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    LETTER_FIELD_NUMBER: _ClassVar[int]
    kind: str
    sender: str
    recipient: str
    job: str
    run: str
    manifest: bytes
    letter: bytes
    def __init__(self, kind: _Optional[str] = ..., sender: _Optional[str] = ..., recipient: _Optional[str] = ..., job: _Optional[str] = ..., run: _Optional[str] = ..., manifest: _Optional[bytes] = ..., letter: _Optional[bytes] = ...) -> None: ...
