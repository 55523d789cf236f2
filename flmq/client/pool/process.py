"""A process of the pool: what it is told, and how it calls a client and answers.

What goes through the socket is pickled by cloudpickle, so that functions of a notebook or a script
go by value. Parameters do not: small ones are in the task's and the reply's bytes, a shared model
is mapped from the worker's folder of models, and large ones of a reply follow it one by one.
"""

from __future__ import annotations

import os
import pickle
import queue
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import cloudpickle

from flmq.client.context import ClientContext
from flmq.client.factory import Maker
from flmq.client.models.cache import FolderCache
from flmq.client.tasks.answering import call_client, reply_to, unknown_kind
from flmq.common.failure_text import named_error
from flmq.common.logger import show_on_console
from flmq.common.parameter import parameters_of, with_parameters, without_parameters
from flmq.common.typing import Parameters
from flmq.wire import (
    INLINE_BYTES,
    BlobRef,
    FailureKind,
    Reply,
    Res,
    Task,
    decode,
    encode,
    size_of,
    tensors_of,
)
from flmq.wire.failures import failure_of
from flmq.wire.kinds import UnknownKind

__all__ = ["Answered", "Asked", "Began", "NoModel", "Setup", "dump", "load", "main"]


@dataclass(frozen=True, slots=True)
class Setup:
    """To the process, first."""

    source: bytes
    """Pickled."""
    models: str
    """The worker's folder of models, which is for this pool alone."""
    log_level: int
    argv: tuple[str, ...]
    """``sys.argv`` of the program, which clients' code may read."""


@dataclass(frozen=True, slots=True)
class Began:
    """From the process: it can be asked."""

    problem: str = ""
    """Why it cannot."""


@dataclass(frozen=True, slots=True)
class Asked:
    """To the process: do this."""

    task: bytes
    """Encoded, without its model if that is in the folder."""
    context: ClientContext


@dataclass(frozen=True, slots=True)
class NoModel:
    """From the process: the model is not in the folder; its tensors are to be sent."""


@dataclass(frozen=True, slots=True)
class Answered:
    """From the process: the client's answer; so many tensors follow it, if it is large."""

    reply: bytes
    tensors: int = 0
    tensor_type: str = ""
    names: tuple[str, ...] = ()


def dump(what: object) -> bytes:
    """Return ``what`` as bytes; functions of a program's main module by value."""
    return cast("bytes", cloudpickle.dumps(what))


def load(data: bytes) -> Any:
    """Return what `dump` was given, by our own process at the other end."""
    return pickle.loads(data)  # noqa: S301  # of our own pool, over a socket nobody else has


def main(fd: int) -> None:
    """Serve the pool at the other end of the socket ``fd``, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Served(Connection(fd)).run()


class _Served:
    """Calls of one process, on its main thread; another one listens, and notes the pool's end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._models: str | None = None
        self._last: tuple[str, memoryview] | None = None
        """Digest and bytes of the last model: usually the next task's too."""
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        setup: Setup = load(self._came.get())
        self._models, sys.argv = setup.models, list(setup.argv)
        try:
            show_on_console(setup.log_level)
            self._maker = Maker(load(setup.source))
            self._cache = FolderCache(Path(setup.models), sys.maxsize)
        except BaseException as error:  # user modules are imported, and may even exit
            self._say(Began(named_error(error)))
            return
        self._say(Began())
        while True:
            self._answer(load(self._came.get()))

    def _listen(self) -> None:
        """Hand over what comes; at the pool's end, end, in the middle of a training too."""
        try:
            while True:
                self._came.put(self._connection.recv_bytes())
        except EOFError:
            # A pool that ends ends us first: this one's program was killed, and left its folder.
            if self._models is not None:
                shutil.rmtree(self._models, ignore_errors=True)
        except OSError:
            pass
        # We lead a session of our own: whatever the client's code has started ends with us.
        os.killpg(os.getpgrp(), signal.SIGKILL)

    def _say(self, what: object) -> None:
        self._connection.send_bytes(dump(what))

    def _answer(self, asked: Asked) -> None:
        task = decode(asked.task, our_own=True)
        assert isinstance(task, Task)
        res = self._result(task, asked.context)
        reply, parameters = reply_to(task, res, 0.0), parameters_of(res)
        if parameters is None or size_of(parameters) <= INLINE_BYTES:
            self._say(Answered(_encoded(reply)))
            return
        head = _encoded(replace(reply, res=without_parameters(res)))
        count, names = len(parameters.tensors), tuple(parameters.names)
        self._say(Answered(head, count, parameters.tensor_type, names))
        for tensor in parameters.tensors:
            self._connection.send_bytes(tensor)

    def _result(self, task: Task, context: ClientContext) -> Res:
        if isinstance(task.ins, UnknownKind):
            return unknown_kind(task)
        try:
            ins = task.ins
            if task.model is not None and parameters_of(ins) is not None:
                ins = with_parameters(ins, self._model(task.model))
        except Exception as error:
            return failure_of(FailureKind.REFUSED, error)
        return call_client(lambda: self._maker.make(context), ins, ends=lambda e: False)

    def _model(self, ref: BlobRef) -> Parameters:
        """Map a model from the folder, or have its tensors sent."""
        if self._last is None or self._last[0] != ref.digest:
            self._last = None  # one at a time
            self._last = ref.digest, self._cache.get(ref, lambda: self._received(ref))
        tensors = cast("list[bytes]", tensors_of(ref, self._last[1]))
        return Parameters(tensors, ref.tensor_type, ref.names)

    def _received(self, ref: BlobRef) -> memoryview:
        self._say(NoModel())
        return memoryview(b"".join(self._came.get() for _ in ref.lengths))


def _encoded(reply: Reply) -> bytes:
    try:
        return encode(reply)
    except Exception as error:  # the client's values; what cannot be sent is its failure
        return encode(replace(reply, res=failure_of(FailureKind.BAD_RETURN, error)))
