"""A pool of processes that call clients' code, so that its Python uses all processors.

The worker's threads stay where they are: each hands its task to an idle process and waits. A model
that is shared is mapped by every process from one file; everything else goes through a socket. A
process that dies is replaced, and takes nothing with it but the call it was in, which is repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from flmq.client.context import ClientContext
from flmq.client.factory import ClientSource
from flmq.client.pool.process import Answered, Asked, Began, NoModel, Setup, dump, load
from flmq.common.errors import RunError, TransportClosed, UsageError
from flmq.common.failure_text import named_error
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of, with_parameters, without_parameters
from flmq.common.typing import Parameters
from flmq.wire import Failure, FailureKind, Reply, Res, Task, decode, encode

__all__ = ["ClientNotPicklable", "NoProcesses", "ProcessPool", "ProcessesNotStarted"]

_TRIES = 3
"""Processes that may die in one call before it is reported as failed."""
_START = 300.0
"""Seconds in which a process must have imported what the clients need."""
_LARGE = 256 << 20
"""Bytes of a pickled function from which on a word is due: each process has them."""
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from flmq.client.pool.process import main; main(int(sys.argv[1]))"
)


class ClientNotPicklable(UsageError):
    """What creates the clients cannot be handed to other processes."""

    def __init__(self, source: object, error: BaseException) -> None:
        """Name what it is, and what is in its way."""
        name = getattr(source, "__name__", type(source).__name__)
        super().__init__(
            f"{name} cannot be handed to other processes ({type(error).__name__}: {error}): open "
            "files, locks, connections and the like inside of it, or leave max_workers out to "
            "train on threads"
        )


class ProcessesNotStarted(UsageError):
    """A process of the pool could not load what creates the clients."""

    def __init__(self, why: str) -> None:
        """Say why."""
        super().__init__(
            f"a process of the pool could not begin: {why}. What client_fn needs must be "
            "importable there too, or be part of it; leave max_workers out to train on threads"
        )


class NoProcesses(UsageError):
    """This system has no sockets to hand to processes."""

    def __init__(self) -> None:
        """Say what to do instead."""
        super().__init__("a pool of processes needs Unix: leave max_workers out, and use threads")


class _Died(RunError):
    """The process ended in the middle of a call."""


class ProcessPool:
    """So many processes that call clients' code, one call each at a time. Thread-safe."""

    def __init__(self, source: ClientSource, size: int, models: Path) -> None:
        """Start ``size`` processes, and wait until each has loaded ``source``.

        ``models`` is the folder of the `FolderCache` that the worker keeps its models in. If this
        program is killed, the processes remove it.

        Raises:
            ClientNotPicklable: ``source`` cannot be handed to another process.
            ProcessesNotStarted: a process could not load it.
            NoProcesses: the system is no Unix.
        """
        if os.name != "posix":
            raise NoProcesses
        self._setup = _setup(source, models)
        self._changed = threading.Condition()
        self._closed = False
        self._members = [_Member(self._setup) for _ in range(size)]
        self._idle = list(self._members)
        try:
            for member in self._members:
                member.launch()
            for member in self._members:
                member.await_begin()
        except BaseException:
            self.close()
            raise

    def call(self, task: Task, context: ClientContext) -> Res:
        """Have ``task``, with its model, answered by the client of ``context``. Blocks.

        A process that dies meanwhile is replaced, and the call repeated; after some deaths it is
        the client's failure.

        Raises:
            TransportClosed: the pool is closed.
        """
        member = self._borrow()
        try:
            return self._call(member, task, context)
        finally:
            with self._changed:
                self._idle.append(member)
                self._changed.notify()

    def close(self) -> None:
        """End all processes, whatever they do. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for member in self._members:
            member.end()

    def _borrow(self) -> _Member:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle)
            self._check_open()
            return self._idle.pop()

    def _call(self, member: _Member, task: Task, context: ClientContext) -> Res:
        where = f"job {task.job}, round {task.server_round}, {task.phase.value}"
        why = ""
        for tries in range(1, _TRIES + 1):
            try:
                self._see_to(member)
                return member.ask(task, context)
            except ProcessesNotStarted as error:
                self._check_open()
                why = str(error)
            except _Died as error:
                self._check_open()
                why = f"its process {error}"
                then = "it is called again in another" if tries < _TRIES else "it has failed"
                logger.warning("%s, client %s: %s: %s", where, task.client_id, why, then)
        return Failure(FailureKind.EXCEPTION, "ProcessDied", f"{why}, {_TRIES} times in a row")

    def _see_to(self, member: _Member) -> None:
        """Start a process in the place of one that has died."""
        if member.is_alive:
            return
        member.end()
        with self._changed:  # so that `close` ends whatever is launched
            self._check_open()
            member.launch()
        member.await_begin()

    def _check_open(self) -> None:
        if self._closed:
            raise TransportClosed("the pool of processes is closed")


class _Member:
    """A place in the pool, and the process that is there now. One thread calls it at a time."""

    def __init__(self, setup: bytes) -> None:
        """Send ``setup`` to each process first."""
        self._setup = setup
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[bytes, bytes] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, and it has not ended."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start a process; it loads what it needs by itself.

        Raises:
            ProcessesNotStarted: the system lets us have no more.
        """
        try:
            self._launch()
        except OSError as error:
            raise ProcessesNotStarted(f"the system starts no more of them ({error})") from error

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        if self._connection is not None:
            self._connection.close()
        # Python ignores other entries when it imports, and JSON has none.
        path = [entry for entry in sys.path if isinstance(entry, str)]
        with theirs:
            self._connection = Connection(os.dup(ours.fileno()))
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), json.dumps(path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C is ours: we end them, with all that they have started.
                start_new_session=True,
            )
        threading.Thread(
            target=_watch, args=(self._process, ours), name="flmq-pool-watch", daemon=True
        ).start()

    def await_begin(self) -> None:
        """Wait until the process could be asked.

        Raises:
            ProcessesNotStarted: it could not.
        """
        try:
            self._line.send_bytes(self._setup)
            if not self._line.poll(_START):
                raise ProcessesNotStarted(f"it was not ready within {_START:.0f} s")
            began: Began = load(self._line.recv_bytes())
        except (EOFError, OSError):
            raise ProcessesNotStarted(f"it {self._ended()}") from None
        if began.problem:
            raise ProcessesNotStarted(began.problem)

    def ask(self, task: Task, context: ClientContext) -> Res:
        """Have the process call the client.

        Raises:
            _Died: it ended, or had to be ended.
        """
        try:
            return self._ask(task, context)
        except (EOFError, OSError):
            raise _Died(self._ended()) from None
        except Exception as error:  # the client's code wrote to the socket, which is no longer ours
            self.end()
            raise _Died(f"said what cannot be read ({named_error(error)})") from error

    def end(self) -> None:
        """End the process, and those that it has started."""
        if self._process is None:
            return
        if self._process.poll() is None:  # else `_watch` ends the others
            _kill_session(self._process.pid)
        self._process.wait()

    def _ask(self, task: Task, context: ClientContext) -> Res:
        parameters = None if task.model is None else parameters_of(task.ins)
        if parameters is not None:
            task = replace(task, ins=without_parameters(task.ins))
        self._line.send_bytes(dump(Asked(encode(task), context)))
        said: Answered | NoModel = load(self._line.recv_bytes())
        if isinstance(said, NoModel):
            assert parameters is not None
            for tensor in parameters.tensors:
                self._line.send_bytes(tensor)
            said = load(self._line.recv_bytes())
        assert isinstance(said, Answered)
        reply = decode(said.reply, our_own=True)
        assert isinstance(reply, Reply)
        if not said.tensors:
            return reply.res
        tensors = [self._line.recv_bytes() for _ in range(said.tensors)]
        return with_parameters(reply.res, Parameters(tensors, said.tensor_type, said.names))

    @property
    def _line(self) -> Connection[bytes, bytes]:
        assert self._connection is not None, "there is a process"
        return self._connection

    def _ended(self) -> str:
        """Return how it ended, having seen to it that it has."""
        self.end()
        assert self._process is not None
        status = self._process.returncode
        if status >= 0:
            return f"ended with status {status}"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        memory = "; was memory short?" if -status == signal.SIGKILL else ""
        return f"was ended by signal {-status} ({name}{memory})"


def _setup(source: ClientSource, models: Path) -> bytes:
    try:
        setup = dump(Setup(dump(source), str(models), logger.getEffectiveLevel(), tuple(sys.argv)))
    except Exception as error:  # whatever its objects raise when they are pickled
        raise ClientNotPicklable(source, error) from error
    if len(setup) > _LARGE:
        logger.warning(
            "client_fn takes %d MB with what it refers to, in each process: let it read its data "
            "where it is called",
            len(setup) >> 20,
        )
    return setup


def _watch(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    """Wait for the end of a process; nothing comes after, even if others have its socket."""
    process.wait()
    _kill_session(process.pid)  # now, as its number may be another's later
    with ours, contextlib.suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)


def _kill_session(pid: int) -> None:
    """End a process that leads a session, and those that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
