"""The brokers of sites, through their management APIs: what stands there, and changes to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flmq.broker.management import Management, NoSuchThing
from flmq.common.errors import BrokerError, BrokerRefusal
from flmq.common.failure_text import named_error
from flmq.sites.federation import Federation, Site
from flmq.sites.plan import Change, Sign, Standing, plan_apply
from flmq.sites.wanted import COMPONENTS, OURS, Item, Kind, wanted
from flmq.transport.topology import AMOUNTS

__all__ = [
    "FEDERATION_PLUGINS_MEND",
    "NoVirtualHost",
    "buffers",
    "carry_out",
    "look",
    "look_at_all",
    "naming",
    "planned",
]

FEDERATION_PLUGINS_MEND = (
    "rabbitmq-plugins enable rabbitmq_federation rabbitmq_federation_management"
)
"""The command that enables what links need, on the machine of a broker."""
_PAGE = 500


class NoVirtualHost(BrokerRefusal):
    """The virtual host of a federation is not there."""


def look(federation: Federation, site: Site) -> Standing:
    """Return what stands on a site's broker, in some twenty calls, however many clients it has.

    Raises:
        BrokerUnavailable: the management API does not answer.
        BrokerAccessRefused: it refuses the login.
        BrokerRefusal: it refuses a call: the virtual host does not exist, for one.
    """
    with naming(site):
        api, vhost = site.management, quote(site.vhost, safe="")
        _check_vhost(site, vhost)
        items = [
            *(found for item in wanted(federation, site) if (found := _found(api, vhost, item))),
            *_parameters(api, vhost),
            *_policies(api, vhost),
            *buffers(site),
        ]
        cluster = str(api.call("GET", "/api/cluster-name")["name"])
    return Standing({(item.kind, item.name): item for item in items}, cluster)


def look_at_all(
    federation: Federation, names: Collection[str]
) -> tuple[dict[str, Standing], dict[str, BrokerError]]:
    """Look at the sites ``names``; return what stands there, and what went wrong, by site."""
    standing: dict[str, Standing] = {}
    wrong: dict[str, BrokerError] = {}
    for site in federation:
        if site.name in names:
            try:
                standing[site.name] = look(federation, site)
            except BrokerError as error:
                wrong[site.name] = error
    return standing, wrong


def planned(federation: Federation, names: Collection[str]) -> tuple[Change, ...]:
    """Return what makes the brokers of the sites ``names`` as ``federation`` wants them.

    Raises:
        BrokerError: as for `look`; or an exchange or a queue cannot be what it must be.
    """
    standing, wrong = look_at_all(federation, names)
    if wrong:
        raise next(iter(wrong.values()))
    return plan_apply(federation, standing)


def carry_out(
    federation: Federation,
    changes: Collection[Change],
    tell: Callable[[Change], object] = lambda _: None,
) -> None:
    """Make ``changes`` in their order, and ``tell`` of each; made again, they change nothing.

    Raises:
        BrokerError: one cannot be made; those before it are.
    """
    for change in changes:
        site = federation[change.site]
        vhost = quote(site.vhost, safe="")
        with naming(site):
            if change.sign is Sign.REMOVE:
                _remove(site.management, vhost, change.item)
            else:
                _make(site.management, vhost, change.item)
        tell(change)


def buffers(site: Site) -> list[Item]:
    """Return the buffers on a site's broker, with the messages that wait in each.

    Raises:
        BrokerError: as for `look`.
    """
    found: list[Item] = []
    page = pages = 1
    while page <= pages:
        asked = {
            "page": page,
            "page_size": _PAGE,
            "name": "^federation: flmq",
            "use_regex": "true",
            "columns": "name,messages",
        }
        path = f"/api/queues/{quote(site.vhost, safe='')}?{urlencode(asked)}"
        answer = site.management.call("GET", path)
        found += (
            Item(Kind.BUFFER, each["name"], {"messages": each.get("messages", 0)})
            for each in answer["items"]
        )
        page, pages = page + 1, answer["page_count"]
    return found


@contextlib.contextmanager
def naming(site: Site) -> Iterator[None]:
    """Say in errors of the broker which site it is."""
    try:
        yield
    except BrokerError as error:
        kind = BrokerRefusal if isinstance(error, NoSuchThing) else type(error)
        raise kind(f"site {site.name!r}: {error}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BrokerRefusal(
            f"site {site.name!r}: what answers at {site.management.shown_url} is no management API "
            f"of RabbitMQ: its answer has another form ({named_error(error)})"
        ) from error


def _check_vhost(site: Site, vhost: str) -> None:
    try:
        # The virtual host itself is shown to administrators alone.
        site.management.call("GET", f"/api/exchanges/{vhost}?page=1&page_size=1")
    except NoSuchThing:
        raise NoVirtualHost(
            f"there is no virtual host {site.vhost!r}: rabbitmqctl add_vhost {site.vhost}; "
            f"rabbitmqctl set_permissions -p {site.vhost} {site.url.user} '.*' '.*' '.*'"
        ) from None


def _found(api: Management, vhost: str, item: Item) -> Item | None:
    """Return what stands there by the name of an exchange, queue or binding that is wanted."""
    if item.kind not in (Kind.EXCHANGE, Kind.QUEUE, Kind.BINDING):
        return None  # these are listed: there may be others than those that are wanted
    try:
        there, value = api.call("GET", _path(vhost, item)), item.value
    except NoSuchThing:
        return None
    if item.kind is Kind.EXCHANGE:
        return Item(item.kind, item.name, {key: there[key] for key in value})
    if item.kind is Kind.QUEUE:
        same = there["durable"] and _kind_of(there["arguments"]) == _kind_of(value["arguments"])
        return item if same else Item(item.kind, item.name, {"arguments": there["arguments"]})
    keys = (each["routing_key"] for each in there)
    return item if value["routing_key"] in keys else None


def _kind_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a queue's arguments without those that only limit an amount."""
    return {key: value for key, value in arguments.items() if key not in AMOUNTS}


def _parameters(api: Management, vhost: str) -> Iterator[Item]:
    for kind, component in COMPONENTS.items():
        try:
            found = api.call("GET", f"/api/parameters/{component}/{vhost}") or []
        except NoSuchThing:
            continue  # the plugin is not enabled
        for each in found:
            if each["name"].startswith(OURS):
                yield Item(kind, each["name"], {"value": each["value"]})


def _policies(api: Management, vhost: str) -> Iterator[Item]:
    for each in api.call("GET", f"/api/policies/{vhost}") or []:
        if each["name"].startswith(OURS):
            keys = ("pattern", "apply-to", "priority", "definition")
            yield Item(Kind.POLICY, each["name"], {key: each[key] for key in keys})


def _path(vhost: str, item: Item) -> str:
    name = quote(item.name, safe="")
    match item.kind:
        case Kind.EXCHANGE:
            return f"/api/exchanges/{vhost}/{name}"
        case Kind.QUEUE | Kind.BUFFER:
            return f"/api/queues/{vhost}/{name}"
        case Kind.POLICY:
            return f"/api/policies/{vhost}/{name}"
        case Kind.BINDING:
            source, destination = (
                quote(item.value[end], safe="") for end in ("source", "destination")
            )
            return f"/api/bindings/{vhost}/e/{source}/{item.value['to']}/{destination}"
        case Kind.UPSTREAM | Kind.UPSTREAM_SET:
            return f"/api/parameters/{COMPONENTS[item.kind]}/{vhost}/{name}"


def _make(api: Management, vhost: str, item: Item) -> None:
    path = _path(vhost, item)
    if item.kind is Kind.BINDING:
        api.call("POST", path, {"routing_key": item.value["routing_key"]})
        return
    try:
        api.call("PUT", path, item.value)
    except BrokerRefusal as error:
        if "component" in str(error) and "not found" in str(error):
            raise BrokerRefusal(
                f"its broker has no plugin for links: {FEDERATION_PLUGINS_MEND}"
            ) from None
        raise


def _remove(api: Management, vhost: str, item: Item) -> None:
    # RabbitMQ removes a buffer by itself where the link to it still runs.
    with contextlib.suppress(NoSuchThing):
        api.call("DELETE", _path(vhost, item))
    if item.kind is Kind.BUFFER:
        for generation in ("A", "B"):
            exchange = quote(f"{item.name} {generation}", safe="")
            with contextlib.suppress(NoSuchThing):
                api.call("DELETE", f"/api/exchanges/{vhost}/{exchange}")
