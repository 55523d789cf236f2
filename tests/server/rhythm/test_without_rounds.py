"""A run without rounds stops early, and calls callbacks, after its steps."""

from __future__ import annotations

from collections.abc import Mapping

from flmq.common import Parameters
from flmq.common.typing import Scalar
from flmq.server import Callback, History, ServerConfig
from flmq.server.strategy import FedBuff
from flmq.simulation import start_simulation
from tests.end_to_end.federation import initial, nudge


class Steps(Callback):
    def __init__(self) -> None:
        self.told: list[int] = []
        self.ended = ""

    def on_round_end(
        self, server_round: int, parameters: Parameters, metrics: Mapping[str, Scalar]
    ) -> None:
        self.told.append(server_round)

    def on_run_end(self, ended: object) -> None:
        self.ended = getattr(ended, "stopped_early", "")


def test_a_run_without_rounds_stops_after_the_step_in_which_it_is_due() -> None:
    steps = Steps()

    def enough(history: History) -> str | None:
        return "four steps" if len(steps.told) == 4 else None

    start_simulation(
        client_fn=nudge,
        num_clients=3,
        strategy=FedBuff(initial_parameters=initial(), buffer_size=2, concurrency=3),
        config=ServerConfig(
            num_rounds=20, round_timeout=lambda server_round: 30.0, early_stopping=enough
        ),
        callbacks=[steps],
    )
    assert steps.told == [1, 2, 3, 4]
    assert steps.ended == "four steps"
