"""Find policies, set by an operator, that make RabbitMQ drop flmq's messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from flmq.broker.management import Management

__all__ = ["dropping_policies"]

_DROPPING = ("message-ttl", "max-length", "max-length-bytes", "expires")
_OURS = "flmq.provision."
_OF_FLMQ = "^flmq\\."
_PAGE, _PAGES = 500, 40
"""Queues that one call lists, and the most of such calls."""
_NAMED = 3
"""Most queues of one kind that a finding names."""
_EXAMPLE = "a"
_KINDS = (
    "flmq.regional.uploads",
    "flmq.regional",
    "flmq.aggregator",
    "flmq.partials",
    "flmq.client",
    "flmq.models",
    "flmq.replies",
    "flmq.uploads",
    "flmq.presence",
)
"""What the names of queues begin with from which a policy can drop messages, the longer first."""
_DEAD = "flmq.dead"
_MODELS = "flmq.models"
"""The stream of models, of which other limits drop the oldest part."""
_SHORTENING = ("max-age", "max-length-bytes")
_OF_STREAMS = (None, "all", "queues", "streams")


def dropping_policies(management: Management, vhost: str) -> list[tuple[str, str]]:
    """Return a line on each such policy of ``vhost``, and the command that removes it.

    Judged are the queues that are there, and an example of each kind that may come.

    Raises:
        BrokerUnavailable: the management API does not answer.
        BrokerAccessRefused: it refuses the login.
        BrokerRefusal: it refuses the call.
    """
    name = quote(vhost, safe="")
    found: list[tuple[str, str]] = []
    queues: list[str] | None = None
    for kind in ("policy", "operator_policy"):
        path = kind.replace("_", "-").replace("policy", "policies")
        for policy in management.call("GET", f"/api/{path}/{name}") or []:
            if str(policy.get("name")).startswith(_OURS):
                continue  # the limits of the federation's own file
            if queues is None:
                queues = _queues(management, name)
            found.extend(_judge(policy, kind, vhost, queues))
    return found


def _queues(management: Management, vhost: str) -> list[str]:
    """Return the names of flmq's queues on a virtual host, 20,000 at most."""
    names: list[str] = []
    for page in range(1, _PAGES + 1):
        query = urlencode(
            {
                "name": _OF_FLMQ,
                "use_regex": "true",
                "columns": "name",
                "page": page,
                "page_size": _PAGE,
            }
        )
        answer = management.call("GET", f"/api/queues/{vhost}?{query}") or {}
        names += [str(each.get("name")) for each in answer.get("items", ())]
        if page >= int(answer.get("page_count", 0)):
            break
    return names


def _judge(
    policy: Mapping[str, Any], kind: str, vhost: str, queues: Sequence[str]
) -> Iterator[tuple[str, str]]:
    pattern, definition = str(policy.get("pattern", "")), policy.get("definition") or {}
    drops = {key: definition[key] for key in _DROPPING if key in definition}
    clear = f"rabbitmqctl clear_{kind} -p {vhost} {policy.get('name')}"
    if drops and policy.get("apply-to") not in ("exchanges", "streams"):
        hit = _hit(pattern, queues)
        what = ", ".join(f"{key} {value}" for key, value in drops.items())
        found = (
            f"{kind.replace('_', ' ')} {policy.get('name')!r} (pattern {pattern!r}: {what}) may "
            f"drop what is in {', '.join(hit)}; flmq sends it again, which takes time"
        )
        if hit:
            yield found, f"{clear}, or narrow its pattern"
    cuts = {key: definition[key] for key in _SHORTENING if key in definition}
    if cuts and policy.get("apply-to") in _OF_STREAMS and _matches(pattern, _MODELS):
        what = ", ".join(f"{key} {value}" for key, value in cuts.items())
        found = (
            f"{kind.replace('_', ' ')} {policy.get('name')!r} (pattern {pattern!r}: {what}) may "
            f"drop models from {_MODELS} that clients have not read; they ask for them again"
        )
        yield found, f"{clear}, or narrow its pattern"


def _hit(pattern: str, queues: Sequence[str]) -> list[str]:
    """Return the kinds of queues that a pattern matches, with some of those that are there."""
    there: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for queue in queues:
        kind = next((each for each in _KINDS if queue.startswith(f"{each}.")), None)
        if kind is not None:
            there[kind].append(queue.removeprefix(f"{kind}."))
    hit = []
    for kind, every in there.items():
        named = [name for name in every if _matches(pattern, f"{kind}.{name}")]
        if named:
            of_all = "all" if len(named) == len(every) else f"{len(named)} of"
            more = ", ..." if len(named) > _NAMED else ""
            hit.append(f"{kind} ({of_all} {len(every)}: {', '.join(named[:_NAMED])}{more})")
        elif _matches(pattern, f"{kind}.{_EXAMPLE}"):
            hit.append(kind)
    return hit + ([_DEAD] if _matches(pattern, _DEAD) else [])


def _matches(pattern: str, queue: str) -> bool:
    """Return whether a policy's pattern matches ``queue``; True if only Erlang can parse it."""
    try:
        return re.search(pattern, queue) is not None
    except re.error:
        return True
