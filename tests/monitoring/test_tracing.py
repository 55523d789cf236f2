"""Spans of rounds and of tasks fit together, though nothing of them travels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flmq.cli.monitoring import Monitoring, contradiction, wants_spans
from flmq.client import ClientContext, NumPyClient
from flmq.client.options import WorkerOptions
from flmq.common.phase import Phase
from flmq.monitoring import tracing as tracing_module
from flmq.monitoring.exporting import exporters
from flmq.monitoring.role import Role
from flmq.monitoring.tracing import DerivedIds, RunSpans, TaskSpans
from flmq.observe.events import TaskReceived, TaskRef
from flmq.observe.vitals import Vitals
from tests.end_to_end.federation import Federation, fed_avg


class Spans:
    """What two processes export, each with a provider of its own."""

    def __init__(self) -> None:
        self.server, self.worker = InMemorySpanExporter(), InMemorySpanExporter()
        self.ids = DerivedIds()
        self.of_run = RunSpans(_provider(self.server, self.ids), self.ids)
        self.of_tasks = TaskSpans(_provider(self.worker, DerivedIds()))

    def named(self, name: str) -> list[ReadableSpan]:
        both = (*self.server.get_finished_spans(), *self.worker.get_finished_spans())
        return [span for span in both if span.name == name]


def _provider(exporter: InMemorySpanExporter, ids: DerivedIds) -> TracerProvider:
    provider = TracerProvider(id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def test_a_workers_task_is_in_the_phase_of_its_round(memory_federation: Federation) -> None:
    spans = Spans()
    options = WorkerOptions(heartbeat=1.0, observers=[spans.of_tasks])
    memory_federation.serve("ann", "ben", options=options)
    memory_federation.run(fed_avg(2), rounds=2, observers=[spans.of_run]).history()
    for name in ("ann", "ben"):
        memory_federation.workers[name].stop()

    rounds, phases = spans.named("round"), spans.named("phase fit")
    (server,) = spans.named("server")
    assert [span.attributes["flmq.round"] for span in rounds if span.attributes] == [1, 2]
    assert len({trace_of(span) for span in (*rounds, server)}) == 3
    for closed, phase in zip(rounds, phases, strict=True):
        assert [link.context.span_id for link in closed.links] == [id_of(server)]
        assert phase.parent is not None
        assert (trace_of(phase), phase.parent.span_id) == (trace_of(closed), id_of(closed))
        assert phase.attributes is not None
        assert phase.attributes["flmq.accepted"] == 2
    tasks = spans.named("task fit")
    assert len(tasks) == 4
    for task in tasks:
        assert task.parent is not None
        assert (trace_of(task), task.parent.span_id) in [(trace_of(p), id_of(p)) for p in phases]
        assert task.attributes is not None
        assert task.attributes["flmq.client"] in ("ann", "ben")
        (trained,) = [
            span
            for span in spans.named("train")
            if span.parent is not None and span.parent.span_id == id_of(task)
        ]
        assert trained.start_time is not None
        assert trained.end_time is not None
        assert trained.start_time <= trained.end_time


def test_a_client_that_fails_is_an_error_in_its_spans(memory_federation: Federation) -> None:
    def fails(context: ClientContext) -> NumPyClient:
        raise ValueError("no data")

    spans = Spans()
    options = WorkerOptions(heartbeat=1.0, observers=[spans.of_tasks])
    memory_federation.serve("ann", source=fails, options=options)
    memory_federation.run(fed_avg(1), observers=[spans.of_run]).history()
    memory_federation.workers["ann"].stop()
    (task,) = spans.named("task fit")
    assert not task.status.is_ok
    assert "no data" in (task.status.description or "")


def test_tasks_without_an_end_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_module, "_MOST_TASKS", 10)
    spans = Spans()
    for number in range(100):
        ref = TaskRef("j" * 10**5, number, Phase.FIT, "c" * 10**5, f"t{number}", "r" * 10**5)
        spans.of_tasks(TaskReceived(ref, 1.0))
    assert len(spans.of_tasks._open) == 10
    (first, *_) = spans.of_tasks._open.values()
    assert all(len(str(value)) <= 256 for value in first.span.attributes.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_say_whether(environ: dict[str, str], wanted: bool) -> None:
    assert wants_spans(environ) is wanted


def test_an_exporter_that_is_not_installed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert exporters({"OTEL_TRACES_EXPORTER": "nobodys"}) == []
    assert "'nobodys' is not installed" in caplog.text
    assert len(exporters({"OTEL_TRACES_EXPORTER": "console"})) == 1


@contextmanager
def without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("flmq.monitoring.exporting", "flmq.monitoring.tracing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.setitem(sys.modules, name, None)
    yield


def test_without_the_extra_a_line_says_so_and_all_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    with (
        without_opentelemetry(monkeypatch),
        Monitoring().shown(Role.SERVER, Vitals()) as seen,
    ):
        assert seen.run == ()
    assert "pip install 'flmq[otel]'" in caplog.text


def test_nothing_is_loaded_where_nothing_is_wanted(tmp_path: Path) -> None:
    program = """
import json, sys
from flmq.cli.main import app
from flmq.cli.monitoring import Monitoring
from flmq.monitoring.role import Role
from flmq.observe.vitals import Vitals
with Monitoring().shown(Role.SERVER, Vitals()):
    heavy = ("opentelemetry", "prometheus_client")
    found = [name for name in sys.modules if name.partition(".")[0] in heavy]
print(json.dumps(found))
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, "no spans are made: OTEL"),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, "unset one of"),
        ({"OTEL_TRACES_EXPORTER": "none,otlp"}, "names exporters and none"),
        (
            {"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"},
            "nothing is sent to OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: OTEL_TRACES_EXPORTER=console",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"},
            "nothing is sent",
        ),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ""),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, ""),
        ({}, ""),
    ],
)
def test_variables_that_contradict_each_other_are_one_line(
    environ: dict[str, str], said: str
) -> None:
    line = contradiction(environ)
    assert said in line
    assert bool(line) == bool(said)
    assert "\n" not in line


def test_an_exporter_that_cannot_be_made_is_a_line_and_no_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ValueError("could not convert string to float: 'soon'")

    monkeypatch.setattr("flmq.monitoring.exporting._exporter", lambda name, environ: broken)
    assert exporters({"OTEL_TRACES_EXPORTER": "otlp"}) == []
    (record,) = caplog.records
    assert "'otlp' cannot be made (ValueError: could not convert" in record.getMessage()
