"""A plan in plain words: a line for each party and what becomes of it, alike ones together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from flmq.client.client_ids import some_of
from flmq.provision.applying import Plan, Step
from flmq.provision.wanted import Definitions, Entry

__all__ = ["lines_of"]

_FEW = 10
"""Parties that are named one by one."""
_QUEUE = re.compile(r"flmq\.(client|models|aggregator|regional\.uploads|regional|partials)\.(.+)")
_WORDS = {
    "vhosts": "the virtual host",
    "users": "user",
    "permissions": "permissions",
    "topic_permissions": "topic permissions",
    "user_limits": "limits",
    "parameters": "limits",
    "policies": "policies",
    "queues": "queues",
    "exchanges": "exchanges",
    "bindings": "bindings",
}
_Party = tuple[str, str]
"""What a party is, and its name."""
_SHARED = ("", "")


def lines_of(plan: Plan) -> Iterator[str]:
    """Yield the lines of ``plan``: ``+`` is made, ``~`` changed, ``-`` removed."""
    for step in plan.steps:
        yield from _step(step)
    if plan.passwords:
        yield f"+ new passwords of {_named('user', list(plan.passwords))}"


def _step(step: Step) -> Iterator[str]:
    where = step.site.name + (f" ({step.tenant.name})" if step.tenant.name else "")
    change = step.difference
    users = {
        **dict.fromkeys(_clients_of(change.remove), "client"),
        **{party.user: party.role.value for party in step.tenant.parties},
        step.site.management.user: "who provisions,",
    }
    for sign, entries in (("+", change.make), ("~", change.change), ("-", change.remove)):
        for party, names, what in _grouped(_by_party(entries, users)):
            yield f"{sign} {where}: {_told(sign, party, names, what)}"
    for each in step.links:
        yield f"{each.sign.value} {where}: {each.item.kind.value} {each.item.name}"
    if step.unknown:
        users_here = _named("user", list(step.unknown))
        yield (
            f"  {where}: passwords are left as they are, since their files are not here: "
            f"{users_here}; `flmq provision rotate` makes new ones"
        )
    if change.foreign:
        yield (
            f"  {where}: others have rights on the virtual host, and are left alone: "
            f"{', '.join(change.foreign)}"
        )


def _clients_of(removed: Definitions) -> Iterator[str]:
    """Yield the clients whose queues are removed."""
    for entry in removed["queues"]:
        queue = _QUEUE.fullmatch(entry["name"])
        if queue is not None and queue[1] == "client":
            yield queue[2]


def _by_party(entries: Definitions, users: Mapping[str, str]) -> dict[_Party, list[str]]:
    """Return what there is of each party, in words."""
    found: dict[_Party, list[str]] = {}
    for kind, each in entries.items():
        for entry in each:
            words = found.setdefault(_party(kind, entry, users), [])
            word = _WORDS[kind] + _shown(kind, entry)
            if word not in words:
                words.append(word)
    return found


def _party(kind: str, entry: Entry, users: Mapping[str, str]) -> _Party:
    if kind == "users":
        return users.get(entry["name"], "user"), entry["name"]
    if kind in ("permissions", "topic_permissions", "user_limits"):
        return users.get(entry["user"], "user"), entry["user"]
    queue = _QUEUE.fullmatch(entry.get("destination") or entry.get("name") or "")
    if kind in ("queues", "bindings") and queue is not None:
        return ("client" if queue[1] in ("client", "models") else "aggregator of"), queue[2]
    return _SHARED


def _shown(kind: str, entry: Entry) -> str:
    """Return the name of what all parties share; what one party has needs none."""
    if kind == "policies" or (kind == "queues" and not _QUEUE.match(entry["name"])):
        return f" {entry['name']}"
    return ""


def _grouped(found: Mapping[_Party, list[str]]) -> Iterator[tuple[str, list[str], str]]:
    """Yield parties of one kind with the same words together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for (party, name), words in found.items():
        alike.setdefault((party, ", ".join(words)), []).append(name)
    for (party, what), found_names in alike.items():
        names = sorted(found_names, key=lambda name: (len(name), name))
        if len(names) <= _FEW:
            for name in names:
                yield party, [name], what
        else:
            yield party, names, what


def _told(sign: str, party: str, names: list[str], what: str) -> str:
    if (party, names[0]) == _SHARED:
        return what
    who = _named(party, names)
    if sign == "-" and "user" in what.split(", "):
        return f"{who}: no longer in the file: {what}; its connections are closed"
    if sign == "-" and "queues" in what:
        return f"{who}: no longer in the file: {what}, with what waits in them"
    if sign == "~" and "queues" in what:
        return f"{who}: {what}; queues are deleted and made again, what waits there is sent again"
    return f"{who}: {what}"


def _named(party: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"{party} {names[0]}"
    return some_of(names).replace("clients", f"{party}s", 1)
