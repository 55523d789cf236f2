"""A strategy's own look at a reply: one that it refuses is rejected, and the round goes on."""

from __future__ import annotations

from flmq.common import FitRes
from flmq.observe.events import ClientOutcome, Outcome
from flmq.server.strategy import FedAvg
from tests.dataplane.looks import mean_of
from tests.end_to_end.federation import Federation, initial


class NoTwos(FedAvg):
    """Refuses replies of a weight that only "c" has."""

    def check_fit_res(self, res: FitRes) -> str | None:
        return f"weight is {res.metrics['weight']!r}: not wanted" if res.num_examples == 2 else None


def test_a_reply_that_a_strategy_refuses_is_rejected_with_its_reason(
    memory_federation: Federation,
) -> None:
    strategy = NoTwos(
        fraction_evaluate=0.0,
        min_fit_clients=3,
        min_available_clients=3,
        initial_parameters=initial(),
    )
    memory_federation.serve("a", "b", "c")
    server = memory_federation.run(strategy)
    assert server.model() == mean_of("ab", initial())
    rejected = [
        event for event in server.watch.of(ClientOutcome) if event.outcome is Outcome.REJECTED
    ]
    assert [(event.client_id, event.reason) for event in rejected] == [
        ("c", "weight is 2.0: not wanted")
    ]


def test_one_that_fails_refuses_the_reply_and_not_the_run(memory_federation: Federation) -> None:
    class Broken(FedAvg):
        def check_fit_res(self, res: FitRes) -> str | None:
            return str(1 / 0)

    memory_federation.serve("a", "b")
    strategy = Broken(fraction_evaluate=0.0, initial_parameters=initial())
    server = memory_federation.run(strategy)
    assert server.model() == b"".join(initial().tensors)
    reasons = {event.reason for event in server.watch.of(ClientOutcome)}
    assert reasons == {"Broken.check_fit_res failed: ZeroDivisionError: division by zero"}
