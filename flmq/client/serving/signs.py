"""What a worker says of itself when it is asked: see `flmq.observe.vitals`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flmq.client.options import WorkerOptions
from flmq.client.serving.backlog import Backlog
from flmq.client.tasks.receipts import AwaitedReceipts
from flmq.common.files import folder_bytes
from flmq.messaging import Inbox
from flmq.observe.vitals import Vitals

__all__ = ["consuming", "not_consuming", "working"]

_LISTENER_ALLOWED = 300.0
"""Seconds beyond two heartbeats for which one message may keep the worker's listener."""


def not_consuming(vitals: Vitals) -> None:
    """Say that the worker does not have its clients' queues."""
    vitals.needs("queue", lambda: "not consumed yet: another process may have this client id")


def consuming(
    vitals: Vitals,
    turned: Callable[[], float],
    every: Callable[[], float],
    draining: Callable[[], bool],
) -> None:
    """Say that the worker has its clients' queues, and whether it is ``draining``.

    Its listener last came round at ``turned``, and does so ``every`` so many seconds.
    """
    vitals.needs("queue", lambda: "")
    vitals.needs("tasks", lambda: "draining: it begins no task" if draining() else "")
    vitals.loop("listener", turned, lambda: _LISTENER_ALLOWED + 2 * every())


def working(
    options: WorkerOptions,
    clients: Sequence[str],
    inbox: Inbox,
    backlog: Backlog,
    awaited: AwaitedReceipts,
) -> None:
    """Say how many tasks and replies the worker has, and what they take on its disk."""
    vitals = options.vitals
    vitals.measure("flmq_messages_mismatched_total", lambda: inbox.mismatched)
    vitals.measure("flmq_worker_clients", lambda: len(clients))
    vitals.measure("flmq_worker_tasks_open", lambda: len(backlog))
    vitals.measure("flmq_worker_tasks_at_work", lambda: backlog.at_work)
    vitals.measure("flmq_worker_replies_unreceipted", lambda: len(awaited))
    if options.acks_on_acceptance:
        folders = [options.spool_folder(client_id) for client_id in clients]
        vitals.measures(
            "flmq_worker_spool_bytes",
            lambda: {"": sum(map(folder_bytes, folders))},
            blocks=True,
        )
