"""What each party may do on a virtual host: RabbitMQ's permissions and topic permissions, as data.

A permission is three regular expressions over the names of exchanges and queues; a topic
permission is two over the routing keys of one topic exchange. RabbitMQ searches with them, so each
is anchored, and every name in it is escaped. Without a topic permission for an exchange every key
may be used on it, so each party has one for each topic exchange that it writes to or binds from.

See https://www.rabbitmq.com/docs/access-control.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flmq.common.names import MAX_NAME_LENGTH
from flmq.provision.alternatives import any_of
from flmq.transport import (
    DEAD,
    MODELS,
    PARTIALS,
    PRESENCE,
    REGIONAL,
    REGIONAL_UPLOADS,
    REPLIES,
    TASKS,
    UPLOADS,
)
from flmq.transport.regional import (
    AGGREGATOR,
    aggregator_lock,
    aggregator_queue,
    partials_queue,
    regional_queue,
    regional_uploads_queue,
)

__all__ = [
    "NOTHING",
    "Rights",
    "TopicRight",
    "aggregator_rights",
    "client_rights",
    "link_rights",
    "observer_rights",
    "operator_rights",
    "server_rights",
]

NOTHING = "^$"
"""Matches no name: names are not empty, and those that are declared have no line breaks."""
_EVERYTHING = ".*"
_JOB = f"[A-Za-z0-9_-]{{1,{MAX_NAME_LENGTH}}}"
_PART_OF_JOB = "[A-Za-z0-9_-]*"
_SIZE = "!size"


@dataclass(frozen=True, slots=True)
class TopicRight:
    """The routing keys that a user may publish with to a topic exchange, and bind from it."""

    exchange: str
    write: str = NOTHING
    read: str = NOTHING


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do on one virtual host."""

    configure: str = NOTHING
    """What it may declare and delete."""
    write: str = NOTHING
    """Exchanges that it may publish to; queues that it may bind."""
    read: str = NOTHING
    """Queues that it may consume; exchanges that it may bind from."""
    topics: tuple[TopicRight, ...] = ()


def client_rights(site: str, client_ids: Sequence[str], *, aggregated: bool = False) -> Rights:
    """Return the rights of a user that speaks for ``client_ids`` at ``site``, and for nobody else.

    It consumes their queues, reads models, and publishes under their routing keys; it declares,
    binds and sees nothing. Where its site has an aggregator (``aggregated``), it may send its
    replies there, else only its notes to itself go by the site's own exchange: each permission of
    ten thousand users takes a broker some ten seconds.
    """
    own = rf"{re.escape(site)}\.{any_of([_word(each) for each in client_ids])}"
    chunks = rf"^{own}\.({_JOB}|{_SIZE})$"
    uploads = (REGIONAL_UPLOADS,) if aggregated else ()
    return Rights(
        write=_names(REPLIES, UPLOADS, PRESENCE, REGIONAL, *uploads),
        read=rf"^flmq\.(models|client\.{any_of(client_ids)})$",
        topics=(
            TopicRight(REPLIES, rf"^{own}\.{_JOB}$"),
            TopicRight(UPLOADS, chunks),
            TopicRight(PRESENCE, f"^{own}$"),
            TopicRight(REGIONAL, rf"^{own}(\.{_JOB})?$" if aggregated else f"^{own}$"),
            *(TopicRight(exchange, rf"^{own}\.{_JOB}$") for exchange in uploads),
            # It reads the stream of that name, and so might bind from the exchange of that name: to
            # presence, which would get every chunk of every model.
            TopicRight(MODELS),
        ),
    )


def aggregator_rights(site: str, parent: str | None = None, below: Sequence[str] = ()) -> Rights:
    """Return the rights of the aggregator of ``site``.

    ``parent`` is the site above, whose aggregator may want its partial sums; ``below`` are the
    sites whose aggregators it gives orders. It sends the replies of its site's clients on, under
    their keys, so it may use the keys of the whole site, and of no other.
    """
    here = re.escape(site)
    chunks = rf"^{here}\.[^.]+\.({_JOB}|{_SIZE})$"
    lock = re.escape(aggregator_lock(site))
    # A second one listens, on a queue beside the lock, to which process the first is.
    ears = rf"{lock}(\.[A-Za-z0-9_-]+)?"
    queues = _alternatives(
        aggregator_queue(site),
        regional_queue(site),
        regional_uploads_queue(site),
        partials_queue(site),
        MODELS,
        PRESENCE,
    )
    above = rf"{re.escape(parent or '')}\.{here}\.({_JOB}|{_SIZE})"
    orders = rf"^{any_of(below)}\.{AGGREGATOR}$" if below else NOTHING
    return Rights(
        configure=f"^{ears}$",
        write=rf"^({_alternatives(TASKS, REPLIES, UPLOADS, PARTIALS, PRESENCE, DEAD)}|{ears})$",
        read=rf"^({queues}|{ears})$",
        topics=(
            TopicRight(TASKS, orders),
            TopicRight(REPLIES, rf"^{here}\.[^.]+\.{_JOB}$"),
            TopicRight(UPLOADS, chunks),
            TopicRight(PARTIALS, rf"^({above}|{here}\.{AGGREGATOR}\.{_SIZE})$"),
            TopicRight(PRESENCE, rf"^{here}\.{AGGREGATOR}$", rf"^{here}\.{AGGREGATOR}$"),
            TopicRight(MODELS),
        ),
    )


def server_rights(jobs: Collection[str]) -> Rights:
    """Return the rights of a server of ``jobs``: names, in which ``*`` stands for any characters.

    It declares and binds the queues of its jobs, sends tasks to every client, and models of its
    jobs; of other jobs it hears presence, which every server needs, and nothing else.
    """
    job = _jobs(jobs)
    queues = rf"flmq\.(lock|presence|replies|uploads)\.{job}"
    heard = rf"^\*\.\*\.{job}$"
    return Rights(
        configure=f"^{queues}$",
        write=rf"^({_alternatives(TASKS, MODELS, DEAD)}|{queues})$",
        read=rf"^({_alternatives(REPLIES, UPLOADS, PRESENCE, DEAD)}|{queues})$",
        topics=(
            TopicRight(TASKS, r"^([^.]+\.[^.]+(\.model)?|!size)$"),
            TopicRight(MODELS, f"^{job}$"),
            TopicRight(REPLIES, NOTHING, heard),
            TopicRight(UPLOADS, NOTHING, heard),
            TopicRight(PRESENCE, NOTHING, "^#$"),
        ),
    )


def observer_rights() -> Rights:
    """Return the rights of a user who looks on through the management API: none on messages."""
    return Rights()


def operator_rights() -> Rights:
    """Return the rights of a person who runs the virtual host: all."""
    return Rights(_EVERYTHING, _EVERYTHING, _EVERYTHING)


def link_rights(exchanges: Sequence[str]) -> Rights:
    """Return the rights of another broker that fetches what is published to ``exchanges`` here.

    RabbitMQ declares a queue and two exchanges a link, and binds them.
    """
    buffers = r"federation: flmq\.[a-z.]+ -> .*"
    return Rights(
        configure=f"^{buffers}$",
        write=f"^{buffers}$",
        read=rf"^({_alternatives(*exchanges)}|{buffers})$",
    )


def _word(client_id: str) -> str:
    """Return the word of a client in routing keys, whose words have no dots."""
    return client_id.replace(".", "/")


def _names(*names: str) -> str:
    return f"^({_alternatives(*names)})$"


def _alternatives(*names: str) -> str:
    return "|".join(re.escape(name) for name in names)


def _jobs(jobs: Collection[str]) -> str:
    patterns = {
        _PART_OF_JOB.join(re.escape(part) for part in each.split("*")) if each != "*" else _JOB
        for each in jobs
    }
    return f"({'|'.join(sorted(patterns))})"
