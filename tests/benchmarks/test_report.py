"""Figures on their way from a run to tables, a page and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import page, plot, tables
from benchmarks.cells import Cell, parse_cell, size_name
from benchmarks.contestants.model import make_model
from benchmarks.contestants.pika_client import chunk_sizes
from benchmarks.results import Outcome, Report, Round, median_run, paired_ratio

CELL = Cell(10, 50_000_000)


def rounds(*seconds: float) -> tuple[Round, ...]:
    return tuple(Round(each, 1.0, 2.0, None) for each in seconds)


def report() -> Report:
    speed = (
        Outcome("flmq", CELL, rounds(1.0, 2.0, 9.0), 10**7, 11 * 10**7, exact=True),
        Outcome("flower", CELL, rounds(4.0, 8.0, 16.0), 10**7, 10**9, exact=False),
        Outcome("pika", CELL, failed="a client ended with status 1"),
    )
    return Report({"processor": "one"}, speed, speed[:2], {"accumulator": "fast\n"})


def test_cell_reads_what_people_write() -> None:
    assert parse_cell("10x50MB") == CELL
    assert parse_cell("20 x 10 KB") == Cell(20, 10_000)
    assert str(CELL) == "10 x 50 MB"
    assert size_name(1_500_000_000) == "1.5 GB"


@pytest.mark.parametrize("text", ["", "10", "x50MB", "0x50MB", "10x0KB", "10x50", "10x50mb"])
def test_cell_refuses_anything_else(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="10x50MB"):
        parse_cell(text)


@pytest.mark.parametrize("num_bytes", [10_000, 50_000, 5_000_000])
def test_model_has_its_size_and_several_tensors(num_bytes: int) -> None:
    model = make_model(num_bytes)
    assert sum(tensor.nbytes for tensor in model) == num_bytes
    assert len(model) == 6
    assert model[-1].shape == (64,)
    assert all((a == b).all() for a, b in zip(model, make_model(num_bytes), strict=True))


@pytest.mark.parametrize("num_bytes", [1, 1 << 20, (1 << 20) + 1, 50_000_000])
def test_chunks_make_up_the_model(num_bytes: int) -> None:
    sizes = chunk_sizes(num_bytes)
    assert sum(sizes) == num_bytes
    assert max(sizes) <= 1 << 20


def test_ratio_is_of_neighbouring_rounds() -> None:
    # 1/4, 2/8, 9/16: the median is 1/4, where the medians' ratio would be the same by chance only.
    flmq, flower, _ = report().speed
    assert paired_ratio(flmq, flower) == 0.25


def test_of_several_runs_the_one_with_the_median_ratio_counts() -> None:
    cell = Cell(2, 1_000_000)
    runs = [
        [Outcome("flmq", cell, (Round(s, 0, 0, 0),)), Outcome("flower", cell, (Round(1, 0, 0, 0),))]
        for s in (5.0, 1.0, 3.0, 2.0, 4.0)
    ]
    outcomes, ratios = median_run(runs)
    assert outcomes == runs[2]
    assert ratios == [5.0, 1.0, 3.0, 2.0, 4.0]
    assert median_run(runs[:1]) == (runs[0], [5.0])
    failed = [Outcome("flmq", cell, failed="it ended"), Outcome("flower", cell)]
    assert median_run([failed, *runs[1:3]])[0] == runs[2]


def test_report_survives_its_file(tmp_path: Path) -> None:
    report().save(tmp_path / "runs" / "report.json")
    assert Report.load(tmp_path / "runs" / "report.json") == report()


def test_speed_table_has_medians_ratios_and_what_failed() -> None:
    table = tables.speed_table(report())
    assert "| 10 x 50 MB | 2.00 | 8.00 | 0.25 |" in table
    assert "flmq: the same bits, Flower gRPC: other bits" in table
    assert "- bare pika, 10 x 50 MB: a client ended with status 1" in table


def test_memory_table_is_above_idle_and_in_models() -> None:
    assert "| 10 x 50 MB | 100 | 2.0 | 990 | 19.8 |" in tables.memory_table(report())


def test_what_is_not_known_is_a_dash() -> None:
    assert "| flmq | 1.00 | 2.00 | - | - |" in tables.cpu_table(report())


def test_page_keeps_everything_outside_its_markers() -> None:
    text = "before\n<!-- a:begin -->\nold\n<!-- a:end -->\nafter\n"
    filled = page.fill(text, {"a": "new\n"})
    assert filled == "before\n<!-- a:begin -->\nnew\n<!-- a:end -->\nafter\n"
    assert page.fill(filled, {"a": "new\n"}) == filled


def test_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="b:begin"):
        page.fill("text", {"b": "new\n"})


def test_performance_page_has_room_for_all_figures() -> None:
    contents = page.sections(report())
    assert {"machine", "speed", "cpu", "traffic", "memory", "accumulator"} == set(contents)
    page.fill(
        page.PAGE.read_text(encoding="utf-8"), {**contents, "asynchronous": "", "compression": ""}
    )


def test_picture_is_drawn_also_with_a_failure_in_the_report(tmp_path: Path) -> None:
    plot.draw(report(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
