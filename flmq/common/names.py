"""Names of clients and jobs: check them, and make valid ones.

They are part of queue names, routing keys and permissions on the broker, hence the narrow alphabet.
A client id may besides be a host name with its dots, as certificates have them; 64 characters are
what X.509 allows a common name.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
from datetime import datetime

from flmq.common.errors import InvalidClientId, InvalidJobName

__all__ = [
    "MAX_NAME_LENGTH",
    "check_client_id",
    "check_job_name",
    "host_name",
    "is_name",
    "make_client_id",
    "make_job_name",
]

MAX_NAME_LENGTH = 64

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_LENGTH}}}")
_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_UNUSABLE = re.compile(r"[^A-Za-z0-9_-]+")

_ADJECTIVES = (
    "amber brave brisk calm clear cosy crisp deft eager early fair fleet fond fresh gentle glad "
    "golden grand hardy honest humble jolly keen kind lively lucid lucky mellow merry mild modest "
    "neat nimble noble patient placid plain plucky polite prime proud quick quiet rapid ready "
    "robust sage serene sharp silver sincere snug solid spry steady sunny supple swift tidy true "
    "vivid warm wise witty"
)
_NOUNS = (
    "acorn alder aspen badger beaver birch bison brook canyon cedar cliff cloud comet coral crane "
    "creek delta dune eagle elm falcon fern finch fjord forest glacier grove harbor hare hawk "
    "heron hill island ivy juniper kestrel lagoon lake lark lichen linden lynx maple marten "
    "meadow mesa moose oak orchid otter owl pebble pine plover raven reef ridge river robin "
    "sparrow spruce stream tern willow"
)


def is_name(text: str) -> bool:
    """Return whether ``text`` may name a job or a site, neither of which has dots."""
    return _NAME.fullmatch(text) is not None


def check_client_id(client_id: str) -> str:
    """Return ``client_id`` if it is valid: 1 to 64 of ``A-Z a-z 0-9 . _ -``.

    It neither begins nor ends with a dot, and has no two in a row: so it is the name of one folder,
    and never the way to another.

    Raises:
        InvalidClientId: it is not.
    """
    if not isinstance(client_id, str):
        raise InvalidClientId(repr(client_id))
    if len(client_id) > MAX_NAME_LENGTH or _CLIENT_ID.fullmatch(client_id) is None:
        raise InvalidClientId(client_id)
    return client_id


def check_job_name(job: str) -> str:
    """Return ``job`` if it is valid: 1 to 64 of ``A-Z a-z 0-9 _ -``.

    Raises:
        InvalidJobName: it is not.
    """
    if not isinstance(job, str) or _NAME.fullmatch(job) is None:
        raise InvalidJobName(job if isinstance(job, str) else repr(job))
    return job


def make_client_id() -> str:
    """Make a client id from host, process and randomness, different at each call.

    Host and process alone are not enough: containers may share both, and a process may run two
    clients.
    """
    tail = f"-{os.getpid()}-{secrets.token_hex(3)}"
    return check_client_id(host_name()[: MAX_NAME_LENGTH - len(tail)] + tail)


def host_name() -> str:
    """Return this host's name in the alphabet of client ids; "host" if nothing is left of it."""
    return _UNUSABLE.sub("-", socket.gethostname()).strip("-") or "host"


def make_job_name(now: datetime | None = None, rng: random.Random | None = None) -> str:
    """Make a readable job name, such as ``20250131-142501-brave-otter``.

    ``now`` is the local time and ``rng`` the system's randomness unless given; the random words
    distinguish jobs that start in the same second.
    """
    now = datetime.now() if now is None else now
    rng = random.SystemRandom() if rng is None else rng
    words = f"{rng.choice(_ADJECTIVES.split())}-{rng.choice(_NOUNS.split())}"
    return check_job_name(f"{now:%Y%m%d-%H%M%S}-{words}")
