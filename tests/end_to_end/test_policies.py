"""An operator's policy on all queues, which has RabbitMQ drop what flmq sends: the same bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.common.urls import parse_broker_url
from flmq.server.asks import waiting
from flmq.testing import fast_retries
from tests.conftest import SessionBroker
from tests.end_to_end.federation import Federation, fed_avg
from tests.transport.rigs import MemoryRig, RabbitMQRig, Rig, eventually

NAMES = ("a", "b", "c")
START = np.arange(700_000, dtype=np.float32)
"""Three chunks: a model in the stream, and replies that come in pieces."""


class Weighted(NumPyClient):
    """Adds what its name says."""

    def __init__(self, client_id: str) -> None:
        self._own = float(ord(client_id))

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        return [tensor * np.float32(0.7) + self._own for tensor in parameters], 1, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(parameters[0][-1]), 1, {}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was dropped is sent again after a second, not half a minute."""
    monkeypatch.setattr(waiting, "_ASK_AGAIN_EVERY", 1.0)
    monkeypatch.setattr(waiting, "_STILL_WAITING_EVERY", 0.1)
    with fast_retries():
        yield


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    return _model_of(MemoryRig())


def _model_of(rig: Rig) -> bytes:
    federation = Federation(rig)
    federation.serve(*NAMES, source=lambda context: Weighted(context.client_id))
    strategy = fed_avg(3, fraction_evaluate=1.0, initial_parameters=ndarrays_to_parameters([START]))
    server = federation.run(strategy, rounds=2, timeout=None)
    assert len(server.history().losses_distributed) == 2
    federation.close()
    rig.close()
    return server.watch.model()


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("policies", {"max-length": 1}),
        ("policies", {"message-ttl": 5000}),
        ("operator-policies", {"message-ttl": 5000, "max-length": 1}),
    ],
)
def test_what_a_policy_drops_is_sent_again(
    broker_url: str,
    broker_node: SessionBroker,
    undisturbed: bytes,
    kind: str,
    limits: dict[str, int],
) -> None:
    policy = {"pattern": ".*", "definition": limits, "apply-to": "queues"}
    vhost = parse_broker_url(broker_url).vhost
    broker_node.management.call("PUT", f"/api/{kind}/{vhost}/all", policy)
    assert _model_of(RabbitMQRig(broker_url)) == undisturbed


def test_that_a_policy_may_be_the_reason_is_said_of_who_is_not_heard(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    class Waits(Weighted):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            eventually(lambda: "published 3 times and nothing came of it" in caplog.text)
            return super().fit(parameters, config)

    memory_federation.serve("a", source=lambda context: Waits("a"))
    strategy = fed_avg(1, initial_parameters=ndarrays_to_parameters([START[:3]]))
    memory_federation.run(strategy, rounds=1, timeout=None).history()
    assert "`flmq doctor` names it" in caplog.text
