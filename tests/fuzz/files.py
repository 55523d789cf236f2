"""Files and texts: run folders, spools, records, models, federation.toml, URLs, answers."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from flmq.broker.management import Management
from flmq.broker.policies import dropping_policies
from flmq.client.client_ids import Share, client_ids_of
from flmq.client.tasks.spool import TaskSpool
from flmq.common import NDArrays, ndarrays_to_parameters
from flmq.common.errors import BrokerError, StoredDataError, UsageError
from flmq.common.model_files import load_parameters, save_parameters
from flmq.common.urls import parse_broker_url, redact_url
from flmq.journal import Journal
from flmq.journal.runs import look_at
from flmq.journal.state import decode_state, encode_state
from flmq.observe.record import load_record
from flmq.observe.recorder import RunRecorder
from flmq.server.presence.allow_list import read_allow_list
from flmq.sites import brokers
from flmq.sites.federation import Federation
from flmq.sites.reading import read_federation
from flmq.wire import Reply, Task, encode
from tests.fuzz.harness import Target
from tests.fuzz.values import mutated_bytes, mutated_text
from tests.journal.runs import begun, end_round, play_round, told
from tests.observe.synthetic import whole_run
from tests.wire.cases import BODIES

__all__ = ["file_targets"]

_TOML = b"""
[links]
prefetch = 8

[[site]]
name = "main"
url = "amqp://flmq:${PASSWORD}@hub.example:5672/vhost"
management_url = "https://flmq:${PASSWORD}@hub.example:15671"

[[site]]
name = "eu-west"
parent = "main"
url = "amqps://eu.example"
vhost = "fed"
link = { prefetch = 8, expires_days = 7 }
"""
_URLS = (
    b"amqp://user:pass%40word@host:5672/vhost?heartbeat=30",
    b"amqps://alice@[::1]:5671/%2F?cafile=/etc/ca.pem&certfile=a&keyfile=b",
    b"amqp://",
)
_IDS = b"alice\nbob # of Berlin\n\n# nobody\ncarol-2\n"
_STATE: dict[str, Any] = {
    "momentum": np.arange(6.0).reshape(2, 3),
    "nested": {"list": [1, 2.5, None, True, "text", b"raw"], "tuple": (1, 2)},
    "big": 2**80,
    "nan": float("nan"),
    "rng": np.random.default_rng(1),
}
_ANSWERS: tuple[object, ...] = (
    {"name": "flmq@host", "arguments": {"x-queue-type": "classic"}, "durable": True},
    [{"name": "flmq.sites.up", "value": {"uri": ["amqp://x"]}, "apply-to": "all"}],
    {"items": [{"name": "federation: flmq.tasks -> x", "messages": 3}], "page_count": 1},
    [{"routing_key": "#", "definition": {"message-ttl": 5}, "pattern": ".*"}],
    [],
    None,
)


def file_targets(folder: Path) -> list[Target]:
    """Return the targets of files, which are written below ``folder``, and of other texts."""
    folder.mkdir(parents=True, exist_ok=True)
    of_users, stored = (UsageError,), (StoredDataError,)
    return [
        _file(folder / "f.toml", _TOML, _read_sites, of_users, mutated_text),
        _file(folder / "ids.txt", _IDS, read_allow_list, of_users, mutated_text, 0.5),
        _file(folder / "history.json", _record(folder), load_record, stored, mutated_text, 0.5),
        *(_model(folder / f"model{ending}") for ending in (".npz", ".safetensors")),
        _journal(folder),
        _spool(folder),
        Target("state of a strategy", [encode_state(_STATE)], decode_state, stored, mutated_text),
        Target("broker's URL", _URLS, _read_url, of_users, mutated_text, 2.0),
        Target("client ids", [b"alice", b"alice,bob", b"1/4"], _read_ids, of_users,
               mutated_text),
        _answers(folder),
    ]  # fmt: skip


def _file(
    path: Path,
    seed: bytes,
    read: Callable[[Path], object],
    errors: tuple[type[BaseException], ...],
    mutate: Callable[[random.Random, bytes], bytes],
    weight: float = 1.0,
) -> Target:
    def written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return Target(path.name, [seed], written, errors, mutate, weight)


def _read_sites(path: Path) -> Federation:
    return read_federation(path, {"PASSWORD": "secret", "HOME": "/"})


def _read_url(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    redact_url(text)
    url = parse_broker_url(text)
    assert parse_broker_url(url.full) == url


def _read_ids(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if "/" in text and not text.startswith("@"):
        Share.parse(text)
    elif not text.startswith("@"):
        client_ids_of(text.split(","))


def _record(folder: Path) -> bytes:
    recorder = RunRecorder(folder)
    for event in whole_run(3):
        recorder(event)
    (written,) = folder.glob("*/history.json")
    data = written.read_bytes()
    shutil.rmtree(written.parent)
    return data


def _model(path: Path) -> Target:
    tensors: NDArrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3), np.array(True)]
    save_parameters(ndarrays_to_parameters(tensors, names=("a", "b.w", "b.bias")), path)
    return _file(path, path.read_bytes(), load_parameters, (UsageError,), mutated_bytes)


def _journal(folder: Path) -> Target:
    """A run's folder: a file of it is damaged, and the run looked at and opened."""
    whole, work = folder / "whole", folder / "run"
    journal = begun(whole)
    end_round(journal, 0)
    play_round(journal, 1)
    journal.close()
    names = sorted(each.relative_to(whole) for each in whole.rglob("*") if each.is_file())
    files = {name: (whole / name).read_bytes() for name in names}

    def read(data: bytes) -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(whole, work)
        (work / names[data[0] % len(names)]).write_bytes(data[1:])
        look_at(work)
        opened = Journal.open(work)
        try:
            told(opened)
        finally:
            opened.close()

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return data[:1] + mutated_bytes(rng, data[1:])

    seeds = [bytes([place]) + files[name] for place, name in enumerate(names)]
    return Target("run folder", seeds, read, (StoredDataError,), mutate, 0.05)


def _spool(folder: Path) -> Target:
    """A client's spool: a task and a reply, damaged behind the back of the digest at their end."""
    bodies = BODIES.values()
    tasks = [encode(replace(body, task_id="t")) for body in bodies if isinstance(body, Task)]
    replies = [encode(replace(body, task_id="t")) for body in bodies if isinstance(body, Reply)]
    place = folder / "spool"

    def read(data: bytes) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        ending, body = (".task", data) if data[:1] == b"\x08" else (".reply", data)
        sealed = {".task": tasks[0], ".reply": replies[0], ending: body}
        for name, content in sealed.items():
            seal = hashlib.sha256(content).digest()
            (place / f"t{name}").write_bytes(content + seal)
        spool = TaskSpool(place)
        for task in spool.left_over():
            spool.reply_of(task.task_id)

    return Target("spool", tasks + replies, read, (), mutated_bytes, 0.3)


def _answers(folder: Path) -> Target:
    path = folder / "sites.toml"
    path.write_bytes(_TOML)
    federation = _read_sites(path)

    def read(data: bytes) -> None:
        answer = json.loads(data)
        api = mock.Mock(spec=Management)
        api.call.return_value = answer
        sites = Federation(tuple(replace(site, management=api) for site in federation))
        for site in sites:
            brokers.look(sites, site)
        dropping_policies(api, "/")

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return json.dumps(_changed(rng, json.loads(data))).encode()

    seeds = [json.dumps(each).encode() for each in _ANSWERS]
    return Target(
        "management API's answers", seeds, read, (BrokerError,), mutate, 0.3, are_valid=False
    )


def _changed(rng: random.Random, value: Any) -> Any:
    """Put something of another type somewhere."""
    if rng.random() < 0.3 or not isinstance(value, list | Mapping) or not value:
        return rng.choice((None, 0, -1, 1e308, "", "x", [], {}, [None], [[]], {"name": None}, True))
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [_changed(rng, each) if at == place else each for at, each in enumerate(value)]
    place = rng.choice(sorted(value))
    if rng.random() < 0.2:
        return {key: each for key, each in value.items() if key != place}
    return {**value, place: _changed(rng, value[place])}
