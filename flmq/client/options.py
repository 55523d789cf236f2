"""The options of a worker, as one value."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flmq.client.factory import Elsewhere
from flmq.client.folders import check_folder
from flmq.client.models.cache import DEFAULT_CACHE_BYTES, FolderCache, MemoryCache, ModelCache
from flmq.client.models.reader import PATIENCE
from flmq.client.secure.keys import ClientKeys
from flmq.client.tasks.spool import TaskSpool
from flmq.client.tasks.store import AckPolicy, Tasks, VolatileTasks
from flmq.common.errors import UsageError
from flmq.common.options import check_ranges, option
from flmq.common.typing import Scalar
from flmq.observe.bus import WorkerBus
from flmq.observe.events import WorkerObserver
from flmq.observe.vitals import Vitals
from flmq.transport import DEFAULT_SITE
from flmq.wire.bounds import MAX_HEARTBEAT, MIN_HEARTBEAT, too_many_properties

if TYPE_CHECKING:  # the package behind it is an extra
    from flmq.client.secure.protection import ClientProtection

__all__ = ["InvalidWorkerOptions", "WorkerOptions", "check_properties"]

_SPOOL, _SIGNED_SPOOL = "spool", "spool-e2e"
"""Folders of tasks: with keys, none that came plain is taken up."""


class InvalidWorkerOptions(UsageError):
    """Options of a worker contradict each other."""


def check_properties(client_id: str, properties: Mapping[str, Scalar]) -> None:
    """Check that a client may send all of ``properties``.

    Raises:
        InvalidWorkerOptions: they are more than a server keeps.
    """
    if problem := too_many_properties(len(properties), properties.items()):
        raise InvalidWorkerOptions(f"client {client_id} would tell of itself {problem}")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker."""

    once: bool = option(
        False,
        "Stop when the first job ends, and others that it works in by then.",
        names=("--once",),
    )
    site: str = option(DEFAULT_SITE, "The datacenter this process stands in.", env="FLMQ_SITE")
    state_dir: Path | None = option(
        None,
        "Folder that outlives the process: for the spool of tasks and replies, and for what the "
        "client itself keeps.",
        env="FLMQ_STATE_DIR",
    )
    ack: AckPolicy | None = option(
        None,
        "When the broker may forget a task: once it is in the spool (accept; needs --state-dir, "
        "and is the default with it), or once its reply is sent (result).",
        env="FLMQ_ACK",
    )
    standby: bool = option(
        False,
        "Wait while another process has this client id, and take over when it ends; or fail at "
        "once.",
        names=("--standby/--no-standby",),
        typed_default=True,
    )
    cache_dir: Path | None = option(
        None,
        "Folder for models, which the workers of a machine may share. Default: in memory.",
        env="FLMQ_CACHE_DIR",
    )
    cache_bytes: int = option(
        DEFAULT_CACHE_BYTES, "Bytes of models to keep, in all.", env="FLMQ_CACHE_BYTES", at_least=0
    )
    max_model_bytes: int | None = option(
        None,
        "Refuse larger models at once. Default: what fits the memory that is free.",
        env="FLMQ_MAX_MODEL_BYTES",
        at_least=1,
    )
    max_deaths: int = option(
        3,
        "Deaths of this client in one task (out of memory, a crash, kill -9) after which it is "
        "reported as failed; 0: never.",
        env="FLMQ_MAX_DEATHS",
        at_least=0,
    )
    model_patience: float = option(
        PATIENCE,
        "Seconds for which a model that is not there is asked for, before its task fails.",
        env="FLMQ_MODEL_PATIENCE",
        at_least=1,
        unit="seconds",
    )
    heartbeat: float = option(
        30.0,
        "Seconds between signs of life.",
        env="FLMQ_HEARTBEAT",
        at_least=MIN_HEARTBEAT,
        at_most=MAX_HEARTBEAT,
        unit="seconds",
    )
    grace: float = option(
        20.0,
        "Seconds that SIGTERM leaves the task at work to be finished and sent; 0: none.",
        env="FLMQ_GRACE",
        at_least=0,
        at_most=7 * 86400.0,
        unit="seconds",
    )
    threads: int = 1
    """Tasks done at a time; more than one only makes sense for several clients."""
    keep_clients: bool = True
    """Whether a client lives as long as its job, or is made for each task."""
    pool: Elsewhere | None = None
    """Where to call clients' code, if not on the threads: `flmq.client.pool.pool.ProcessPool`,
    which whoever made it closes. Clients are made there for each task."""
    observers: Sequence[WorkerObserver] | WorkerBus = ()
    """Who is told what the worker does (`flmq.observe.events`): of each task that it came, was
    begun, done, sent and settled, and of the connection to the broker. More can be attached to
    a `WorkerBus`, which whoever made it closes."""
    vitals: Vitals = field(default_factory=Vitals, compare=False)
    """What the worker says of itself when it is asked: see `flmq.monitoring`."""

    keys: ClientKeys | None = None
    """The clients' keys, which protect what they say from end to end (docs/e2e.md); None: they
    trust the broker."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            InvalidWorkerOptions: ACCEPT without a folder, no thread, or a heartbeat interval out
                of bounds.
        """
        check_ranges(self, InvalidWorkerOptions)
        if self.threads < 1:
            raise InvalidWorkerOptions(f"{self.threads} tasks at a time: give 1 or more")
        if self.ack is AckPolicy.ACCEPT and self.state_dir is None:
            raise InvalidWorkerOptions(
                "ack=accept needs a folder that outlives the process: give --state-dir, or "
                "ack=result"
            )

    def check_folders(self, client_id: str) -> None:
        """Create the folders of ``client_id`` if needed, and check that they are writable.

        Raises:
            ClientFolderNotWritable: one cannot be created or written.
        """
        if self.state_dir is not None:
            spool = self.spool_folder(client_id)
            check_folder(spool if self.acks_on_acceptance else spool.parent, "--state-dir")
        if self.cache_dir is not None:
            check_folder(self.cache_dir, "--cache-dir")

    def cache(
        self,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
        *,
        clients: int = 1,
    ) -> ModelCache:
        """Return the cache for models that these options select, which goes by these clocks.

        In memory, one client keeps its last two models; ``clients`` at once may need more.
        """
        if self.cache_dir is None:
            return MemoryCache(self.cache_bytes, 2 if clients == 1 else None)
        return FolderCache(self.cache_dir, self.cache_bytes, clock=clock, unix_clock=unix_clock)

    @property
    def acks_on_acceptance(self) -> bool:
        """Whether a task is acked once it is in the spool."""
        if self.ack is None:
            return self.state_dir is not None
        return self.ack is AckPolicy.ACCEPT

    def spool_folder(self, client_id: str) -> Path:
        """Return the folder of a client's spool; there must be a ``state_dir``."""
        assert self.state_dir is not None
        return self.state_dir / client_id / self._spool

    @property
    def _spool(self) -> str:
        return _SPOOL if self.keys is None else _SIGNED_SPOOL

    def protection(self, unix_clock: Callable[[], float]) -> ClientProtection | None:
        """Return what signs and opens messages with `keys`, by ``unix_clock`` (Unix seconds)."""
        if self.keys is None:
            return None
        from flmq.client.secure.protection import ClientProtection  # needs cryptography

        return ClientProtection(self.keys, unix_clock)

    def tasks(self, client_id: str, unix_clock: Callable[[], float] = time.time) -> Tasks:
        """Return the store for tasks of ``client_id``. ``unix_clock`` gives Unix seconds."""
        if self.state_dir is None or not self.acks_on_acceptance:
            return VolatileTasks()
        return TaskSpool(self.spool_folder(client_id), unix_clock)
