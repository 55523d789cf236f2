"""Convert a phase's result to what Flower's strategies expect, and summarize its failures."""

from __future__ import annotations

from collections.abc import Sequence

from flmq.common.failure_text import status_text
from flmq.round import client_of
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.request import PhaseResult
from flmq.wire import Ins, Res

__all__ = ["split", "why"]


def split(
    instructions: Sequence[tuple[ClientProxy, Ins]], result: PhaseResult
) -> tuple[list[tuple[ClientProxy, Res]], list[tuple[ClientProxy, Res] | BaseException]]:
    """Return Flower's ``results`` and ``failures``, both in client-id order."""
    proxies = {client.cid: client for client, _ in instructions}
    results = [(proxies[client_of(ask)], res) for ask, res in result.replies.items()]
    failures: list[tuple[ClientProxy, Res] | BaseException] = [
        failure
        if isinstance(failure, ClientFailure)
        else (proxies[client_of(failure[0])], failure[1])
        for failure in result.failures
    ]
    return results, failures


def why(result: PhaseResult) -> str:
    """Describe the first three failures, and count the rest."""
    reasons = [
        str(failure)
        if isinstance(failure, ClientFailure)
        else f"client {failure[0]}: {_status(failure[1])}"
        for failure in result.failures[:3]
    ]
    more = len(result.failures) - len(reasons)
    return "; ".join(reasons) + (f"; and {more} more" if more > 0 else "")


def _status(res: Res) -> str:
    status = getattr(res, "status", None)
    return "no status" if status is None else status_text(status)
