"""What a server says of itself when it is asked: see `flmq.observe.vitals`."""

from __future__ import annotations

from flmq.common.files import folder_bytes
from flmq.observe.vitals import Vitals
from flmq.server.asks.coordinator import Coordinator
from flmq.server.lifecycle.run_folder import OpenRun
from flmq.transport import Transport, presence_queue, replies_queue, uploads_queue

__all__ = ["in_charge", "listening", "not_in_charge"]

_LISTENER_ALLOWED = 300.0
"""Seconds for which one message may keep the server's listener: it writes models to disks."""


def not_in_charge(vitals: Vitals, job: str) -> None:
    """Say that the server does not have its job's lock."""
    vitals.needs("job", lambda: f"the lock of {job} is not ours: another live server has it")


def in_charge(vitals: Vitals, transport: Transport, run: OpenRun) -> None:
    """Say that the server has its job, and what becomes of the job's queues and its folder."""
    vitals.needs("job", lambda: "")
    vitals.measure("flmq_epoch", lambda: run.job.epoch)
    vitals.measure("flmq_run_resumed", lambda: run.resumed)
    queues = {
        "replies": replies_queue(run.job.name),
        "uploads": uploads_queue(run.job.name),
        "presence": presence_queue(run.job.name),
    }

    def ready() -> dict[str, float]:
        found = {name: transport.inspect_queue(queue) for name, queue in queues.items()}
        return {name: info.messages_ready for name, info in found.items() if info is not None}

    vitals.measures("flmq_queue_messages_ready", ready, blocks=True)
    if run.journal is not None:
        folder = run.journal.folder
        vitals.measures("flmq_journal_bytes", lambda: {"": folder_bytes(folder)}, blocks=True)


def listening(vitals: Vitals, coordinator: Coordinator) -> None:
    """Say how the server gets on with what clients send."""
    vitals.loop("listener", lambda: coordinator.turned, lambda: _LISTENER_ALLOWED)
    vitals.measure("flmq_messages_mismatched_total", lambda: coordinator.mismatched)
    vitals.measure("flmq_uploads_open", lambda: coordinator.uploads_open)
    vitals.measure("flmq_uploads_incomplete_total", lambda: coordinator.losses[0])
    vitals.measure("flmq_chunks_stray_total", lambda: coordinator.losses[1])
