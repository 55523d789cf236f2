"""Processes of a job under a supervisor, which starts again whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flmq.cli.children import end_with_parent
from flmq.cli.exit_codes import ExitCode
from flmq.common.crashpoints import CRASH_AT

__all__ = ["Member", "Supervisor"]

MARK = "CHAOS_CREW"
"""Variable that all processes of a supervisor, and their children, have in their environment."""
_LOOK_EVERY = 0.03
_AGAIN_AFTER = 0.3
"""Seconds before one that ended by itself, for want of a broker, is started again."""


@dataclass(slots=True)
class Member:
    """One command, over all its lives."""

    name: str
    argv: Sequence[str]
    log: Path
    crashes: deque[str] = field(default_factory=deque)
    """Where its next lives end by themselves, as ``FLMQ_CRASH_AT`` says it."""
    process: subprocess.Popen[bytes] | None = None
    crash: str = ""
    """Where its present life shall end."""
    killed: bool = False
    """Whether its present life was ended from outside."""
    lives: int = 0
    again_at: float = 0.0
    may_end: Sequence[int] = ()
    """Exit statuses, besides those of success, that are in order."""
    ended: int | None = None
    """Exit status of one that has ended for good."""


class Supervisor:
    """Runs member processes, and restarts killed ones on a thread. A context manager."""

    def __init__(
        self,
        env: Mapping[str, str],
        folder: Path,
        on_death: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Run in ``folder`` with ``env``; ``on_death`` is told of each kill before the restart."""
        self.mark = f"{os.getpid()}-{id(self)}"
        self._env = {**os.environ, **env, MARK: self.mark, "PYTHONFAULTHANDLER": "1"}
        self._folder = folder
        self._on_death = on_death
        self._members: dict[str, Member] = {}
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self.hits: Counter[str] = Counter()
        """Crash points at which members died."""
        self.restarts: Counter[str] = Counter()
        """Times that a member ended by itself for want of a broker and was started again."""
        self.troubles: list[str] = []
        """What a person would have had to look at."""

    def __enter__(self) -> Supervisor:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        for member in self._members.values():
            process = member.process
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def start(
        self,
        name: str,
        argv: Sequence[str],
        crashes: Sequence[str] = (),
        may_end: Sequence[int] = (),
    ) -> None:
        """Add a member; each of ``crashes`` ends one of its lives."""
        with self._lock:
            log = self._folder / f"{name}.log"
            member = Member(name, argv, log, deque(crashes), may_end=may_end)
            self._members[name] = member
            self._launch(member)

    def kill(self, name: str, *, for_good: bool = False) -> bool:
        """Kill a member as the kernel would; False if it is not running just now."""
        with self._lock:
            member = self._members[name]
            process = member.process
            if process is None or process.poll() is not None:
                return False
            member.killed = True
            process.kill()
            process.wait()
            if for_good:
                member.ended = process.returncode
            return True

    def signal(self, name: str, number: int) -> None:
        """Send a running member a signal."""
        with self._lock:
            process = self._members[name].process
            assert process is not None
            process.send_signal(number)

    def log(self, name: str) -> str:
        """What a member has written so far, over all its lives."""
        path = self._members[name].log
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def exit_status(self, name: str) -> int | None:
        """How a member ended for good; None while it has not."""
        return self._members[name].ended

    def pid(self, name: str) -> int | None:
        """Pid of a member's present life; None while it has none."""
        process = self._members[name].process
        return None if process is None or process.poll() is not None else process.pid

    def lives(self, name: str) -> int:
        """How often a member was started."""
        return self._members[name].lives

    def wait(self, name: str, timeout: float) -> bool:
        """Wait until a member has ended for good, or somebody is in trouble; False: in vain."""
        deadline = time.monotonic() + timeout
        while self._members[name].ended is None and not self.troubles:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_EVERY)
        return True

    def dismiss(self, timeout: float = 20.0) -> None:
        """End all that still run in order, as Ctrl-C does, and see that they obey."""
        names = [name for name, member in self._members.items() if member.ended is None]
        with self._lock:
            for name in names:
                member = self._members[name]
                member.crashes.clear()
                process = member.process
                if process is not None and process.poll() is None:
                    # One that has just been started does not know yet what to do with it.
                    member.may_end = (*member.may_end, -signal.SIGTERM)
                    process.terminate()
                else:
                    member.ended = 0 if member.ended is None else member.ended
        for name in names:
            if not self.wait(name, timeout):
                self.troubles.append(f"{name} did not end within {timeout:g} s of SIGTERM")

    def dump_stacks(self) -> None:
        """Have every running member write into its log where its threads are, and end."""
        with self._lock:
            for member in self._members.values():
                if member.process is not None and member.process.poll() is None:
                    member.killed = True
                    member.ended = -signal.SIGABRT
                    member.process.send_signal(signal.SIGABRT)
                    member.process.wait()

    def strays(self) -> list[int]:
        """Pids of processes of this supervisor that are alive, whoever started them."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
            except OSError:
                continue  # gone meanwhile, or another user's
        return found

    # -- the supervisor ----------------------------------------------------------------------

    def _supervise(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            with self._lock:
                for member in self._members.values():
                    if member.ended is None:
                        self._look_after(member)

    def _look_after(self, member: Member) -> None:
        if member.process is None:
            if time.monotonic() >= member.again_at:
                self._launch(member)
            return
        status = member.process.poll()
        if status is None:
            return
        member.process = None
        if status == -signal.SIGKILL and (member.killed or member.crash):
            if not member.killed:
                self.hits[member.crash.partition(":")[0]] += 1
            self._on_death(member.name)
            self._launch(member)
        elif status == ExitCode.BROKER and status not in member.may_end:
            self.restarts[member.name] += 1
            if member.crash:
                member.crashes.appendleft(member.crash)
            member.again_at = time.monotonic() + _AGAIN_AFTER
        else:
            member.ended = status
            if status not in (ExitCode.OK, ExitCode.TERMINATED, *member.may_end):
                self.troubles.append(f"{member.name} ended with status {status}; see {member.log}")

    def _launch(self, member: Member) -> None:
        member.crash = member.crashes.popleft() if member.crashes else ""
        member.killed = False
        member.lives += 1
        env = {**self._env, CRASH_AT: member.crash}
        with member.log.open("ab") as log:
            log.write(f"--- life {member.lives} {member.crash}\n".encode())
            log.flush()
            member.process = subprocess.Popen(
                member.argv,
                cwd=self._folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # However the tests end: a supervisor that is killed leaves nobody behind.
                preexec_fn=end_with_parent(),
            )
