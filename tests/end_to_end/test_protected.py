"""Jobs protected from end to end: the same bits, and each end says what the other lacks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flmq.client.options import WorkerOptions
from flmq.client.secure.keys import ClientKeys
from flmq.e2e.keys import roster_digest
from flmq.observe.events import ClientOutcome, Outcome
from tests.end_to_end.federation import Federation, RunningServer, fed_avg, initial, nudge
from tests.security.federations import CLIENTS, identity, job_keys
from tests.transport.rigs import PATIENCE, MemoryRig

LARGE = 600_000
"""Numbers of a model that goes in three chunks, as do its replies."""


def keys(*clients: str, server: str = "server", roster: Sequence[str] | None = None) -> ClientKeys:
    return ClientKeys(
        {name: identity(name) for name in clients},
        (identity(server).public,),
        None if roster is None else roster_digest(identity(name).public for name in roster),
    )


def options(*clients: str, state_dir: Path | None = None, server: str = "server") -> WorkerOptions:
    return WorkerOptions(heartbeat=1.0, keys=keys(*clients, server=server), state_dir=state_dir)


def run(
    federation: Federation, size: int = 5, *, protected: bool = True, clients: int = 3
) -> RunningServer:
    strategy = fed_avg(clients, initial_parameters=initial(size), fraction_evaluate=1.0)
    return federation.run(
        strategy, rounds=2, timeout=None, protection=job_keys() if protected else None
    )


def plain_bits(size: int) -> bytes:
    """The model that a plain run over the memory transport comes to."""

    rig = MemoryRig()
    federation = Federation(rig)
    try:
        federation.serve(*CLIENTS)
        return run(federation, size, protected=False).model()
    finally:
        federation.close()
        rig.close()


@pytest.mark.parametrize("size", [5, LARGE], ids=["inline", "in chunks"])
def test_the_bits_are_those_of_a_plain_run(federation: Federation, size: int) -> None:
    for name in CLIENTS:
        federation.serve(name, options=options(name))
    server = run(federation, size)
    assert server.model() == plain_bits(size)
    accepted = [one for one in server.watch.of(ClientOutcome) if one.outcome is Outcome.ACCEPTED]
    assert len(accepted) == 2 * 2 * len(CLIENTS)


def test_many_clients_of_one_process_speak_each_for_itself(federation: Federation) -> None:
    federation.worker({name: {} for name in CLIENTS}, nudge, options(*CLIENTS))
    assert run(federation).model() == plain_bits(5)


def test_a_client_that_is_started_again_sends_what_it_has_kept(
    federation: Federation, tmp_path: Path
) -> None:
    """It has no key to seal to until the server greets it."""
    for name in CLIENTS:
        federation.serve(name, options=options(name, state_dir=tmp_path))
    server = run(federation, LARGE)
    for name in CLIENTS:
        server.watch.wait_for(ClientOutcome, lambda one: one.client_id == "a")
        federation.workers[name].stop()
        federation.serve(name, options=options(name, state_dir=tmp_path))
    assert server.model() == plain_bits(LARGE)
    assert not list(tmp_path.glob("*/spool"))


def waited(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("worker", "protected", "said"),
    [
        (WorkerOptions(heartbeat=0.2), True, ["there are no keys here: start this client with"]),
        (
            WorkerOptions(heartbeat=0.2, keys=keys("a")),
            False,
            ["serves only jobs that are protected", "client 'a' takes part only in jobs that are"],
        ),
        (options("a", server="other"), True, ["run by 'server', whose key is not pinned here"]),
        (
            WorkerOptions(heartbeat=0.2, keys=keys("a", roster=["a"])),
            True,
            ["is for other clients than those of --roster"],
        ),
    ],
    ids=["client without keys", "job without keys", "server not pinned", "other roster"],
)
def test_each_end_says_once_what_the_other_lacks(
    memory_federation: Federation,
    caplog: pytest.LogCaptureFixture,
    worker: WorkerOptions,
    protected: bool,
    said: list[str],
) -> None:
    asked: list[str] = []

    def source(context: object) -> object:
        asked.append("a client was made")
        return nudge(context)

    with caplog.at_level(logging.WARNING, "flmq"):
        wrong = memory_federation.worker({"a": {}}, source, worker)  # type: ignore[arg-type]
        server = run(memory_federation, protected=protected)
        for name in ("b", "c"):
            memory_federation.serve(name, options=right(name, protected))
        for words in said:
            assert waited(lambda words=words: words in caplog.text)  # type: ignore[misc]
        assert asked == []
        wrong.stop()
        memory_federation.serve("a", options=right("a", protected))
        assert server.model() == plain_bits(5)
    for words in said:
        assert sum(words in record.getMessage() for record in caplog.records) == 1


def right(name: str, protected: bool) -> WorkerOptions:
    return options(name) if protected else WorkerOptions(heartbeat=1.0)


def test_a_client_that_is_not_trusted_takes_no_part_and_is_named(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flmq"):
        for name in ("stranger", *CLIENTS):
            memory_federation.serve(name, options=options(name))
        server = run(memory_federation)
        assert server.model() == plain_bits(5)
        assert waited(lambda: "'stranger' is not among the 3 that job 'job' trusts" in caplog.text)
    assert not [one for one in server.watch.of(ClientOutcome) if one.client_id == "stranger"]
