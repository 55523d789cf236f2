"""Dashboard, alerts and the page ask for what is really exported, and for all of it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flmq.broker.node import PrivateNode
from tests.docs.pages import ROOT
from tests.monitoring.exported import run_and_scrape
from tests.monitoring.scraping import Scrape, get, until

MONITORING = ROOT / "deploy" / "monitoring"
PAGE = ROOT / "docs" / "monitoring.md"
ALERTS = [MONITORING / "flmq-alerts.yaml", MONITORING / "rabbitmq-alerts.yaml"]
# Prometheus itself gives every series these.
_ADDED = {"instance", "job"}

_SELECTOR = re.compile(r"\b((?:flmq|process|rabbitmq)_\w+|up\b)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_IN_TEXT = re.compile(r"\$labels\.(\w+)")


@dataclass(frozen=True, slots=True)
class Exported:
    """What several processes export together."""

    values: Mapping[str, Mapping[str, set[str]]]
    """By the sample's name, the values of each label."""
    help: Mapping[str, str]

    @classmethod
    def of(cls, texts: list[str]) -> Exported:
        values: dict[str, dict[str, set[str]]] = {"up": {}}  # Prometheus' own
        helps: dict[str, str] = {}
        for scraped in map(Scrape.of, texts):
            helps |= scraped.help
            for name, labels in scraped.samples:
                known = values.setdefault(name, {})
                for key, value in labels:
                    known.setdefault(key, set()).add(value)
        return cls(values, helps)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported.of(run_and_scrape(tmp_path_factory.mktemp("federation")))


def rules(path: Path) -> list[Mapping[str, Any]]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def panels() -> list[Mapping[str, Any]]:
    found = json.loads((MONITORING / "flmq-dashboard.json").read_text(encoding="utf-8"))
    return [panel for panel in found["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def faults(expression: str, exported: Exported) -> Iterator[str]:
    """What of an expression nobody exports."""
    selectors = _SELECTOR.findall(expression)
    if not selectors:
        yield f"{expression} asks for no metric"
    labels = set(_ADDED)
    for name, matchers in selectors:
        if name not in exported.values:
            yield f"nobody exports {name}: {expression}"
            continue
        known = exported.values[name]
        labels |= known.keys()
        for label, how, value in _MATCHER.findall(matchers):
            if label in _ADDED:
                continue
            if label not in known:
                yield f"{name} has no label {label}: {expression}"
            for word in value.split("|") if how == "=~" else [value]:
                if label in known and word not in known[label]:
                    yield f"{name} never has {label}={word}: {expression}"
    for group in _GROUPED.findall(expression):
        for label in filter(None, (each.strip() for each in group.split(","))):
            if label not in labels:
                yield f"no label {label}: {expression}"


def test_every_query_of_the_dashboard_finds_something(exported: Exported) -> None:
    assert queries()
    assert [fault for query in queries() for fault in faults(query, exported)] == []


def test_every_alert_is_about_what_is_exported(exported: Exported) -> None:
    found = rules(ALERTS[0])
    assert [fault for rule in found for fault in faults(rule["expr"], exported)] == []


@pytest.mark.parametrize("path", ALERTS, ids=lambda path: path.name)
def test_every_alert_says_what_to_do(path: Path) -> None:
    found = rules(path)
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule
        assert set(rule["annotations"]) == {"summary", "action"}, rule
        # What a sum drops, no text can name.
        grouped = _GROUPED.findall(rule["expr"])
        if grouped and rule["expr"].startswith(("sum", "max")):
            kept = {each.strip() for each in grouped[0].split(",")}
            assert set(_IN_TEXT.findall(str(rule["annotations"]))) <= kept, rule


def test_the_checks_find_what_is_wrong() -> None:
    known = Exported({"flmq_a": {"state": {"up"}}}, {})
    assert list(faults('sum by (state) (flmq_a{state="up", instance=~"x"})', known)) == []
    for wrong in ('flmq_b{state="up"}', 'flmq_a{x="up"}', 'flmq_a{state="dn"}', "1 > 0"):
        assert len(list(faults(wrong, known))) == 1, wrong
    assert len(list(faults("sum by (who) (flmq_a)", known))) == 1


def test_nothing_is_exported_that_no_page_explains(exported: Exported) -> None:
    row = re.compile(r"^\| `(flmq_\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
    told = {name: (labels, text) for name, labels, text in row.findall(PAGE.read_text("utf-8"))}
    for name, text in exported.help.items():
        if not name.startswith("flmq_"):
            continue
        sample = next(
            each
            for each in (name, f"{name}_total", f"{name}_info", f"{name}_count")
            if each in exported.values
        )
        written = sample.removesuffix("_count") if sample != name else name
        labels = ", ".join(f"`{each}`" for each in sorted(exported.values[sample]))
        assert told.pop(written, None) == (labels, text), (written, labels, text)
    assert told == {}


def test_no_panel_is_there_twice() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    places = [tuple(sorted(panel["gridPos"].items())) for panel in panels()]
    assert len(set(places)) == len(places)


def test_promtool_takes_the_rules_and_their_tests_pass(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "install-promtool.sh"
    got = subprocess.run([script], capture_output=True, text=True, check=False)
    if got.returncode == 3:
        pytest.skip(got.stderr)  # no network, or no apt: the tests above hold all the same
    assert got.returncode == 0, got.stderr
    promtool = got.stdout.strip()
    for arguments in (["check", "rules", *map(str, ALERTS)], ["test", "rules", "alerts-test.yaml"]):
        done = subprocess.run(
            [promtool, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_every_alert_on_the_broker_is_about_what_it_exports(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"prometheus.tcp.ip": "127.0.0.1", "prometheus.tcp.port": str(port)}
    with PrivateNode(tmp_path, plugins=("rabbitmq_prometheus",), settings=settings):
        url = f"http://127.0.0.1:{port}/metrics"
        until(lambda: "rabbitmq_global_messages_redelivered_total" in get(url)[1], "no metrics")
        exported = Exported.of([get(url)[1]])
    found = rules(ALERTS[1])
    assert [fault for rule in found for fault in faults(rule["expr"], exported)] == []


def test_the_alert_files_are_named_by_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in MONITORING.iterdir():
        assert path.name in text, path
