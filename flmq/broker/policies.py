"""Find policies, set by an operator, that make RabbitMQ drop flmq's messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from flmq.broker.management import Management

__all__ = ["dropping_policies"]

_DROPPING = ("message-ttl", "max-length", "max-length-bytes", "expires")
_OURS = "flmq.provision."
_QUEUES = (
    "flmq.client.a",
    "flmq.models.a",
    "flmq.replies.a",
    "flmq.uploads.a",
    "flmq.presence.a",
    "flmq.dead",
)
"""An example of each kind of queue from which a policy can drop messages."""


_MODELS = "flmq.models"
"""The stream of models, of which other limits drop the oldest part."""
_SHORTENING = ("max-age", "max-length-bytes")
_OF_STREAMS = (None, "all", "queues", "streams")


def dropping_policies(management: Management, vhost: str) -> list[tuple[str, str]]:
    """Return a line on each such policy of ``vhost``, and the command that removes it.

    Raises:
        BrokerUnavailable: the management API does not answer.
        BrokerAccessRefused: it refuses the login.
        BrokerRefusal: it refuses the call.
    """
    name = quote(vhost, safe="")
    found: list[tuple[str, str]] = []
    for kind in ("policy", "operator_policy"):
        path = kind.replace("_", "-").replace("policy", "policies")
        for policy in management.call("GET", f"/api/{path}/{name}") or []:
            if str(policy.get("name")).startswith(_OURS):
                continue  # the limits of the federation's own file
            found.extend(_judge(policy, kind, vhost))
    return found


def _judge(policy: Mapping[str, Any], kind: str, vhost: str) -> Iterator[tuple[str, str]]:
    pattern, definition = str(policy.get("pattern", "")), policy.get("definition") or {}
    drops = {key: definition[key] for key in _DROPPING if key in definition}
    hit = [queue.removesuffix(".a") for queue in _QUEUES if _matches(pattern, queue)]
    clear = f"rabbitmqctl clear_{kind} -p {vhost} {policy.get('name')}"
    if drops and hit and policy.get("apply-to") not in ("exchanges", "streams"):
        what = ", ".join(f"{key} {value}" for key, value in drops.items())
        found = (
            f"{kind.replace('_', ' ')} {policy.get('name')!r} (pattern {pattern!r}: {what}) may "
            f"drop what is in {', '.join(hit)}; flmq sends it again, which takes time"
        )
        yield found, f"{clear}, or narrow its pattern"
    cuts = {key: definition[key] for key in _SHORTENING if key in definition}
    if cuts and policy.get("apply-to") in _OF_STREAMS and _matches(pattern, _MODELS):
        what = ", ".join(f"{key} {value}" for key, value in cuts.items())
        found = (
            f"{kind.replace('_', ' ')} {policy.get('name')!r} (pattern {pattern!r}: {what}) may "
            f"drop models from {_MODELS} that clients have not read; they ask for them again"
        )
        yield found, f"{clear}, or narrow its pattern"


def _matches(pattern: str, queue: str) -> bool:
    """Return whether a policy's pattern matches ``queue``; True if only Erlang can parse it."""
    try:
        return re.search(pattern, queue) is not None
    except re.error:
        return True
