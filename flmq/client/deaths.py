"""How often a client died in a task: counted, so that one that kills its client ends some time.

Out of memory, a fault in a C extension, ``os._exit``: nothing of it reaches our code. So it is
noted before a task is begun, where it survives us, and struck out when the task is done. Who finds
notes of earlier processes counts them. `FolderDeaths` notes in the client's folder. `BrokerDeaths`,
for clients without one, sends notes to the client's own queue: they lie behind the task, un-acked
like it, and both are there when the next process takes the queue.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flmq.common.errors import BrokerError, RunError, TransportClosed
from flmq.common.files import make_folder, replacing
from flmq.common.logger import logger
from flmq.messaging import Incoming, Sender
from flmq.transport import TASKS, Address, task_key
from flmq.wire import Begun, Task

__all__ = ["BrokerDeaths", "Deaths", "DiedInTask", "FolderDeaths", "NoDeaths"]

_KEPT_FOR = 14 * 24 * 3600.0
"""Seconds after which what is noted of a task is removed, on either side."""
_NOTES_COME_WITHIN = 10.0
"""Seconds for our own note to come round, and what was before it in the queue."""
_AWAY = 64
"""Tasks that are not here, and whose notes are kept for so long all the same, at most."""

_Key = tuple[str, str]
"""Client and task."""


class DiedInTask(RunError):
    """A client died in a task as often as it may: it is not begun again."""

    def __init__(self, deaths: int) -> None:
        """Say how often."""
        self.deaths = deaths
        super().__init__(
            f"its client died {deaths} times in it (out of memory, a crash, or killed), and does "
            "not begin it again; --max-deaths has it try more often"
        )


class Deaths(Protocol):
    """Where it is noted that tasks are begun. Thread-safe."""

    def begin(self, task: Task) -> None:
        """Note durably that a task is begun. Blocks until it is.

        Raises:
            DiedInTask: clients died in it as often as they may.
            TransportClosed: the worker is stopping.
        """

    def leave(self, task: Task) -> None:
        """Strike out our own note: the client stops in order, with the task not done."""

    def end(self, client_id: str, task_id: str) -> None:
        """Strike out all that is noted of a task: it is done, or nobody wants it."""

    def came_again(self, task: Task) -> None:
        """Hear that the broker delivered a task before, perhaps to a process that died."""

    def hear(self, note: Begun, incoming: Incoming) -> None:
        """Take a note that came from the client's queue."""

    def look(self) -> None:
        """Drop notes whose tasks do not come. Call it now and then."""


class NoDeaths:
    """Counts nothing: for clients that cannot die alone, or may die as often as they like."""

    def __init__(self, ack: Callable[[Incoming], None] = lambda incoming: None) -> None:
        """``ack`` the notes that come all the same."""
        self._ack = ack

    def begin(self, task: Task) -> None:
        """Do nothing."""

    def leave(self, task: Task) -> None:
        """Do nothing."""

    def end(self, client_id: str, task_id: str) -> None:
        """Do nothing."""

    def came_again(self, task: Task) -> None:
        """Do nothing."""

    def hear(self, note: Begun, incoming: Incoming) -> None:
        """Drop it: left by a process that counted in the queue."""
        self._ack(incoming)

    def look(self) -> None:
        """Do nothing."""


class FolderDeaths(NoDeaths):
    """In a file for each task below the clients' folder: the number of processes that began it."""

    def __init__(self, ack: Callable[[Incoming], None], state_dir: Path, most: int) -> None:
        """Note below ``state_dir``; ``most`` deaths are as many as a task may cost.

        Notes that come from the queue are acked.
        """
        super().__init__(ack)
        self._state_dir = state_dir
        self._most = most
        self._lock = threading.Lock()
        self._begun: dict[str, int] = {}
        """Tasks that we have begun, and how often others had."""

    def begin(self, task: Task) -> None:
        """Note it; see `Deaths`."""
        with self._lock:
            if task.task_id in self._begun:
                return
            earlier = self._read(task.client_id, task.task_id)
            if earlier >= self._most:
                raise DiedInTask(earlier)
            self._write(task.client_id, task.task_id, earlier + 1)
            self._begun[task.task_id] = earlier

    def leave(self, task: Task) -> None:
        """Strike out our own note."""
        with self._lock:
            earlier = self._begun.pop(task.task_id, None)
            if earlier:
                self._write(task.client_id, task.task_id, earlier)
            elif earlier == 0:
                self._remove(self._path(task.client_id, task.task_id))

    def end(self, client_id: str, task_id: str) -> None:
        """Strike out all."""
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
            with replacing(path, path.with_suffix(".tmp")) as file:
                file.write(str(count).encode())
        except OSError as error:
            logger.warning("it cannot be noted that task %s is begun: %s", task_id, error)

    def _sweep(self, folder: Path) -> None:
        """Remove what is noted of tasks that nobody asked for again."""
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _KEPT_FOR:
                    path.unlink()

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


class BrokerDeaths:
    """In messages of the client's own queue, which its next process finds behind the task.

    Or before it: a server asks again meanwhile, and then it is the newest copy that stays un-acked.
    """

    def __init__(
        self,
        sender: Sender,
        ack: Callable[[Incoming], None],
        is_open: Callable[[str, str], bool],
        *,
        instance: str,
        site: str,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Note through ``sender`` as the process ``instance``, and ``ack`` what is struck out.

        ``is_open`` says whether a task, by client and id, is known and not settled; ``clock``
        gives seconds.
        """
        self._sender = sender
        self._ack = ack
        self._is_open = is_open
        self._instance = instance
        self._site = site
        self._most = most
        self._clock = clock
        self._changed = threading.Condition()
        self._begun: set[str] = set()
        self._again: set[str] = set()
        """Tasks that were delivered before, and that no note of ours is looked for yet."""
        self._notes: dict[_Key, dict[str, Incoming]] = {}
        """Notes by task and process."""
        self._away: dict[_Key, float] = {}
        """Tasks that are not here though notes on them are, and when the first of these came."""

    def begin(self, task: Task) -> None:
        """Note it; see `Deaths`. Where it was delivered before, the notes on it come first."""
        with self._changed:
            if task.task_id in self._begun:
                return
            self._begun.add(task.task_id)
            again = task.task_id in self._again
            self._again.discard(task.task_id)
        note = Begun(task.task_id, task.client_id, self._instance)
        address = Address(TASKS, task_key(self._site, task.client_id))
        try:
            sent = self._sender.send(address, note, mandatory=False, expiration=_KEPT_FOR)
            sent.outcome.result()
        except TransportClosed:
            raise
        except BrokerError as error:  # no reason not to work
            logger.warning("it cannot be noted that task %s is begun: %s", task.task_id, error)
        with self._changed:
            if again:
                self._changed.wait_for(lambda: self._is_round(task), _NOTES_COME_WITHIN)
            deaths = len(self._notes.get(_key(task), {}).keys() - {self._instance})
        if deaths >= self._most:
            raise DiedInTask(deaths)

    def leave(self, task: Task) -> None:
        """Strike out our own note."""
        with self._changed:
            self._begun.discard(task.task_id)
            incoming = self._notes.get(_key(task), {}).pop(self._instance, None)
        if incoming is not None:
            with contextlib.suppress(TransportClosed):
                self._ack(incoming)

    def end(self, client_id: str, task_id: str) -> None:
        """Strike out all."""
        with self._changed:
            self._begun.discard(task_id)
            self._again.discard(task_id)
            self._away.pop((client_id, task_id), None)
            incomings = self._notes.pop((client_id, task_id), {})
        for incoming in incomings.values():
            self._ack(incoming)

    def came_again(self, task: Task) -> None:
        """Have the notes on it awaited when it is begun."""
        with self._changed:
            if task.task_id not in self._begun:
                self._again.add(task.task_id)

    def hear(self, note: Begun, incoming: Incoming) -> None:
        """Keep a note, un-acked, for as long as its task is open; so many as make a difference.

        And a few whose tasks are not here, for some seconds: they may lie behind their notes.
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
        """Drop notes whose tasks do not come."""
        incomings: list[Incoming] = []
        with self._changed:
            before = self._clock() - _NOTES_COME_WITHIN
            for key in [key for key, since in self._away.items() if since <= before]:
                del self._away[key]
                if not self._is_open(*key):
                    incomings += self._notes.pop(key, {}).values()
        for incoming in incomings:
            self._ack(incoming)

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
