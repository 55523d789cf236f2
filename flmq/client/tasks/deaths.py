"""Count how often a client died in a task, so that a task that kills its client is given up.

Out of memory, a fault in a C extension, ``os._exit``: our code cannot catch any of these. So a note
is stored before a task is begun, where it survives us, and removed when the task is done. A process
that finds notes of earlier processes counts them. `FolderDeaths` stores them in the client's
folder. `BrokerDeaths`, for clients without one, sends notes to the client's own queue: they stay
behind the task, un-acked like it, and both are there when the next process takes the queue.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flmq.client.tasks.receipts import KEPT_FOR
from flmq.common.errors import BrokerError, RunError, TransportClosed
from flmq.common.files import make_folder, replacing
from flmq.common.logger import logger
from flmq.messaging import Incoming, Sender
from flmq.transport import Address
from flmq.wire import Begun, Task

__all__ = ["BrokerDeaths", "Deaths", "DiedInTask", "FolderDeaths", "NoDeaths"]

_NOTES_COME_WITHIN = 10.0
"""Seconds to wait for our own note to arrive, and everything before it in the queue."""
_AWAY = 64
"""Maximum number of tasks that have not arrived but whose notes are kept."""

_Key = tuple[str, str]
"""Client id and task id."""


class DiedInTask(RunError):
    """A client died in a task as often as it may: the task is not begun again."""

    def __init__(self, deaths: int) -> None:
        """Name the number of ``deaths``."""
        self.deaths = deaths
        super().__init__(
            f"its client died {deaths} times in it (out of memory, a crash, or killed), and does "
            "not begin it again; --max-deaths has it try more often"
        )


class Deaths(Protocol):
    """Record which tasks are begun, and count the deaths in them. Thread-safe."""

    def begin(self, task: Task) -> int:
        """Record durably that a task is begun. Blocks until it is.

        Returns how many processes are known to have died in it; 0 also if they are not counted.

        Raises:
            DiedInTask: clients died in it as often as they may.
            TransportClosed: the worker is stopping.
        """

    def leave(self, task: Task) -> None:
        """Remove our own note: the client stops gracefully, with the task not done."""

    def end(self, client_id: str, task_id: str) -> None:
        """Remove all notes on a task: it is done, or no longer wanted."""

    def came_again(self, task: Task) -> None:
        """Note that the broker redelivered a task, perhaps after its process died."""

    def hear(self, note: Begun, incoming: Incoming) -> None:
        """Take a note that came from the client's queue."""

    def look(self) -> None:
        """Drop notes whose tasks do not arrive. Call it periodically."""


class NoDeaths:
    """Count nothing: for clients that cannot die alone, or may die any number of times."""

    def __init__(self, ack: Callable[[Incoming], None] = lambda incoming: None) -> None:
        """Call ``ack`` with notes that arrive all the same."""
        self._ack = ack

    def begin(self, task: Task) -> int:
        """Do nothing, and know of no death."""
        return 0

    def leave(self, task: Task) -> None:
        """Do nothing."""

    def end(self, client_id: str, task_id: str) -> None:
        """Do nothing."""

    def came_again(self, task: Task) -> None:
        """Do nothing."""

    def hear(self, note: Begun, incoming: Incoming) -> None:
        """Ack a note, which was left by a process that counted in the queue."""
        self._ack(incoming)

    def look(self) -> None:
        """Do nothing."""


class FolderDeaths(NoDeaths):
    """Count in a file for each task below the clients' folder: how many processes began it."""

    def __init__(
        self,
        ack: Callable[[Incoming], None],
        state_dir: Path,
        most: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store counts below ``state_dir``; a task is given up after ``most`` deaths.

        Notes that come from the queue are acked.
        ``clock`` gives Unix seconds, as the times of files do.
        """
        super().__init__(ack)
        self._state_dir = state_dir
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._begun: dict[str, int] = {}
        """Tasks that we have begun, and how often earlier processes had."""

    def begin(self, task: Task) -> int:
        """Record that the task is begun; see `Deaths`."""
        with self._lock:
            if task.task_id in self._begun:
                return self._begun[task.task_id]
            earlier = self._read(task.client_id, task.task_id)
            if earlier >= self._most:
                raise DiedInTask(earlier)
            self._write(task.client_id, task.task_id, earlier + 1)
            self._begun[task.task_id] = earlier
            return earlier

    def leave(self, task: Task) -> None:
        """Remove our own note."""
        with self._lock:
            earlier = self._begun.pop(task.task_id, None)
            if earlier:
                self._write(task.client_id, task.task_id, earlier)
            elif earlier == 0:
                self._remove(self._path(task.client_id, task.task_id))

    def end(self, client_id: str, task_id: str) -> None:
        """Remove all notes on the task."""
        with self._lock:
            self._begun.pop(task_id, None)
            self._remove(self._path(client_id, task_id))

    def _path(self, client_id: str, task_id: str) -> Path:
        return self._state_dir / client_id / "begun" / task_id

    def _read(self, client_id: str, task_id: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._path(client_id, task_id).read_text("ascii"))
        return 0

    def _write(self, client_id: str, task_id: str, count: int) -> None:
        path = self._path(client_id, task_id)
        try:
            make_folder(path.parent)
            self._sweep(path.parent)
            with replacing(path) as file:
                file.write(str(count).encode())
        except OSError as error:
            logger.warning("it cannot be noted that task %s is begun: %s", task_id, error)

    def _sweep(self, folder: Path) -> None:
        """Remove notes on tasks that nobody asked for again."""
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if self._clock() - path.stat().st_mtime > KEPT_FOR:
                    path.unlink()

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


class BrokerDeaths:
    """Count in messages in the client's own queue, which its next process finds behind the task.

    They may also come before it: if a server asks again meanwhile, the newest copy of the task is
    the one that stays un-acked.
    """

    def __init__(
        self,
        sender: Sender,
        ack: Callable[[Incoming], None],
        is_open: Callable[[str, str], bool],
        notes_of: Callable[[str], Address],
        *,
        instance: str,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send notes through ``sender`` as the process ``instance``; ``ack`` removed notes.

        ``notes_of`` returns where a client's notes reach its own queue; ``is_open`` whether a task,
        given by client and id, is known and not settled; ``clock`` gives seconds.
        """
        self._sender = sender
        self._ack = ack
        self._is_open = is_open
        self._instance = instance
        self._notes_of = notes_of
        self._most = most
        self._clock = clock
        self._changed = threading.Condition()
        self._begun: set[str] = set()
        self._again: set[str] = set()
        """Redelivered tasks for which earlier notes have not been awaited yet."""
        self._notes: dict[_Key, dict[str, Incoming]] = {}
        """Notes by task and process."""
        self._away: dict[_Key, float] = {}
        """Tasks that have not arrived though notes on them have, and when the first note came."""

    def begin(self, task: Task) -> int:
        """Record that the task is begun; see `Deaths`. If redelivered, await old notes first."""
        with self._changed:
            if task.task_id in self._begun:
                return self._deaths_in(task)
            self._begun.add(task.task_id)
            again = task.task_id in self._again
            self._again.discard(task.task_id)
        note = Begun(task.task_id, task.client_id, self._instance)
        address = self._notes_of(task.client_id)
        try:
            sent = self._sender.send(
                address,
                note,
                mandatory=False,
                expiration=KEPT_FOR,
                # It must outlive us, not the broker: synced to disk, it would cost more than the
                # task does.
                persistent=False,
            )
            sent.outcome.result()
        except TransportClosed:
            raise
        except BrokerError as error:  # does not keep us from working
            logger.warning("it cannot be noted that task %s is begun: %s", task.task_id, error)
        with self._changed:
            if again:
                self._changed.wait_for(lambda: self._is_round(task), _NOTES_COME_WITHIN)
            deaths = self._deaths_in(task)
        if deaths >= self._most:
            raise DiedInTask(deaths)
        return deaths

    def leave(self, task: Task) -> None:
        """Remove our own note."""
        with self._changed:
            self._begun.discard(task.task_id)
            incoming = self._notes.get(_key(task), {}).pop(self._instance, None)
        if incoming is not None:
            with contextlib.suppress(TransportClosed):
                self._ack(incoming)

    def end(self, client_id: str, task_id: str) -> None:
        """Remove all notes on the task."""
        with self._changed:
            self._begun.discard(task_id)
            self._again.discard(task_id)
            self._away.pop((client_id, task_id), None)
            incomings = self._notes.pop((client_id, task_id), {})
        for incoming in incomings.values():
            self._ack(incoming)

    def came_again(self, task: Task) -> None:
        """Await the notes on the task when it is begun."""
        with self._changed:
            if task.task_id not in self._begun:
                self._again.add(task.task_id)

    def hear(self, note: Begun, incoming: Incoming) -> None:
        """Keep a note un-acked while its task is open, up to the number that matters.

        A few whose tasks have not arrived are kept for some seconds: they may follow.
        """
        with self._changed:
            key = _key(note)
            notes = self._notes.get(key, {})
            ours = note.instance == self._instance
            wanted = note.task_id in self._begun if ours else self._is_wanted(note, notes)
            if wanted:
                self._notes.setdefault(key, notes)[note.instance] = incoming
                self._changed.notify_all()
        if not wanted:
            self._ack(incoming)

    def look(self) -> None:
        """Drop notes whose tasks do not arrive."""
        incomings: list[Incoming] = []
        with self._changed:
            before = self._clock() - _NOTES_COME_WITHIN
            for key in [key for key, since in self._away.items() if since <= before]:
                del self._away[key]
                if not self._is_open(*key):
                    incomings += self._notes.pop(key, {}).values()
        for incoming in incomings:
            self._ack(incoming)

    def _deaths_in(self, task: Task) -> int:
        return len(self._notes.get(_key(task), {}).keys() - {self._instance})

    def _is_round(self, task: Task) -> bool:
        return self._instance in self._notes.get(_key(task), {})

    def _is_wanted(self, note: Begun, notes: dict[str, Incoming]) -> bool:
        if note.instance not in notes and len(notes) > self._most:
            return False
        if self._is_open(note.client_id, note.task_id):
            return True
        if _key(note) not in self._away and len(self._away) >= _AWAY:
            return False
        self._away.setdefault(_key(note), self._clock())
        return True


def _key(what: Task | Begun) -> _Key:
    return what.client_id, what.task_id
