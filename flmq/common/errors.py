"""Every error flmq raises, as one tree, split by whose fault it is.

::

    FlmqError                    never raised itself
    ├── UsageError               the user's program or command line
    │   ├── InvalidClientId
    │   ├── InvalidJobName
    │   ├── AppLoadError         "module:name" cannot be imported or has the wrong type
    │   ├── InvalidReturnValue   a client method or strategy returned the wrong thing
    │   ├── ClientIdInUse        another live process serves this client id
    │   └── JobInUse             another live server runs this job
    ├── PeerError                what the other side sent
    │   ├── MalformedMessage     not decodable: garbage, truncated, oversize
    │   └── UnsupportedVersion   a schema of another major version
    ├── BrokerError              RabbitMQ, or the connection to it
    │   ├── BrokerUnavailable    no answer; worth retrying
    │   │   └── TooManyConnections   it answers, but its limit of connections is reached
    │   ├── BrokerAccessRefused  wrong credentials, permissions or virtual host; do not retry
    │   ├── BrokerNotFound       no broker could be found or started here
    │   ├── BrokerRefusal        the broker refuses the operation and would refuse it again
    │   │   └── MessageTooLarge      a message over its max_message_size
    │   ├── ResourceLocked       a queue is held exclusively by another connection
    │   └── TransportClosed      used after close()
    ├── RunError                 the federation itself
    │   ├── NotEnoughClients
    │   ├── NoInitialParameters
    │   ├── ModelTooLarge        larger than where it is to be kept
    │   └── AggregationError
    │       ├── ZeroWeight       nothing to average: every weight is zero
    │       ├── InconsistentTensors  counts, shapes or dtypes differ
    │       └── NonFiniteValues  NaN or infinity
    └── StoredDataError          what was read back from disk

An error's text says what happened and what to do; numbers and names are attributes too.
"""

from __future__ import annotations

__all__ = [
    "AggregationError",
    "AppLoadError",
    "BrokerAccessRefused",
    "BrokerError",
    "BrokerNotFound",
    "BrokerRefusal",
    "BrokerUnavailable",
    "ClientIdInUse",
    "FlmqError",
    "InconsistentTensors",
    "InvalidClientId",
    "InvalidJobName",
    "InvalidReturnValue",
    "JobInUse",
    "MalformedMessage",
    "MessageTooLarge",
    "ModelTooLarge",
    "NoInitialParameters",
    "NonFiniteValues",
    "NotEnoughClients",
    "PeerError",
    "ResourceLocked",
    "RunError",
    "StoredDataError",
    "TooManyConnections",
    "TransportClosed",
    "UnsupportedVersion",
    "UsageError",
    "ZeroWeight",
]


class FlmqError(Exception):
    """Base of all flmq errors. Catch it; raise a subclass."""

    def __init__(self, message: str) -> None:
        """Set ``message``, which says what happened and what to do."""
        if type(self) in _ABSTRACT:
            raise TypeError(f"{type(self).__name__} is a category; raise one of its subclasses")
        super().__init__(message)


class UsageError(FlmqError):
    """The user's program or command line asks for something that cannot be done as asked."""


class InvalidClientId(UsageError):
    """A client id is empty, too long, or has characters not allowed in a queue name."""

    def __init__(self, client_id: str) -> None:
        """Name the offending id."""
        self.client_id = client_id
        shown = client_id if len(client_id) <= 80 else client_id[:77] + "..."
        super().__init__(
            f"client id {shown!r} is not usable: choose 1 to 64 characters of "
            "A-Z, a-z, 0-9, '.', '_' and '-', with no dot at either end and no two in a row"
        )


class InvalidJobName(UsageError):
    """A job name is empty, too long, or has characters not allowed in a queue name."""

    def __init__(self, job: str) -> None:
        """Name the offending job."""
        self.job = job
        shown = job if len(job) <= 80 else job[:77] + "..."
        super().__init__(
            f"job name {shown!r} is not usable: choose 1 to 64 characters of "
            "A-Z, a-z, 0-9, '_' and '-'"
        )


class AppLoadError(UsageError):
    """``module:name`` cannot be imported, or is of the wrong type."""


class InvalidReturnValue(UsageError):
    """A method of the user's client or strategy returned something of the wrong form."""


class InvalidTensorNames(UsageError, ValueError):
    """Names of tensors are repeated, missing, or no printable text."""


class ClientIdInUse(UsageError):
    """Another live process consumes this client id's queue."""

    def __init__(self, client_id: str) -> None:
        """Name the id in use."""
        self.client_id = client_id
        super().__init__(
            f"client id {client_id!r} is in use by another live process: stop that one, or start "
            "this one under another id (--client-id)"
        )


class JobInUse(UsageError):
    """Another live server runs this job."""

    def __init__(self, job: str) -> None:
        """Name the job in use."""
        self.job = job
        super().__init__(
            f"job {job!r} is run by another live server: stop that one, or choose another job "
            "name (--job)"
        )


class PeerError(FlmqError):
    """What the other side sent cannot be used."""


class MalformedMessage(PeerError):
    """A message that cannot be decoded: garbage, truncated or oversize."""


class UnsupportedVersion(PeerError):
    """A message of a schema version that this flmq does not speak."""

    def __init__(self, got: int, supported: int) -> None:
        """Name both major versions."""
        self.got = got
        self.supported = supported
        super().__init__(
            f"message has schema version {got}, this flmq speaks {supported}: bring both sides "
            "to the same major version of flmq"
        )


class BrokerError(FlmqError):
    """RabbitMQ, or the connection to it, is at fault."""


class BrokerUnavailable(BrokerError):
    """The broker does not answer, or the connection broke; trying again may help."""


class TooManyConnections(BrokerUnavailable):
    """The broker answers, but its limit of connections (user, virtual host or node) is reached."""


class BrokerAccessRefused(BrokerError):
    """The broker refuses these credentials, this virtual host or this permission."""


class BrokerNotFound(BrokerError):
    """No broker could be found or started on this machine."""


class BrokerRefusal(BrokerError):
    """The broker refuses an operation and would refuse it again."""


class MessageTooLarge(BrokerRefusal):
    """A message is larger than the broker's max_message_size."""

    def __init__(self, size: int, limit: int) -> None:
        """Name both sizes, in bytes."""
        self.size = size
        self.limit = limit
        super().__init__(
            f"message of {size} bytes is larger than the broker's max_message_size of {limit} "
            "bytes: send it in chunks, or raise max_message_size in rabbitmq.conf"
        )


class ResourceLocked(BrokerError):
    """A queue is held exclusively by another connection."""

    def __init__(self, queue: str) -> None:
        """Name the queue."""
        self.queue = queue
        super().__init__(f"queue {queue!r} is held exclusively by another connection")


class TransportClosed(BrokerError):
    """A transport, publisher or consumer was used after it was closed."""


class RunError(FlmqError):
    """The federation cannot go on as configured."""


class NotEnoughClients(RunError):
    """Fewer clients than needed came within the allowed time."""

    def __init__(self, wanted: int, have: int, waited: float, away: tuple[str, ...] = ()) -> None:
        """Name the number ``wanted``, the number there, and the ``waited`` time in seconds."""
        self.wanted = wanted
        self.have = have
        self.waited = waited
        self.away = away
        missing = f"; known but away: {', '.join(away[:20])}" if away else ""
        more = f" and {len(away) - 20} more" if len(away) > 20 else ""
        super().__init__(
            f"{wanted} clients are needed and {have} came within {waited:g} s{missing}{more}. "
            "Start more clients on this broker and virtual host, or lower min_available_clients"
        )


class NoInitialParameters(RunError):
    """Neither the strategy nor a client gave initial parameters."""


class ModelTooLarge(RunError):
    """A model is larger than where it is to be kept: the stream of models, a worker's memory."""

    def __init__(self, size: int, limit: int, text: str) -> None:
        """Give both in bytes, and say in ``text`` what to do."""
        self.size = size
        self.limit = limit
        super().__init__(text)


class AggregationError(RunError):
    """Replies cannot be combined into one."""


class ZeroWeight(AggregationError):
    """Nothing to average: every weight is zero."""


class InconsistentTensors(AggregationError):
    """Tensor counts, shapes or dtypes differ between what should be combined."""


class NonFiniteValues(AggregationError):
    """NaN or infinity where finite numbers are needed."""


class StoredDataError(FlmqError):
    """A file that flmq wrote earlier is damaged or of another version."""


_ABSTRACT = (FlmqError, UsageError, PeerError, BrokerError, RunError)
