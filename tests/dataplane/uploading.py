"""Replies in chunks, sent by hand: as they are, in part, or otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flmq.common import FitRes, Parameters
from flmq.transport import UPLOADS, Address, Message
from flmq.wire import BlobRef, Reply, Task, blob_chunk_headers, iter_chunks, refer, upload_name
from tests.dataplane.looks import trained
from tests.end_to_end.federation import Peer, initial

__all__ = ["CHUNK", "NUMBERS", "Chunks", "Upload"]

NUMBERS = 50_000
CHUNK = 50_000
"""Chunks of a reply: four."""

Chunks = list[tuple[int, bytes | memoryview]]


@dataclass
class Upload:
    """A reply in chunks, to be sent as it is or otherwise."""

    peer: Peer
    task: Task
    res: FitRes
    ref: BlobRef
    chunks: Chunks

    @classmethod
    def of(cls, peer: Peer, task: Task, parameters: Parameters | None = None) -> Upload:
        """What a `Nudge` would reply, or with other parameters."""
        res = trained(peer.client_id, initial(NUMBERS))
        if parameters is not None:
            res = replace(res, parameters=parameters)
        ref = refer(res.parameters, chunk_bytes=CHUNK)
        return cls(peer, task, res, ref, list(iter_chunks(ref, res.parameters.tensors)))

    def announce(self) -> None:
        task, bare = self.task, replace(self.res, parameters=Parameters([], "numpy.ndarray"))
        reply = Reply(
            task_id=task.task_id,
            job=task.job,
            server_round=task.server_round,
            phase=task.phase,
            client_id=self.peer.client_id,
            epoch=task.epoch,
            nonce=task.nonce,
            seconds=0.0,
            res=bare,
            blob=self.ref,
        )
        # The job may be over by then: whether it arrives is not the peer's affair.
        self.peer.send(self.peer.reply_address(), reply, mandatory=False)

    def chunk(self, index: int, data: bytes | memoryview, task_id: str = "") -> None:
        name = upload_name(task_id or self.task.task_id, self.ref)
        message = Message(bytes(data), headers=blob_chunk_headers(name, index))
        address = Address(UPLOADS, self.peer.reply_address().routing_key)
        self.peer.publisher.publish(address, message, mandatory=False)

    def send(self, chunks: Chunks | None = None) -> None:
        self.announce()
        for index, data in self.chunks if chunks is None else chunks:
            self.chunk(index, data)
