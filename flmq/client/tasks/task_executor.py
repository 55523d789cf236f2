"""Execute a task: read its model, call the user's code, store the reply and publish it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from flmq.client.factory import Clients
from flmq.client.models.reader import ModelNotFound, ModelReader
from flmq.client.tasks.answering import answer_task, reply_to
from flmq.client.tasks.deaths import Deaths, DiedInTask, NoDeaths
from flmq.client.tasks.receipts import AwaitedReceipts
from flmq.client.tasks.store import Tasks, asks_the_same
from flmq.client.tasks.task_events import TaskEvents
from flmq.common.crashpoints import crash_point
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerUnavailable,
    MessageTooLarge,
    TransportClosed,
    UsageError,
)
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of, with_parameters, without_parameters
from flmq.common.typing import FitIns, Parameters
from flmq.e2e.errors import NoManifest
from flmq.messaging import Sender, Sent
from flmq.transport import (
    REGIONAL,
    REGIONAL_UPLOADS,
    REPLIES,
    UPLOADS,
    Address,
    PublishOutcome,
    own_models_topology,
    reply_key,
    size_key,
)
from flmq.wire import (
    INLINE_BYTES,
    BlobRef,
    Failure,
    FailureKind,
    ModelRequest,
    Reply,
    Task,
    ref_of,
    refer,
    size_of,
    upload_name,
)
from flmq.wire.codecs import base_by_name, get_codec
from flmq.wire.failures import failure_of

__all__ = ["TaskExecutor"]


class TaskExecutor:
    """Execute tasks of one worker's clients. Several threads may call it at once."""

    def __init__(
        self,
        sender: Sender,
        models: ModelReader,
        clients: Clients,
        awaited: AwaitedReceipts,
        *,
        site: str,
        events: TaskEvents | None = None,
        deaths: Deaths | None = None,
    ) -> None:
        """Publish through ``sender``, and add to ``awaited`` the replies that the broker has."""
        self._sender = sender
        self._models = models
        self._clients = clients
        self._awaited = awaited
        self._site = site
        self._events = events or TaskEvents()
        self._deaths = deaths or NoDeaths()
        self.reply_key: Callable[[Reply, BlobRef], bytes] = _no_key
        """Gives the content key of a reply's blob; empty: its chunks are plain."""

    def do(self, task: Task, tasks: Tasks, now: Callable[[], float] = time.time) -> bool:
        """Execute a task, or only send its reply if it is done already. Blocks.

        ``now`` gives Unix seconds by the clock of the task's deadline.

        Returns whether the broker has the reply; False if there is no queue for it now.

        Raises:
            TransportClosed: the worker is stopping.
        """
        reply, loaded = tasks.reply_of(task.task_id), task
        if reply is None:
            crash_point("worker.before_training")
            self._events.started(task, tasks.age_of)

            def load() -> Task:
                nonlocal loaded
                try:
                    deaths = self._deaths.begin(task)
                except DiedInTask as error:
                    self._events.died(task, error.deaths)
                    raise
                self._events.died(task, deaths)
                loaded = self._with_model(task, tasks, now)
                self._events.loaded(task)
                return loaded

            try:
                reply = answer_task(
                    task,
                    load,
                    lambda: self._clients.get(task.job, task.client_id),
                    now,
                    level=self._events.level,
                    elsewhere=self._clients.elsewhere(task),
                )
            except (KeyboardInterrupt, TransportClosed):
                self._deaths.leave(task)
                raise
            reply = self._events.with_times(reply)
            self._events.ended(reply)
            crash_point("worker.trained")
            newest = tasks.current(task.task_id)
            if newest is None:
                return True  # settled meanwhile: the reply is not wanted
            if not asks_the_same(newest, task):
                return self.do(newest, tasks, now)
            reply = self._keep(reply, tasks)
            self._deaths.end(task.client_id, task.task_id)
        elif _is_lossy(_codec(task)):
            # A reply that is sent again must decode to the bits that were sent before.
            loaded = self._with_model_if_any(task, tasks)
        while True:
            newest = tasks.current(task.task_id)
            via = loaded.via if newest is None else newest.via
            if not self._send(reply, loaded, via):
                return False
            newest = tasks.current(task.task_id)
            if newest is None or newest.via == via:
                break  # else its server wants it another way, and asked while it was being sent
        self._events.sent(reply)
        crash_point("worker.reply_confirmed")
        return True

    def say_settled(self, task: Task) -> None:
        """Tell a server that asks for a task that it is settled here, and its reply dropped."""
        said = Failure(FailureKind.SETTLED, message="settled here before, and its reply let go")
        reply = reply_to(task, said, 0.0)
        address = self._address(task.client_id, task.job)
        self._sender.send(address, reply, mandatory=False, message_id=task.task_id)

    def announce_again(self, envelope: Reply, via: str, gone: Callable[[], None]) -> None:
        """Ask for a receipt the way that the reply went: to the aggregator of ``via``, if any.

        It alone knows what it has: the server, told of a reply that is in a sum, would count it.
        ``gone`` is called, on any thread, if there is no queue: the whole reply is to be sent.
        """
        address = self._address(envelope.client_id, envelope.job, via)
        try:
            sent = self._sender.send(address, envelope, message_id=envelope.task_id)
        except NoManifest as error:  # another run of its job was heard since: asked again later
            logger.debug("%s", error)
            return

        def heard(outcome: Future[PublishOutcome]) -> None:
            if outcome.exception() is None and outcome.result() is PublishOutcome.UNROUTABLE:
                gone()

        sent.outcome.add_done_callback(heard)

    def _keep(self, reply: Reply, tasks: Tasks) -> Reply:
        try:
            return tasks.finished(reply)
        except OSError as error:
            # Better sent without a copy than lost; a crash before the confirm costs a training.
            logger.error("the reply cannot be spooled (%s): sending it without", error)
            return reply
        except Exception as error:
            # The result cannot be encoded, for whatever reason: report that as the failure.
            return tasks.finished(_bad(reply, error))

    def _with_model(self, task: Task, tasks: Tasks, now: Callable[[], float]) -> Task:
        """Return the task with the model that it refers to."""
        if task.model is None or parameters_of(task.ins) is None:
            return task
        with_tasks = self._models.own is not None
        request = ModelRequest(task.job, task.client_id, task.model.digest, with_tasks)
        deadline = None
        if task.deadline_unix_ms is not None:
            # By this machine's clock, which may differ from the server's.
            deadline = self._models.unix_clock() + task.deadline_unix_ms / 1000 - now()

        def ask() -> None:
            if _is_over(task, tasks):
                raise ModelNotFound(
                    f"model {request.digest[:12]} is not to be had any more: the round is over"
                )
            address = self._address(task.client_id, task.job)
            with contextlib.suppress(NoManifest):  # its server will be heard: asked again then
                self._sender.send(address, request, mandatory=False).outcome.result()

        parameters = self._models.get(
            task.model, deadline, ask, own_models_topology(task.client_id, self._site)
        )
        return replace(task, ins=with_parameters(task.ins, parameters))

    def _with_model_if_any(self, task: Task, tasks: Tasks) -> Task:
        try:
            return self._with_model(task, tasks, self._models.unix_clock)
        except TransportClosed:
            raise
        except Exception as error:
            logger.warning("sending without compression: %s", error)
            return task

    def _send(self, reply: Reply, task: Task, via: str) -> bool:
        """Send a reply to its site's aggregator, or to the server if there is none: ``via`` says.

        Where the site has no queues of an aggregator, as none ever ran there, it goes to the
        server at once. Returns whether the broker has it all; False if a queue is gone.
        """
        if via and self._send_to(self._address(reply.client_id, reply.job, via), reply, task):
            return True
        return self._send_to(self._address(reply.client_id, reply.job), reply, task)

    def _send_to(self, address: Address, reply: Reply, task: Task) -> bool:
        """Send a reply: whole, or, if it is large, with its parameters in chunks behind it.

        The chunks go by another queue, and only once the broker has the envelope. Returns whether
        the broker has it all; False if a queue is gone.
        """
        parameters, reply = parameters_of(reply.res), self._events.sending(reply)
        try:
            if parameters is None or size_of(parameters) <= INLINE_BYTES:
                return self._send_envelope(address, reply)
            ref, tensors = _packed(parameters, task)
            while True:
                try:
                    return self._send_in_chunks(address, reply, ref, tensors)
                except MessageTooLarge as refused:
                    if not self._sender.cut_smaller(refused):
                        raise
        except (BrokerAccessRefused, BrokerUnavailable, TransportClosed):
            raise
        except NoManifest as error:
            logger.info("%s: it is kept until then", error)
            return False
        except Exception as error:
            # No codec or broker accepts it: a client that died of it would die again.
            return self._send_envelope(address, _bad(reply, error))

    def _send_in_chunks(
        self,
        address: Address,
        reply: Reply,
        ref: BlobRef,
        tensors: Sequence[bytes | memoryview],
    ) -> bool:
        uploads = REGIONAL_UPLOADS if address.exchange == REGIONAL else UPLOADS
        nobody = Address(UPLOADS, size_key(self._site, reply.client_id))
        ref = replace(ref, chunk_bytes=self._sender.chunk_bytes(nobody))
        ref = replace(ref, key=self.reply_key(reply, ref))
        head = replace(reply, res=without_parameters(reply.res), blob=ref)
        if not self._send_envelope(address, head):
            return False
        crash_point("worker.reply_announced")
        chunks = Address(uploads, address.routing_key)
        name = upload_name(reply.task_id, ref)
        return _arrived(self._sender.send_blob(chunks, ref, name, tensors))

    def _send_envelope(self, address: Address, envelope: Reply) -> bool:
        arrived = _arrived(self._sender.send(address, envelope, message_id=envelope.task_id))
        if arrived:
            self._awaited.sent(envelope)
        return arrived

    def _address(self, client_id: str, job: str, via: str = "") -> Address:
        # The site's own exchange: it binds its aggregator's queues by its own name alone.
        exchange = REGIONAL if via else REPLIES
        return Address(exchange, reply_key(self._site, client_id, job))


def _no_key(reply: Reply, ref: BlobRef) -> bytes:
    return b""


def _arrived(sent: Sent) -> bool:
    """Wait until the broker has it; return False if there is no queue for it."""
    return sent.outcome.result() is not PublishOutcome.UNROUTABLE


def _packed(parameters: Parameters, task: Task) -> tuple[BlobRef, Sequence[bytes | memoryview]]:
    """Return what to send: compressed against the task's model if offered and possible.

    A reply trained by an earlier process is sent uncompressed if the codec is lossless, as its
    model is not available.
    """
    base = task.ins.parameters if isinstance(task.ins, FitIns) else None
    if not _codec(task) or task.model is None or base is None or not base.tensors:
        return ref_of(parameters), parameters.tensors
    try:
        codec = get_codec(task.reply_codec)
    except UsageError as error:
        logger.warning("sending without compression: %s", error)
        return ref_of(parameters), parameters.tensors
    tensors = codec.encode(parameters.tensors, base_by_name(parameters.names, base))
    packed = Parameters(tensors, parameters.tensor_type, parameters.names)
    return refer(packed, codec=codec.name, base=task.model.digest), packed.tensors


def _codec(task: Task) -> str:
    """Return the codec for a reply: none if the base is a model that only the server can resend."""
    return task.reply_codec if task.model is not None and task.model.is_shared else ""


def _is_lossy(codec: str) -> bool:
    try:
        return bool(codec) and not get_codec(codec).lossless
    except UsageError:
        return False


def _is_over(task: Task, tasks: Tasks) -> bool:
    """Return whether nobody waits for a task: it is settled, or its job is in a later round."""
    others = (tasks.current(task_id) for task_id in tasks.of_job(task.job))
    # Tasks of an earlier server do not count: this one may have an older copy of the run.
    return tasks.current(task.task_id) is None or any(
        other is not None
        and (other.run == task.run and other.epoch >= task.epoch)
        and other.server_round > task.server_round
        for other in others
    )


def _bad(reply: Reply, error: Exception) -> Reply:
    where = f"job {reply.job}, round {reply.server_round}, {reply.phase.value}"
    logger.error("%s: the result cannot be sent: %s", where, error)
    return replace(reply, res=failure_of(FailureKind.BAD_RETURN, error))
