"""What stands beside a protected job: a live aggregator, and kinds of messages of one's own."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest

from flmq.common import ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.phase import Phase
from flmq.observe.events import Outcome, PhaseClosed, RoundCounts
from flmq.server.client_proxy import ClientProxy
from flmq.wire import INLINE_BYTES
from tests.end_to_end.federation import OK, Federation
from tests.end_to_end.test_kinds import (
    Aged,
    BlurIns,
    BlurRes,
    Blurring,
    asking,
    mean_of_ages,
)
from tests.end_to_end.test_protected import options
from tests.end_to_end.test_regional import CLIENTS, Aggregators, flat, mean_of, sums
from tests.security.federations import job_keys

_REPORTS = 0.6
"""Seconds in which an aggregator reports: the server knows it when it plans the first round."""


@pytest.mark.parametrize("size", [5, 40_000], ids=["small", "in chunks"])
def test_replies_pass_a_live_aggregator_by_and_both_ends_say_so_once(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    aggregators = Aggregators(federation)
    with caplog.at_level(logging.INFO, "flmq"):
        aggregators.start(tmp_path / "state")
        server = federation.run(mean_of(size), 2, protection=job_keys(clients=CLIENTS))
        time.sleep(_REPORTS)
        for name in CLIENTS:
            federation.serve(name, options=options(name))
        model = server.model()
        aggregators.stop()
    assert model == flat(2, size)
    assert sums(server) == []
    assert server.watch.words() == {client: [Outcome.ACCEPTED] * 2 for client in CLIENTS}
    for said in (
        "passed through the aggregators of main: replies are sealed to the server",
        "job 'job' is protected from end to end: its replies pass this aggregator by",
    ):
        assert sum(said in record.getMessage() for record in caplog.records) == 1, said
    assert "flmq.dead" not in caplog.text
    assert "start this client with" not in caplog.text


def test_a_kind_that_a_program_adds_is_asked_sealed_and_counted(federation: Federation) -> None:
    for name in ("a", "b"):
        federation.serve(
            name, source=lambda context: Aged(context.client_id), options=options(name)
        )
    strategy, came = asking(mean_of_ages, clients=2)
    server = federation.run(strategy, protection=job_keys())
    server.history()
    assert came == [(31 + 47 + 52) / 3]
    closed = [e for e in server.watch.of(PhaseClosed) if e.phase is Phase("mean_of_ages")]
    assert [each.counts for each in closed] == [RoundCounts(asked=1, accepted=1)] * 2
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=2)


def test_its_large_parameters_travel_apart_and_encrypted(federation: Federation) -> None:
    for name in ("a", "b"):
        federation.serve(
            name, source=lambda context: Blurring(context.client_id), options=options(name)
        )
    tensor = np.arange(INLINE_BYTES, dtype=np.float32)

    def blur(clients: list[ClientProxy]) -> list[BlurRes]:
        ins = BlurIns(ndarrays_to_parameters([tensor]), {"by": 0.5})
        return [client.ask(ins, timeout=30.0) for client in clients]

    strategy, came = asking(blur, clients=2)
    server = federation.run(strategy, protection=job_keys())
    server.history()
    (answers,) = came
    for client_id, res in zip("ab", answers, strict=True):
        assert (res.status, res.about) == (OK, {"client": client_id})
        (blurred,) = parameters_to_ndarrays(res.parameters)
        assert np.array_equal(blurred, tensor + np.float32(0.5))
