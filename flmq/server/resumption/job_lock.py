"""Being the one server of a job: its lock on the broker, and standing by for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from flmq.common.errors import JobInUse, ResourceLocked
from flmq.transport import Transport, federation_topology, job_topology, replies_queue

__all__ = ["declare_sites", "take_job"]

_TRY_EVERY = 1.0
_log = logging.getLogger(__name__)


def declare_sites(transport: Transport, sites: Sequence[str]) -> None:
    """Declare what the jobs of these sites share."""
    for site in sites:
        transport.declare(federation_topology(site))


def take_job(transport: Transport, job: str, sites: Sequence[str], *, standby: bool) -> bool:
    """Declare what the job needs, its lock first of all, which lives as long as ``transport``.

    As a ``standby`` wait until the server that has it is gone; its lock goes with its connection.

    Returns:
        Whether the job's queues were there: it was begun before, and not ended.

    Raises:
        JobInUse: another live server has the job, and we are no standby.
        BrokerError: the broker refuses or cannot be reached.
    """
    declare_sites(transport, sites)
    said = False
    while True:
        begun = transport.inspect_queue(replies_queue(job)) is not None
        try:
            transport.declare(job_topology(job))
        except ResourceLocked as error:
            if not standby:
                raise JobInUse(job) from error
        else:
            if said:
                _log.warning("job %s: its server is gone, this one takes over", job)
            return begun
        if not said:
            said = True
            _log.warning("job %s is run by another live server: standing by", job)
        time.sleep(_TRY_EVERY)
