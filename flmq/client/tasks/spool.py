"""The worker's spool: tasks and finished replies on disk, for `AckPolicy.ACCEPT`.

Order: task written → acked → trained → reply written → published → receipt → both removed. Each
file is written under another name, synced and renamed, and ends in a digest of itself: after a
crash it is complete or absent, and damage is noticed. A damaged reply is trained again, a damaged
task is set aside: its server sends it again when it is restarted, and the reply, if there is one,
answers it.

Nothing is read before `TaskSpool.left_over` is called: until then another process may have the
client id, and be working in the same folder.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from flmq.client.tasks.receipts import KEPT_FOR
from flmq.client.tasks.sealed import DAMAGED, DamagedSpoolFile, SealedFiles
from flmq.client.tasks.store import Admission, Settled, asks_the_same
from flmq.common.crashpoints import crash_point
from flmq.common.errors import PeerError, StoredDataError
from flmq.common.exhausted import cause_of, unless_exhausted
from flmq.common.files import TEMPORARY, make_folder
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of, with_parameters, without_parameters
from flmq.common.typing import Parameters
from flmq.messaging import Incoming
from flmq.wire import (
    INLINE_BYTES,
    BlobProgress,
    Reply,
    Task,
    decode,
    encode,
    ref_of,
    size_of,
    tensors_of,
)

__all__ = ["SpoolNotWritable", "TaskSpool"]

_REMEMBERED = 1024
_TASK, _REPLY, _BLOB = ".task", ".reply", ".blob"


class SpoolNotWritable(StoredDataError):
    """A task cannot be written to the spool, and so cannot be accepted."""

    def __init__(self, folder: Path, error: OSError) -> None:
        """Name the spool's ``folder``."""
        self.folder = folder
        super().__init__(
            f"the spool in {folder} cannot be written: {cause_of(error)}. Make room there, or give "
            "another --state-dir; the task waits in its queue"
        )


class TaskSpool:
    """Store of tasks and replies in one folder, which belongs to one client id. Thread-safe."""

    is_durable = True

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Use ``folder``, which is created if needed; it is read by `left_over`.

        ``clock`` gives Unix seconds, as the times of files do.
        """
        make_folder(folder)
        self._folder = folder
        self._files = SealedFiles(folder)
        self._clock = clock
        self._lock = threading.RLock()
        self._open: dict[str, Task] = {}
        self._settled = Settled(_REMEMBERED)

    def admit(self, task: Task, incoming: Incoming) -> Admission:
        """Write a task to disk; once this returns, its message may be acked.

        Raises:
            SpoolNotWritable: it cannot be written.
        """
        with self._lock:
            if self._settled.recognize(task):
                return Admission.SETTLED
            known = self._open.get(task.task_id)
            if known is not None and known == task:
                return self._state(task.task_id)
            if known is not None and not asks_the_same(known, task):
                self._files.remove(task.task_id + ending for ending in (_REPLY, _BLOB))
            try:
                self._files.write(task.task_id + _TASK, [encode(task)])
            except OSError as error:
                raise SpoolNotWritable(self._folder, error) from error
            self._open[task.task_id] = task
            crash_point("worker.task_spooled")
            return Admission.NEW if known is None else self._state(task.task_id)

    def superseded(self) -> list[Incoming]:
        """Return nothing: each message was acked when its task was written."""
        return []

    def current(self, task_id: str) -> Task | None:
        """Return the newest form of a task."""
        with self._lock:
            return self._open.get(task_id)

    def finished(self, reply: Reply) -> Reply:
        """Write a reply to disk, its parameters separately; the returned reply maps them."""
        parameters = parameters_of(reply.res)
        with self._lock:
            if reply.task_id not in self._open:
                return reply  # settled meanwhile: it would stay here forever
            if parameters is None or size_of(parameters) <= INLINE_BYTES:
                self._files.write(reply.task_id + _REPLY, [encode(reply)])
                crash_point("worker.reply_spooled")
                return reply
            ref = ref_of(parameters)
            self._files.write(reply.task_id + _BLOB, parameters.tensors, sealed=False)
            head = replace(reply, res=without_parameters(reply.res), blob=ref)
            self._files.write(reply.task_id + _REPLY, [encode(head)])
            crash_point("worker.reply_spooled")
            return self._with_parameters(head)

    def reply_of(self, task_id: str) -> Reply | None:
        """Return the stored reply; None also if it is damaged, so that it is made again.

        Raises:
            SystemExhausted: it cannot be opened for want of descriptors or memory.
        """
        with self._lock:
            try:
                with unless_exhausted(self._folder / (task_id + _REPLY)):
                    return self._read_reply(task_id)
            except (DamagedSpoolFile, PeerError, OSError) as error:
                logger.warning("spooled reply of task %s is of no use: %s", task_id, error)
                self._files.set_aside(task_id + _REPLY)
                return None

    def published(self, task_id: str) -> Incoming | None:
        """Return None: the message was acked when its task was written."""
        return None

    def settle(self, task_id: str) -> Incoming | None:
        """Remove a task and its reply, and remember that it is settled."""
        with self._lock:
            self._settled.add(task_id, self._open.get(task_id))
            return self.let_go(task_id)

    def let_go(self, task_id: str) -> Incoming | None:
        """Remove a task and its reply."""
        with self._lock:
            self._open.pop(task_id, None)
            try:
                # Remove the task first: without its reply it would be done again after a crash.
                self._files.remove(task_id + ending for ending in (_TASK, _REPLY, _BLOB))
            except OSError as error:
                # What is left is swept, or sent once more, at the next start: harmless.
                logger.warning("task %s cannot be removed: %s", task_id, error)
        return None

    def of_job(self, job: str) -> list[str]:
        """Return the ids of the job's tasks."""
        with self._lock:
            return [task_id for task_id, task in self._open.items() if task.job == job]

    def left_over(self) -> list[Task]:
        """Read the folder, and return the tasks that an earlier process left."""
        with self._lock:
            self._load()
            return list(self._open.values())

    def age_of(self, task_id: str) -> float:
        """Return the seconds since a task arrived, by this machine's clock, right or wrong."""
        with contextlib.suppress(OSError):
            came = (self._folder / (task_id + _TASK)).stat().st_mtime
            return max(0.0, self._clock() - came)
        return 0.0

    # -- files -------------------------------------------------------------------------------

    def _state(self, task_id: str) -> Admission:
        finished = (self._folder / (task_id + _REPLY)).exists()
        if self.reply_of(task_id) is not None:
            return Admission.DONE
        return Admission.NEW if finished else Admission.AGAIN

    def _load(self) -> None:
        self._sweep()
        self._open.clear()
        for path in sorted(self._folder.glob("*" + _TASK), key=lambda path: path.stat().st_mtime):
            try:
                with unless_exhausted(path):
                    task = decode(self._files.read(path.name) or b"", our_own=True)
                if not isinstance(task, Task) or task.task_id != path.stem:
                    raise DamagedSpoolFile(f"{path.name} holds no such task")
            except (DamagedSpoolFile, PeerError, OSError) as error:
                logger.warning("spooled task %s is of no use: %s", path.name, error)
                self._files.set_aside(path.name)
                continue
            self._open[task.task_id] = task

    def _sweep(self) -> None:
        """Remove partial files, files that are too old, and parts of what is gone."""
        paths = list(self._folder.iterdir())
        touched: dict[str, float] = {}
        for path in paths:
            task_id = path.name.partition(".")[0]
            touched[task_id] = max(path.stat().st_mtime, touched.get(task_id, 0.0))
        for path in paths:
            task_id = path.name.partition(".")[0]
            task = task_id + _TASK
            known = (self._folder / task).exists() or (self._folder / (task + DAMAGED)).exists()
            old = self._clock() - touched[task_id] > KEPT_FOR
            if old and path.name == task:
                logger.warning(
                    "spooled task %s, last touched %.0f days ago, is let go with its reply: no "
                    "server asked for it since",
                    task_id,
                    (self._clock() - touched[task_id]) / 86400,
                )
            if path.suffix == TEMPORARY or old or not known:
                path.unlink()

    def _read_reply(self, task_id: str) -> Reply | None:
        data = self._files.read(task_id + _REPLY)
        if data is None:
            return None
        head = decode(data, our_own=True)
        if not isinstance(head, Reply):
            raise DamagedSpoolFile(f"{task_id}{_REPLY} holds no reply")
        return self._with_parameters(head) if head.blob is not None else head

    def _with_parameters(self, head: Reply) -> Reply:
        """Return the reply with its parameters as views of their file."""
        ref = head.blob
        assert ref is not None
        blob = self._files.map(head.task_id + _BLOB, ref.total)
        # Verify the hash when it is read back: what is sent is what was trained.
        BlobProgress(ref).finish(blob)
        parameters = Parameters(
            cast("list[bytes]", tensors_of(ref, blob)), ref.tensor_type, ref.names
        )
        return replace(head, res=with_parameters(head.res, parameters), blob=None)
