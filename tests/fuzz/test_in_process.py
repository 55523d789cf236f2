"""100,000 hostile inputs: only typed errors, each in bounded time and memory."""

from __future__ import annotations

import logging

import pytest

from flmq.common.logger import LOGGER_NAME
from tests.fuzz.harness import Report, Target, fuzz, measured
from tests.fuzz.messages import body_kinds, seeds_of
from tests.fuzz.targets import all_targets
from tests.wire.cases import BODIES

INPUTS = 100_000
SECONDS = 150.0
"""Of one core; they take some 60."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    return all_targets(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger(LOGGER_NAME).setLevel(logging.CRITICAL)


@pytest.mark.timeout(900)  # of a machine that does other work
def test_a_hundred_thousand_inputs(targets: list[Target]) -> None:
    report = fuzz(targets, INPUTS, seed=1, seconds=SECONDS)
    assert not report.findings, "\n".join(map(str, report.findings))
    assert report.inputs >= 0.99 * INPUTS, f"{report.inputs} in {SECONDS} s"
    for target in targets:
        read, refused = report.read(target.name), report.refused(target.name)
        assert read or not target.are_valid, f"{target.name}: nothing was taken for valid"
        assert refused or not target.errors, f"{target.name}: nothing was refused"


def test_what_is_valid_is_read(targets: list[Target]) -> None:
    for target in (each for each in targets if each.are_valid):
        report = Report()
        findings = [measured(target, seed, report) for seed in target.seeds[:1]]
        assert findings == [None] * len(findings), target.name
        assert report.read(target.name) == len(findings), target.name


@pytest.mark.parametrize("kind", body_kinds())
def test_every_body_of_the_schema_has_a_corpus(kind: str) -> None:
    """A body that the schema gains is fuzzed by itself; a valid one of it is to be written down."""
    by_hand = len(seeds_of(kind)) - 30
    assert by_hand > 0, f"put a {kind} into tests/wire/cases.py: {len(BODIES)} bodies are there"


def test_findings_are_found() -> None:
    """The harness would notice: another error, a slow input, a large one."""

    def slow(data: bytes) -> None:
        sum(range(150_000_000))

    def large(data: bytes) -> None:
        held.append(bytearray(b"x") * (300 << 20))

    held: list[bytearray] = []
    said = []
    for read in (lambda data: data[10], slow, large):
        finding = measured(Target("one", [b""], read, (), lambda rng, data: data), b"", Report())
        assert finding is not None
        said.append(finding.what)
        held.clear()
    assert said[0].startswith("IndexError"), said
    assert "after" in said[1], said
    assert "MiB" in said[2], said
