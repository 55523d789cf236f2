"""Become the one server of a job: its lock on the broker, and standing by for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flmq.common.errors import BrokerAccessRefused, JobInUse, ResourceLocked
from flmq.common.logger import get_logger
from flmq.transport import Transport, federation_topology, job_topology, replies_queue
from flmq.transport.provisioned import NotProvisioned, is_provisioned
from flmq.transport.standby import stand_by

__all__ = ["TakenJob", "declare_sites", "take_job"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TakenJob:
    """How this server came to have its job."""

    begun: bool
    """Whether the job's queues existed: it was begun before, and has not ended."""
    waited: bool
    """Whether another live server had it, whose end this one waited for."""


def declare_sites(transport: Transport, sites: Sequence[str]) -> None:
    """Declare what the jobs of these sites share."""
    for site in sites:
        transport.declare(federation_topology(site))


def take_job(
    transport: Transport,
    job: str,
    sites: Sequence[str],
    *,
    standby: bool,
    wait: Callable[[float], object] | None = None,
) -> TakenJob:
    """Declare a job's queues, first of all its lock, which lives as long as ``transport``.

    What all jobs share is declared before, unless the virtual host is provisioned.

    As a ``standby``, wait until the server that has it is gone; its lock goes with its connection.
    ``wait`` waits for that many seconds between tries, and raises to stop.

    Raises:
        JobInUse: another live server has the job, and we are not a standby.
        NotProvisioned: our user may not run a job of that name.
        BrokerError: the broker refuses or cannot be reached.
    """
    stands = is_provisioned(transport)
    if not stands:
        declare_sites(transport, sites)
    waited = False

    def take() -> bool:
        begun = transport.inspect_queue(replies_queue(job)) is not None
        try:
            transport.declare(job_topology(job))
        except BrokerAccessRefused as error:
            if not stands:
                raise
            raise NotProvisioned(f"job {job!r}", transport.user, str(error)) from error
        return begun

    def locked(error: ResourceLocked) -> None:
        nonlocal waited
        if not standby:
            raise JobInUse(job) from error
        waited = True
        _log.warning("job %s is run by another live server: standing by", job)

    begun = stand_by(take, locked, wait or threading.Event().wait)
    if waited:
        _log.warning("job %s: its server is gone, this one takes over", job)
    return TakenJob(begun, waited)
