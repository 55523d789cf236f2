"""Replies compressed on the wire: offered by the server, taken up by workers, undone on arrival."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from flmq.client import ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import UsageError
from flmq.common.phase import Phase
from flmq.common.typing import Code, FitRes, Parameters, Status
from flmq.observe.events import RoundClosed, RunEnded, RunEvent
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.components import ServerAppComponents
from flmq.server.options import RunOptions
from flmq.server.replies.uploads import Spoiled, Uploads
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.simulation.app import simulate
from flmq.wire import Reply, parameters_to_send, refer

START = np.random.default_rng(9).standard_normal(50_000, dtype=np.float32)


class Walker(NumPyClient):
    def __init__(self, context: ClientContext) -> None:
        self.rng = np.random.default_rng(int(context.client_id))

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        step = np.float32(1e-3) * self.rng.standard_normal(START.shape, dtype=np.float32)
        return [parameters[0] + step], 10, {}


def run(compression: str) -> tuple[Parameters, int]:
    """The final model, and the bytes that came up for it."""
    events: list[RunEvent] = []
    strategy = FedAvg(fraction_evaluate=0.0, initial_parameters=ndarrays_to_parameters([START]))
    simulate(
        Walker,
        {str(i): {} for i in range(3)},
        ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=2)),
        RunOptions(
            coordinator=CoordinatorOptions(compression=compression), observers=[events.append]
        ),
        keep_clients=True,
    )
    ended = events[-1]
    assert isinstance(ended, RunEnded)
    assert ended.parameters is not None
    closed = [event for event in events if isinstance(event, RoundClosed)]
    assert [event.fit.accepted for event in closed] == [3, 3]
    return ended.parameters, sum(event.bytes_up for event in closed)


@pytest.mark.parametrize("made_in_files", [False, True])
def test_zstd_sends_less_and_changes_no_bit(
    made_in_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, plain_bytes = run("none")
    if made_in_files:
        in_files = partial(parameters_to_send, large=1)
        monkeypatch.setattr("flmq.client.numpy_client.parameters_to_send", in_files)
    packed, packed_bytes = run("zstd")
    assert packed == plain
    assert packed_bytes < 0.7 * plain_bytes


@pytest.mark.parametrize(
    ("codec", "bound", "ratio"), [("fp16", 2**-9, 0.5), ("int8", 1 / 100, 0.3)]
)
def test_lossy_codecs_stay_within_their_error(codec: str, bound: float, ratio: float) -> None:
    plain, plain_bytes = run("none")
    packed, packed_bytes = run(codec)
    (exact,), (rounded,) = parameters_to_ndarrays(plain), parameters_to_ndarrays(packed)
    update = np.abs(exact - START).max()
    assert 0 < np.abs(exact - rounded).max() <= bound * update * 4
    assert packed_bytes < ratio * plain_bytes


def test_an_unknown_codec_is_refused_before_anything_begins() -> None:
    with pytest.raises(UsageError, match="lzma"):
        run("lzma")


def test_what_was_compressed_unasked_is_refused(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, 1 << 20)
    parameters = ndarrays_to_parameters([START])
    res = FitRes(Status(Code.OK, ""), Parameters([], "numpy.ndarray"), 1, {})
    reply = Reply("task", "job", 1, Phase.FIT, "a", 1, b"", 0.0, res)
    spoiled = uploads.begin(reply, refer(parameters, codec="int8", base="0" * 64), 10)
    assert isinstance(spoiled, Spoiled)
    assert "unasked" in spoiled.reason
    uploads.close()
