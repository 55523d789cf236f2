"""The journal as its server uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.common import FitIns, Parameters
from flmq.common.phase import Phase
from flmq.journal import JobIdentity, Journal, PhaseKey, Plan, PlannedAsk
from flmq.round import Policy
from flmq.server.resumption.job_journal import JobJournal
from flmq.wire import Task, encode
from flmq.wire.budget import MAX_ENVELOPE_BYTES


def test_a_plan_that_an_earlier_flmq_wrote_with_a_clients_own_model_in_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ins = FitIns(Parameters([bytes(MAX_ENVELOPE_BYTES)], "raw"), {})
    with monkeypatch.context() as earlier:
        earlier.setattr("flmq.wire.codec.check_budget", lambda body, kind: None)
        task = encode(Task("t", "job", 1, Phase.FIT, "a", 1, b"", ins))
    journal = Journal.open(tmp_path)
    journal.begin(JobIdentity("job", "run", b"secret", 7), {}, {})
    journal.take_charge()
    key = PhaseKey(1, Phase.FIT)
    plan = Plan((PlannedAsk("a", "t", task, None),), None, Policy(min_results=0), {})
    journal.phases.open(key, plan)
    planned = JobJournal(journal).planned(key)
    assert planned is not None
    assert [(ask.client_id, ask.ins) for ask in planned.asks] == [("a", ins)]
    journal.close()
