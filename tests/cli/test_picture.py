"""The picture of a run: drawn from its record, whatever the record has."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flmq.cli.view.picture import NothingToDraw, draw
from flmq.cli.view.slowest import Slow, slowest_clients
from flmq.common.typing import Scalar
from flmq.datasets.errors import MissingExtra
from flmq.observe.record import RunRecord, load_record
from flmq.observe.recorder import RunRecorder
from tests.observe.synthetic import JOB, whole_run


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    recorder = RunRecorder(tmp_path, {"partition": "dirichlet", "alpha": 0.5, "model": "softmax"})
    for event in whole_run():
        recorder(event)
    return load_record(tmp_path / JOB)


def svg_text(record: RunRecord, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The picture as SVG with its words as text."""
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    path = folder / "run.svg"
    draw(record, path)
    return path.read_text(encoding="utf-8")


def test_a_png_of_the_size_that_is_promised(record: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.png"
    draw(record, path)
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    # 5 inches, and those of 8 slowest clients.
    assert size == (1200, 1080)


def test_title_figures_labels_and_kills_are_in_words(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = svg_text(record, tmp_path, monkeypatch)
    for word in (JOB, "Dirichlet(0.5) partition", "softmax", "10 clients", "10 rounds in 9.3 s"):
        assert word in text
    for word in ("accuracy", "loss", "round", "0.948", "0.307"):
        assert word in text
    for word in ("2 clients killed", "answered", "failed", "silent"):
        assert word in text
    assert "rejected" not in text


def test_a_run_without_accuracy_or_losses_of_clients_has_only_what_there_is(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = tuple(replace(each, metrics={}) for each in record.rounds[:2])
    short = replace(record, rounds=rounds, error="NotEnoughClients: 3", about={})
    text = svg_text(short, tmp_path, monkeypatch)
    assert "accuracy" not in text
    assert "silent" not in text
    assert "killed" not in text
    assert "stopped by an error" in text


def test_nothing_to_draw_is_said_with_a_way_out(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match="evaluate_fn"):
        draw(replace(record, rounds=()), tmp_path / "run.png")


def test_missing_matplotlib_is_named_with_its_remedy(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtra, match=r"matplotlib.*pip install 'flmq\[demo\]'"):
        draw(record, tmp_path / "run.png")


def test_every_measure_has_a_panel_and_a_name_is_no_mathematics(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(number: int) -> dict[str, Scalar]:
        return {"f1": number / 10, r"$\frac": 0.5, "kind": "text", "flag": True, "nan": math.nan}

    rounds = tuple(
        replace(each, metrics=measured(each.server_round), fit_metrics={"train_loss": 0.25})
        for each in record.rounds
    )
    text = svg_text(replace(record, rounds=rounds), tmp_path, monkeypatch)
    for word in ("f1", r"$\frac", "loss", "fit_train_loss", "1.000"):
        assert word in text
    for word in ("kind", "flag", "nan<", "without a panel"):
        assert word not in text


def test_measures_without_a_panel_are_named(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many: dict[str, Scalar] = {f"metric-{at}": 0.5 for at in range(64)}
    rounds = tuple(replace(each, metrics=many) for each in record.rounds)
    text = svg_text(replace(record, rounds=rounds), tmp_path, monkeypatch)
    assert "without a panel: " in text
    assert "metric-61" in text


def test_the_slowest_clients_are_named_and_a_name_is_no_mathematics(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = record.rounds[0]
    outcomes = tuple(
        replace(each, client_id=r"$\frac{slow", seconds=50.0) if at == 5 else each
        for at, each in enumerate(first.outcomes)
    )
    slow = replace(record, rounds=(replace(first, outcomes=outcomes), *record.rounds[1:]))
    assert slowest_clients(slow, 3)[0] == Slow(r"$\frac{slow", 50.0, 50.0, 1)
    text = svg_text(slow, tmp_path, monkeypatch)
    for word in ("slowest clients", r"$\frac{slow", "longest", "seconds to the reply"):
        assert word in text
    untimed = replace(record, rounds=tuple(replace(each, outcomes=()) for each in record.rounds))
    assert slowest_clients(untimed, 3) == []
    assert "slowest" not in svg_text(untimed, tmp_path, monkeypatch)


def test_thousands_of_rounds_are_areas_in_place_of_bars(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = record.rounds[3]
    rounds = tuple(replace(base, server_round=at) for at in range(1, 2001))
    text = svg_text(replace(record, rounds=rounds), tmp_path, monkeypatch)
    assert len(text) < 2_000_000
