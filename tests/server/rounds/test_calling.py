"""Calling proxies directly, by Flower's functions: results, failures, and what each call gets."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from flmq.common import Code, EvaluateIns, FitIns, Status
from flmq.server import server
from flmq.server.client_proxy import ClientProxy
from tests.server.proxies import IdleProxy, evaluate_res, fit_res, model
from tests.server.strategy.oracle import flower


class Answers(IdleProxy):
    """Answers by its name: one that is broken raises, one that is not well says so."""

    def _answer(self, ins: Any, timeout: float | None, group_id: int | None = None) -> Any:
        if self.cid == "broken":
            raise RuntimeError("no GPU")
        res: Any = evaluate_res(0.5, 2) if isinstance(ins, EvaluateIns) else fit_res(model(), 1)
        res.metrics = {"timeout": timeout, "group_id": group_id}
        if self.cid == "unwell":
            res.status = Status(Code.FIT_NOT_IMPLEMENTED, "cannot")
        return res

    fit = _answer  # type: ignore[assignment]
    evaluate = _answer  # type: ignore[assignment]


@pytest.mark.parametrize("phase", ["fit", "evaluate"])
@pytest.mark.parametrize("max_workers", [None, 1])
def test_results_and_failures_come_in_the_order_of_the_instructions(
    phase: str, max_workers: int | None
) -> None:
    kind: Any = FitIns if phase == "fit" else EvaluateIns
    clients: list[ClientProxy] = [Answers(cid) for cid in ("b", "broken", "a", "unwell")]
    instructions = [(client, kind(model([1.0]), {})) for client in clients]
    call: Any = getattr(server, f"{phase}_clients")
    results, failures = call(instructions, max_workers, 12.5, 3)
    assert [client.cid for client, _ in results] == ["b", "a"]
    assert [res.metrics for _, res in results] == [{"timeout": 12.5, "group_id": 3}] * 2
    error, (unwell, res) = failures
    assert str(error) == "no GPU"
    assert (unwell.cid, res.status.message) == ("unwell", "cannot")


def test_nobody_has_no_results() -> None:
    assert server.fit_clients([], None, None, 1) == ([], [])


@pytest.mark.parametrize(
    "name", ["fit_client", "fit_clients", "evaluate_client", "evaluate_clients"]
)
def test_they_take_flowers_arguments(name: str) -> None:
    theirs = inspect.signature(getattr(flower("flwr.server.server"), name)).parameters
    assert list(inspect.signature(getattr(server, name)).parameters) == list(theirs)
