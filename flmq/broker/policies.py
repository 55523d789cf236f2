"""Policies of an operator that have RabbitMQ drop what flmq has sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from flmq.broker.management import Management

__all__ = ["dropping_policies"]

_DROPPING = ("message-ttl", "max-length", "max-length-bytes", "expires")
_QUEUES = ("flmq.client.a", "flmq.replies.a", "flmq.uploads.a", "flmq.presence.a", "flmq.dead")
"""One of each kind of queue that a policy can make drop messages."""


def dropping_policies(management: Management, vhost: str) -> list[tuple[str, str]]:
    """Each such policy of ``vhost``, in one line, and the command that removes it.

    Raises `BrokerUnavailable`, `BrokerAccessRefused` and `BrokerRefusal` as the API's call does.
    """
    name = quote(vhost, safe="")
    found: list[tuple[str, str]] = []
    for kind in ("policy", "operator_policy"):
        path = kind.replace("_", "-").replace("policy", "policies")
        for policy in management.call("GET", f"/api/{path}/{name}") or []:
            found.extend(_judge(policy, kind, vhost))
    return found


def _judge(policy: Mapping[str, Any], kind: str, vhost: str) -> Iterator[tuple[str, str]]:
    pattern, definition = str(policy.get("pattern", "")), policy.get("definition") or {}
    drops = {key: definition[key] for key in _DROPPING if key in definition}
    hit = [queue.removesuffix(".a") for queue in _QUEUES if _matches(pattern, queue)]
    if drops and hit and policy.get("apply-to") not in ("exchanges", "streams"):
        what = ", ".join(f"{key} {value}" for key, value in drops.items())
        found = (
            f"{kind.replace('_', ' ')} {policy.get('name')!r} (pattern {pattern!r}: {what}) may "
            f"drop what is in {', '.join(hit)}; flmq sends it again, which takes time"
        )
        clear = f"rabbitmqctl clear_{kind} -p {vhost} {policy.get('name')}"
        yield found, f"{clear}, or narrow its pattern"


def _matches(pattern: str, queue: str) -> bool:
    """Whether a policy's pattern finds ``queue``; one that only Erlang can read may."""
    try:
        return re.search(pattern, queue) is not None
    except re.error:
        return True
