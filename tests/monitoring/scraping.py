"""Read what a process tells of itself."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of a text, by name and labels."""

    samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
    help: Mapping[str, str]
    """By the family's name."""

    @classmethod
    def of(cls, text: str) -> Scrape:
        families = list(text_string_to_metric_families(text))
        return cls(
            {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in families
                for sample in family.samples
            },
            {family.name: family.documentation for family in families},
        )

    def value(self, name: str, **labels: str) -> float:
        """One sample."""
        return self.samples[name, tuple(sorted(labels.items()))]

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of every sample of a name."""
        return [dict(labels) for known, labels in self.samples if known == name]

    @property
    def ours(self) -> dict[str, set[str]]:
        """The names of all samples of flmq's own, and their labels' names."""
        found: dict[str, set[str]] = {}
        for name, labels in self.samples:
            if name.startswith("flmq_"):
                found.setdefault(name, set()).update(key for key, _ in labels)
        return found


def get(url: str, timeout: float = 10.0) -> tuple[int, str]:
    """Status and body of what answers at ``url``."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(base: str) -> Scrape:
    """What ``/metrics`` says."""
    status, text = get(f"{base}/metrics")
    assert status == 200, text
    return Scrape.of(text)


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds; ``what`` says what did not."""
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
