"""Several users of the asks at once: rounds, direct calls, and a stream."""

from __future__ import annotations

from pathlib import Path

from flmq.common import EvaluateIns, GetPropertiesIns
from flmq.common.phase import Phase
from flmq.server import SimpleClientManager, StreamServer
from flmq.server.asks.stream import Answer, AskStream
from tests.end_to_end.federation import Federation, fed_avg
from tests.transport.rigs import PATIENCE

CLIENTS = ("a", "b")


class Everything(StreamServer):
    """Trains in rounds, while a stream of evaluations runs beside, and calls clients meanwhile."""

    def __init__(self) -> None:
        super().__init__(client_manager=SimpleClientManager(), strategy=fed_avg(2))
        self.answers: list[Answer] = []

    def run(self, stream: AskStream, num_rounds: int) -> None:
        runner = self._phases.runner
        measured = runner.stream(Phase.EVALUATE)  # type: ignore[union-attr]
        assert self.client_manager().wait_for(2, int(PATIENCE))
        clients = self.client_manager().all()
        while self.rounds_closed < num_rounds:
            number = self.rounds_closed + 1
            for name in CLIENTS:
                measured.ask(name, EvaluateIns(self.parameters, {}), number)
            said = clients["a"].get_properties(GetPropertiesIns({}), PATIENCE, number)
            assert "get_properties" in said.status.message  # it has none, and says so
            trained = self.fit_round(number, PATIENCE)  # a round's training, as ever
            assert trained is not None
            assert trained[0] is not None
            self.answers += measured
            self.step(trained[0], num_rounds)


def test_a_round_a_direct_call_and_a_stream_run_beside_each_other(
    memory_federation: Federation, tmp_path: Path
) -> None:
    memory_federation.serve(*CLIENTS)
    undisturbed = memory_federation.run(fed_avg(2), rounds=2, job="rounds").model()
    server = Everything()
    running = memory_federation.run(server=server, rounds=2, runs_dir=tmp_path)
    assert running.model() == undisturbed
    assert [closed.fit.accepted for closed in running.watch.rounds()] == [2, 2]
    said = sorted((answer.client_id, answer.server_round) for answer in server.answers)
    assert said == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert all(answer.res is not None for answer in server.answers)
