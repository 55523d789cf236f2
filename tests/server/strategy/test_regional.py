"""Which strategies' replies may be added up by sites, and why the others' come whole."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.common import FitRes, Parameters
from flmq.server.strategy import (
    SCAFFOLD,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedNova,
    FedProx,
    FedYogi,
    Krum,
    LateReplies,
    QFedAvg,
    ReplyCheck,
)
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.regional import why_whole
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.streaming import says_it_streams
from tests.end_to_end.federation import Keeping, initial


def why(strategy: Strategy) -> str:
    combine = strategy.combine(1, initial()) if says_it_streams(strategy) else None
    return why_whole(strategy, combine)


@pytest.mark.parametrize("kind", [FedAvg, FedAvgM, FedAdam, FedAdagrad, FedYogi])
def test_these_take_sums(kind: Any) -> None:
    assert why(kind(initial_parameters=initial())) == ""


def test_so_does_fedprox() -> None:
    assert why(FedProx(proximal_mu=0.1, initial_parameters=initial())) == ""


@pytest.mark.parametrize("kind", [FedMedian, Krum])
def test_rules_over_all_replies_do_not(kind: Any) -> None:
    assert "combines replies by AllReplies" in why(kind(initial_parameters=initial()))


def test_those_with_a_sum_of_their_own_do_not() -> None:
    inner = FedAvg(initial_parameters=initial())
    for strategy in (
        SCAFFOLD(num_clients=3, initial_parameters=initial()),
        FedNova(initial_parameters=initial()),
        QFedAvg(initial_parameters=initial()),
        DifferentialPrivacyServerSideFixedClipping(inner, 1.0, 1.0, 2),
        DifferentialPrivacyClientSideFixedClipping(inner, 1.0, 1.0, 2),
    ):
        assert why(strategy), strategy


class Subclassed(WeightedMean):
    pass


class Own(FedAvg):
    def combine(self, server_round: int, parameters: Parameters) -> WeightedMean:
        return Subclassed()


class Checking(FedAvg):
    def check_fit_res(self, res: FitRes) -> str | None:
        return None if "steps" in res.metrics else "no steps"


def test_nor_does_what_a_subclass_changes() -> None:
    assert "reads the parameters of each reply" in why(Keeping(initial_parameters=initial()))
    assert "by Subclassed" in why(Own(initial_parameters=initial()))
    assert "Checking checks each reply" in why(Checking(initial_parameters=initial()))
    late = FedAvg(initial_parameters=initial())
    late.late_replies = LateReplies.NEXT_ROUND
    assert "late replies" in why(late)
    finite = FedAvg(initial_parameters=initial())
    finite.reply_check = ReplyCheck.FINITE
    assert "does not check" in why(finite)
