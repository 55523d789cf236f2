"""What servers can do that clients do not trust, and what becomes of clients that servers do not.

All on one virtual host, where everybody hears everybody's presence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from flmq.observe.events import ClientPresence, Note
from flmq.testing import fast_retries
from tests.end_to_end.federation import Federation, fed_avg, initial, nudge
from tests.security.federations import CLIENTS, job_keys, protected_worker, verdict
from tests.transport.rigs import PATIENCE, MemoryRig, eventually

START = initial()


@pytest.fixture
def memory_federation() -> Iterator[Federation]:
    with fast_retries():
        rig = MemoryRig()
        made = Federation(rig)
        yield made
        made.close()
        rig.close()


def _said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return any(words in record.getMessage() for record in caplog.records)


def test_a_server_whose_key_is_not_pinned_makes_nobody_train(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    """It knows the clients' public keys, hears them, and signs: none answers it."""
    caplog.set_level(logging.WARNING, "flmq")
    evil = memory_federation.run(
        fed_avg(1, initial_parameters=START), job="evil", protection=job_keys("mallory")
    )
    for name in CLIENTS:
        memory_federation.workers[name] = protected_worker(memory_federation, name)
    eventually(lambda: _said(caplog, "'mallory', whose key is not pinned here"))
    good = memory_federation.run(
        fed_avg(3, initial_parameters=START), rounds=2, protection=job_keys()
    )
    good.history()
    verdict(good, START, all_count=True)
    assert evil.watch.of(ClientPresence) == []
    assert not evil.result.done()


def test_a_server_without_keys_makes_no_protected_client_train(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "flmq")
    plain = memory_federation.run(fed_avg(1, initial_parameters=START), job="plain")
    memory_federation.workers["a"] = protected_worker(memory_federation, "a")
    eventually(lambda: _said(caplog, "client 'a' takes part only in jobs that are protected"))
    eventually(lambda: _said(caplog, "start its server with --e2e, --keys and --trust"))
    assert plain.watch.of(ClientPresence) == []


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("without-keys", "speak without keys"),
        ("unknown", "have keys that this server does not trust"),
        ("anothers-key", "sign with another key than this server has for their names"),
    ],
)
def test_a_client_that_is_not_trusted_is_refused_by_name_and_told_what_to_do(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture, who: str, words: str
) -> None:
    caplog.set_level(logging.WARNING, "flmq")
    stranger = "c" if who == "anothers-key" else who
    server = memory_federation.run(
        fed_avg(2, initial_parameters=START), 1, protection=job_keys(clients=CLIENTS)
    )
    if who == "without-keys":
        memory_federation.serve(stranger, source=nudge)
    else:
        by = "mallory" if who == "anothers-key" else ""
        memory_federation.workers[stranger] = protected_worker(memory_federation, stranger, by=by)
    said = server.watch.wait_for(Note, lambda note: words in note.text)
    assert stranger in said.text
    eventually(lambda: _said(caplog, "--trust") or _said(caplog, "--server-key"), PATIENCE)
    for name in ("a", "b"):
        memory_federation.workers[name] = protected_worker(memory_federation, name)
    server.history()
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {"a", "b"}
