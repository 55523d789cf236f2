"""A kind of message that flmq does not have: defined here, asked of clients, answered, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from flmq.common import (
    Code,
    Config,
    FitIns,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.phase import Phase
from flmq.observe.events import ClientOutcome, Outcome, PhaseClosed, RoundCounts
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.wire import INLINE_BYTES
from flmq.wire.kinds import Kind, register
from tests.end_to_end.federation import OK, Federation, Keeping, Nudge, fed_avg

NOTHING = Parameters([], "numpy.ndarray")
AGES: dict[str, list[int]] = {"a": [31, 47], "b": [52], "c": []}


# -- a new kind, whole ------------------------------------------------------------------------


@dataclass
class AgesIns:
    least: int


@dataclass
class AgesRes:
    total: float
    people: int


def some_people(ins: AgesIns, res: AgesRes) -> str | None:
    return None if res.people > 0 else f"nobody is {ins.least} or older"


register(Kind("mean_of_ages", AgesIns, AgesRes, check=some_people))


class Aged(Nudge):
    def mean_of_ages(self, ins: AgesIns) -> AgesRes:
        ages = [age for age in AGES[self.client_id] if age >= ins.least]
        return AgesRes(float(sum(ages)), len(ages))


def mean_of_ages(clients: list[ClientProxy]) -> Any:
    answers = [client.ask(AgesIns(least=18), timeout=30.0) for client in clients]
    return sum(res.total for res in answers) / sum(res.people for res in answers)


# -- it is asked ------------------------------------------------------------------------------


def asking(ask: Callable[[list[ClientProxy]], Any], clients: int) -> tuple[Keeping, list[Any]]:
    """A strategy that asks all clients before its first round, and what came of that."""
    came: list[Any] = []
    strategy = fed_avg(clients)
    configure_fit = strategy.configure_fit

    def asks_first(
        server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        client_manager.wait_for(clients, 30)
        proxies = [client for _, client in sorted(client_manager.all().items())]
        try:
            came.append(ask(proxies))
        except ClientFailure as failure:
            came.append(failure)
        return configure_fit(server_round, parameters, client_manager)

    strategy.configure_fit = asks_first  # type: ignore[method-assign]
    return strategy, came


def test_a_kind_that_a_program_adds_is_asked_answered_and_counted(federation: Federation) -> None:
    federation.serve("a", "b", source=lambda context: Aged(context.client_id))
    strategy, came = asking(mean_of_ages, clients=2)
    server = federation.run(strategy)
    server.history()
    assert came == [(31 + 47 + 52) / 3]
    closed = [e for e in server.watch.of(PhaseClosed) if e.phase is Phase("mean_of_ages")]
    assert [each.counts for each in closed] == [RoundCounts(asked=1, accepted=1)] * 2
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=2)


def test_its_own_check_rejects(memory_federation: Federation) -> None:
    memory_federation.serve("c", source=lambda context: Aged(context.client_id))
    strategy, came = asking(mean_of_ages, clients=1)
    server = memory_federation.run(strategy)
    server.history()
    (failure,) = came
    assert failure.outcome is Outcome.REJECTED
    assert failure.reason == "nobody is 18 or older"


class Wrong(Nudge):
    def mean_of_ages(self, ins: AgesIns) -> Any:
        return {"total": 1.0}


class Broken(Nudge):
    def mean_of_ages(self, ins: AgesIns) -> AgesRes:
        return AgesRes("old", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (Nudge, "CallNotImplemented: Nudge has no method 'mean_of_ages'"),
        (Wrong, "InvalidReturnValue: Wrong.mean_of_ages returned a dict, not a AgesRes"),
        (Broken, "InvalidReturnValue: AgesRes.total is a str: it must be a float"),
    ],
)
def test_a_client_that_lacks_it_or_gets_it_wrong_says_so(
    memory_federation: Federation, client: type[Nudge], reason: str
) -> None:
    memory_federation.serve("a", source=lambda context: client(context.client_id))
    strategy, came = asking(mean_of_ages, clients=1)
    memory_federation.run(strategy).history()
    (failure,) = came
    assert failure.outcome is Outcome.FAILED
    assert failure.reason.startswith(reason)


@dataclass
class BlurIns:
    parameters: Parameters
    config: Config


@dataclass
class BlurRes:
    status: Status
    parameters: Parameters
    about: Config


register(Kind("test.blur", BlurIns, BlurRes, call="blur"))


class Blurring(Nudge):
    def blur(self, ins: BlurIns) -> BlurRes:
        if ins.config["by"] == 0.0:
            return BlurRes(Status(Code.FIT_NOT_IMPLEMENTED, "not by nothing"), NOTHING, {})
        (tensor,) = parameters_to_ndarrays(ins.parameters)
        parameters = ndarrays_to_parameters([tensor + np.float32(ins.config["by"])])
        return BlurRes(OK, parameters, {"client": self.client_id})


def test_its_large_parameters_travel_apart_as_a_models_do(federation: Federation) -> None:
    federation.serve("a", "b", source=lambda context: Blurring(context.client_id))
    tensor = np.arange(INLINE_BYTES, dtype=np.float32)

    def blur(clients: list[ClientProxy]) -> list[BlurRes]:
        ins = BlurIns(ndarrays_to_parameters([tensor]), {"by": 0.5})
        return [client.ask(ins, timeout=30.0) for client in clients]

    strategy, came = asking(blur, clients=2)
    server = federation.run(strategy)
    server.history()
    (answers,) = came
    for client_id, res in zip("ab", answers, strict=True):
        assert (res.status, res.about) == (OK, {"client": client_id})
        (blurred,) = parameters_to_ndarrays(res.parameters)
        assert np.array_equal(blurred, tensor + np.float32(0.5))
    first, second = (e for e in server.watch.of(PhaseClosed) if e.phase is Phase("test.blur"))
    assert first.bytes_down > tensor.nbytes > second.bytes_down  # published once
    assert min(first.bytes_up, second.bytes_up) > tensor.nbytes


def test_a_status_that_is_not_ok_is_a_failure(memory_federation: Federation) -> None:
    memory_federation.serve("a", source=lambda context: Blurring(context.client_id))
    ins = BlurIns(NOTHING, {"by": 0.0})
    strategy, came = asking(lambda clients: clients[0].ask(ins, 30.0), clients=1)
    server = memory_federation.run(strategy)
    server.history()
    assert came == [BlurRes(Status(Code.FIT_NOT_IMPLEMENTED, "not by nothing"), NOTHING, {})]
    outcome = next(e for e in server.watch.of(ClientOutcome) if e.phase is Phase("test.blur"))
    assert (outcome.outcome, outcome.reason) == (
        Outcome.FAILED,
        "FIT_NOT_IMPLEMENTED: not by nothing",
    )
