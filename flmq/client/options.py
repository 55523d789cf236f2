"""How a worker works: its options as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flmq.client.cache import DEFAULT_CACHE_BYTES, FolderCache, MemoryCache, ModelCache
from flmq.client.folders import check_folder
from flmq.client.models import PATIENCE
from flmq.client.tasks import AckPolicy, Tasks, VolatileTasks
from flmq.client.taskspool import TaskSpool
from flmq.common.errors import UsageError
from flmq.common.typing import Scalar
from flmq.transport import DEFAULT_SITE
from flmq.wire.bounds import MAX_HEARTBEAT, MIN_HEARTBEAT, too_many_properties

__all__ = ["InvalidWorkerOptions", "WorkerOptions", "check_properties"]

_SPOOL = "spool"


class InvalidWorkerOptions(UsageError):
    """Options of a worker that contradict each other."""


def check_properties(client_id: str, properties: Mapping[str, Scalar]) -> None:
    """Do nothing if a client may tell all of ``properties`` of itself.

    Raises:
        InvalidWorkerOptions: they are more than a server keeps.
    """
    if problem := too_many_properties(len(properties), properties.items()):
        raise InvalidWorkerOptions(f"client {client_id} would tell of itself {problem}")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works."""

    site: str = DEFAULT_SITE
    state_dir: Path | None = None
    """A folder that outlives the process: for the worker's spool, and for what its clients keep."""
    ack: AckPolicy | None = None
    """When the broker may forget a task; None: ACCEPT with a ``state_dir``, else RESULT."""
    once: bool = False
    """Whether to stop when the first job ends that a server greeted us for; others that have asked
    us by then are served to their end."""
    standby: bool = False
    """Whether to wait, rather than fail, while another live process has the client id."""
    heartbeat: float = 30.0
    """Seconds between heartbeats, unless a server asks for more."""
    threads: int = 1
    """Tasks done at a time; more than one only makes sense for several clients."""
    keep_clients: bool = True
    """Whether a client lives as long as its job, or is made for each task."""
    cache_dir: Path | None = None
    """A folder for models, which workers of one machine may share; None: in memory."""
    cache_bytes: int = DEFAULT_CACHE_BYTES
    """Models that are kept, in all."""
    max_model_bytes: int | None = None
    """A larger model is refused at once; None: what fits the memory that is free."""
    max_deaths: int = 3
    """Processes that may die in one task before it is reported as failed; 0: any number."""
    model_patience: float = PATIENCE
    """Seconds for which a model that is not there is asked for, before its task fails."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            InvalidWorkerOptions: ACCEPT without a folder, or no heartbeat that can be kept.
        """
        if not MIN_HEARTBEAT <= self.heartbeat <= MAX_HEARTBEAT:
            raise InvalidWorkerOptions(
                f"heartbeat is {self.heartbeat}: give {MIN_HEARTBEAT:g} to {MAX_HEARTBEAT:g}, in "
                "seconds"
            )
        if self.ack is AckPolicy.ACCEPT and self.state_dir is None:
            raise InvalidWorkerOptions(
                "ack=accept needs a folder that outlives the process: give --state-dir, or "
                "ack=result"
            )

    def check_folders(self, client_id: str) -> None:
        """Have the folders of ``client_id``, and be able to write there.

        Raises:
            ClientFolderNotWritable: one cannot be made or written.
        """
        if self.state_dir is not None:
            spool = self.state_dir / client_id / _SPOOL
            check_folder(spool if self.acks_on_acceptance else spool.parent, "--state-dir")
        if self.cache_dir is not None:
            check_folder(self.cache_dir, "--cache-dir")

    def cache(self) -> ModelCache:
        """The cache for models that these options ask for."""
        if self.cache_dir is None:
            return MemoryCache(self.cache_bytes)
        return FolderCache(self.cache_dir, self.cache_bytes)

    @property
    def acks_on_acceptance(self) -> bool:
        """Whether a task is acked once it is in the spool."""
        if self.ack is None:
            return self.state_dir is not None
        return self.ack is AckPolicy.ACCEPT

    def tasks(self, client_id: str) -> Tasks:
        """Where tasks of ``client_id`` are kept."""
        if self.state_dir is None or not self.acks_on_acceptance:
            return VolatileTasks()
        return TaskSpool(self.state_dir / client_id / _SPOOL)
