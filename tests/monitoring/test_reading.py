"""A reading that takes long holds up nobody."""

from __future__ import annotations

import threading
import time

from flmq.common.errors import TransportClosed
from flmq.monitoring.collector import VitalsCollector
from flmq.monitoring.reading import PatientReading
from flmq.observe.vitals import Vitals


def test_a_reading_that_hangs_is_waited_for_a_moment_and_not_begun_twice() -> None:
    begun, go = [], threading.Event()

    def read() -> dict[str, float]:
        begun.append(1)
        go.wait(60)
        return {"": 3.0}

    reading = PatientReading(read)
    assert reading.values(0.01) == {}
    assert reading.values(0.01) == {}
    assert len(begun) == 1
    go.set()
    assert reading.values(60) == {"": 3.0}
    assert reading.values(0) == {"": 3.0}
    assert len(begun) == 1  # new enough


def test_what_cannot_be_read_any_more_is_shown_for_a_while_only() -> None:
    now, works = [0.0], [True]

    def read() -> dict[str, float]:
        if not works[0]:
            raise TransportClosed("closed")
        return {"": 3.0}

    reading = PatientReading(read, every=10, oldest=100, clock=lambda: now[0])
    assert reading.values(60) == {"": 3.0}
    works[0], now[0] = False, 50.0
    assert reading.values(60) == {"": 3.0}
    now[0] = 101.0
    assert reading.values(60) == {}


def test_all_slow_readings_together_keep_a_scrape_less_than_two_seconds() -> None:
    vitals, end = Vitals(), threading.Event()

    def hangs() -> dict[str, float]:
        end.wait(60)
        return {}

    for name in ("flmq_journal_bytes", "flmq_queue_messages_ready", "flmq_worker_spool_bytes"):
        vitals.measures(name, hangs, blocks=True)
    begun = time.monotonic()
    names = {metric.name for metric in VitalsCollector(vitals).collect()}
    assert time.monotonic() - begun < 2
    end.set()
    assert "flmq_connection_up" in names
    assert "flmq_journal_bytes" not in names
