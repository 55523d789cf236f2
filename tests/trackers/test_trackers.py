"""What trackers write is read back from their real files; one that fails disturbs nothing."""

from __future__ import annotations

import logging
import math
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from flmq.cli.trackers import Trackers
from flmq.common.typing import Scalar
from flmq.observe.bus import EventBus
from flmq.observe.events import RoundClosed, RunEnded, RunEvent, RunStarted
from flmq.trackers.errors import TrackerNotInstalled
from flmq.trackers.mlflow import MlflowObserver
from flmq.trackers.tensorboard import TensorBoardObserver
from flmq.trackers.tracking import TrackedRound, Tracker
from flmq.trackers.wandb import WandbObserver
from tests.observe.synthetic import FAILED_IN, JOB, KILLED_IN, ROUNDS, whole_run

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG: dict[str, Scalar] = {"lr": 0.1, "model": "softmax", "seed": 7, "raw": b"\x00"}
HOSTILE = "</script>=$(x)\n"


def events() -> Iterator[RunEvent]:
    """The made-up run, with a metric of a hostile name and one that is no number."""
    for event in whole_run():
        if isinstance(event, RunStarted):
            event = replace(event, run="run-1")
        if isinstance(event, RoundClosed):
            more: dict[str, Scalar] = {HOSTILE: 0.5, "word": "x", "nan": math.nan}
            event = replace(event, metrics={**event.metrics, **more})
        yield event


CLOSED = [event for event in events() if isinstance(event, RoundClosed)]


def resumed_after(number: int) -> list[RunEvent]:
    """What the observers of a second server are told, whose predecessor closed ``number``."""
    earlier = tuple(CLOSED[:number])
    return [
        replace(event, earlier=earlier) if isinstance(event, RunStarted) else event
        for event in events()
        if getattr(event, "server_round", None) is None or event.server_round > number  # type: ignore[union-attr,operator]
    ]


def killed_in(number: int) -> list[RunEvent]:
    """What its predecessor's observers are told, until it is killed."""
    return [
        event
        for event in events()
        if not isinstance(event, RunEnded) and (getattr(event, "server_round", None) or 0) <= number
    ]


def play(make: Callable[[], Tracker]) -> None:
    """A run whose first server is killed in round 6; of 5 and 6 it told, 7 it closed unheard."""
    first = make()
    for event in killed_in(6):
        first(event)
    second = make()
    for event in resumed_after(7):
        second(event)


def test_tensorboard_reads_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    play(lambda: TensorBoardObserver(tmp_path, CONFIG))
    read = EventAccumulator(str(tmp_path / JOB), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    losses = [(each.step, each.value) for each in read.Scalars("loss")]
    assert losses == [(each.server_round, pytest.approx(each.loss, rel=1e-6)) for each in CLOSED]
    assert [each.value for each in read.Scalars("clients/failed")][FAILED_IN - 1] == 1
    assert read.Scalars("final/accuracy")[-1].value == pytest.approx(0.942)
    tags = read.Tags()["scalars"]
    assert {"accuracy", "round/seconds", "round/bytes_up", "nan"} <= set(tags)
    assert "word" not in tags
    texts = read.Tags()["tensors"]
    assert "failures/text_summary" in texts
    assert "configuration/text_summary" in texts
    assert "_hparams_/session_start_info" in read.summary_metadata


def test_mlflow_goes_on_in_the_same_run_without_doubling_steps(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    play(lambda: MlflowObserver(uri, config=CONFIG))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("flmq")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (JOB, "FINISHED")
    assert (run.data.params["lr"], run.data.params["strategy"]) == ("0.1", "FedAvg")
    losses: list[Any] = [
        (each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss")
    ]
    assert losses == [(each.server_round, pytest.approx(each.loss)) for each in CLOSED]
    assert run.data.metrics["final/accuracy"] == pytest.approx(0.942)
    assert run.data.metrics["clients/silent"] == 2
    assert "client-03 silent in fit" in run.data.tags["flmq.failures"]


def test_wandb_writes_offline_without_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    first = WandbObserver("flmq", CONFIG, folder=tmp_path)
    for event in [*killed_in(6), RunEnded(JOB, 6, 1.0, "killed")]:
        first(event)
    time.sleep(1.1)  # W&B names folders by the second; a server takes longer to come back
    second = WandbObserver("flmq", CONFIG, folder=tmp_path)
    for event in resumed_after(6):
        second(event)
    # W&B's own process writes the end of a file after it has said that it is finished.
    deadline = time.monotonic() + 30
    while len(steps := offline_steps(tmp_path)) < ROUNDS and time.monotonic() < deadline:
        time.sleep(0.2)
    assert steps == [(each.server_round, pytest.approx(each.loss)) for each in CLOSED]
    folders = (tmp_path / "wandb").glob("offline-run-*")
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1


def leveldb_records(log: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format ("LevelDB Log format"), after W&B's 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(log):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", log, at)
        record += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield record
            record = b""


def offline_steps(folder: Path) -> list[Any]:
    """Step and loss of all that W&B's files in ``folder`` have, in order."""
    proto: Any = import_module("wandb.proto.wandb_internal_pb2")
    steps = []
    for file in (folder / "wandb").glob("offline-run-*/*.wandb"):
        for data in leveldb_records(file.read_bytes()):
            record = proto.Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                told = {
                    (each.key or "/".join(each.nested_key)): each.value_json
                    for each in record.history.item
                }
                steps.append((int(told["_step"]), float(told["loss"])))
    return sorted(steps)


class Broken(Tracker):
    """A tool that does not answer in some rounds."""

    name = "Broken"

    def __init__(self, fails_until: int) -> None:
        super().__init__()
        self.fails_until = fails_until
        self.calls = 0
        self.told: list[int] = []
        self.over = False

    def begin(self, started: RunStarted, config: Mapping[str, Scalar]) -> int:
        return 0

    def tell(self, closed: TrackedRound) -> None:
        self.calls += 1
        if self.calls <= self.fails_until:
            raise ConnectionError("nobody listens at tracker:5000")
        self.told.append(closed.step)

    def end(self, ended: RunEnded, final: Mapping[str, float]) -> None:
        self.over = True


def test_what_a_tracker_does_not_take_is_told_later_and_said_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "flmq"):
        tracker = Broken(KILLED_IN)
        for event in events():
            tracker(event)
    assert (tracker.told, tracker.over) == (list(range(1, ROUNDS + 1)), True)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("Broken cannot be told: ")
    assert "nobody listens at tracker:5000" in first
    assert second == "Broken is told again, with all that waited"


def test_a_tracker_that_never_answers_is_said_to_lack_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "flmq"):
        tracker = Broken(10**6)
        for event in events():
            tracker(event)
    assert [record.getMessage() for record in caplog.records][1:] == [
        f"Broken lacks {ROUNDS} rounds of this run"
    ]


def test_a_tracker_that_hangs_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    import threading

    hangs = threading.Event()

    class Hanging(Broken):
        def tell(self, closed: TrackedRound) -> None:
            hangs.wait()

    seen: list[RunEvent] = []
    bus = EventBus([Hanging(0), seen.append], stuck_after=0.2)
    with caplog.at_level(logging.WARNING, "flmq"):
        for event in events():
            bus.emit(event)
        bus.close()
    hangs.set()
    assert isinstance(seen[-1], RunEnded)
    assert any("Hanging" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("module", "option", "extra"),
    [
        ("tensorboardX", {"tensorboard": Path("tb")}, "tensorboard"),
        ("mlflow", {"mlflow": "sqlite:///x.db"}, "mlflow"),
        ("wandb", {"wandb": "project"}, "wandb"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, option: dict[str, Any], extra: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(TrackerNotInstalled, match=rf"pip install 'flmq\[{extra}\]'"):
        Trackers(**option).observers({})
    assert Trackers().observers({}) == ()
