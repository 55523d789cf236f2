"""The broker as the page shows it: what the doctor finds, queues, connections, dead letters.

The messages in ``flmq.dead`` are not looked at: RabbitMQ can show one only by handing it out and
taking it back, after which it is marked as delivered before, and meanwhile nobody else gets it. So
the page says how many lie there, and why by what servers logged as they sent messages there.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from flmq.broker.overview import Overview, look_at_broker
from flmq.observe.eventlog.reader import Happened
from flmq.transport.topology import DEAD, presence_queue, replies_queue, uploads_queue

__all__ = ["BrokerLook", "buried_in", "no_broker"]

_KEPT = 4.0
"""Seconds for which an answer is given again, however many pages ask."""
_RUNS = 20
"""Runs whose queues are asked for by name."""
_REASONS = 100
_BURIED = re.compile(
    r"message from (?P<queue>\S+) to flmq\.dead, sent by (?P<sender>.{1,300}?): (?P<reason>.*?)"
    r"(?: \(and (?P<more>\d+) like it before, that were not logged\))?",
    re.DOTALL,
)
_NO_BROKER = (
    "The page was started without a broker's URL, and needs none but for this view: "
    "flmq ui --broker amqp://user:password@host:5672/vhost"
)


_UNSAID = "not logged one by one, as there were many"

_Reason = tuple[str, str, str, str]
"""The run, the queue that the message came by, who sent it, and what is wrong with it."""


def no_broker() -> dict[str, Any]:
    """Return what the view shows where the page knows no broker."""
    return {"broker": None, "how": _NO_BROKER}


class BrokerLook:
    """Looks at one broker, at most every few seconds. Thread-safe."""

    def __init__(
        self,
        url: str,
        look: Callable[[str, Sequence[str]], Overview] = look_at_broker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at the broker at ``url``, when asked to."""
        self._url = url
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, dict[str, Any]] | None = None

    def now(self, running: Sequence[str]) -> dict[str, Any]:
        """Return what the broker has; ``running``: jobs with a server, whose queues are in use."""
        with self._lock:
            if self._last is not None and self._clock() - self._last[0] < _KEPT:
                return self._last[1]
            found = self._look(self._url, _names(running))
            told = _told(found)
            self._last = self._clock(), told
            return told


def _names(running: Sequence[str]) -> list[str]:
    """Return the queues that do not expire, or are in use."""
    return [
        DEAD,
        *(
            queue(job)
            for job in running[:_RUNS]
            for queue in (replies_queue, uploads_queue, presence_queue)
        ),
    ]


def _told(found: Overview) -> dict[str, Any]:
    dead = next((queue for queue in found.queues if queue.name == DEAD), None)
    return {
        "broker": found.shown_url,
        "how": "",
        "at_ms": round(time.time() * 1000),
        "checks": [asdict(check) for check in found.checks],
        "queues": [asdict(queue) for queue in found.queues],
        "queues_total": found.queues_total,
        "connections": [asdict(each) for each in found.connections],
        "management_problem": found.management_problem,
        "dead": None if dead is None else {"ready": dead.ready, "size": dead.size},
    }


def buried_in(lines: Iterable[tuple[str, Happened]]) -> list[dict[str, Any]]:
    """Return why servers sent messages to ``flmq.dead``, from log lines by their runs.

    The latest reasons come first, 100 at most; what was not logged one by one has none.
    """
    found: dict[_Reason, dict[str, Any]] = {}
    for job, line in lines:
        match = _BURIED.fullmatch(line.text)
        if match is None:
            continue
        more = int((match["more"] or "0")[:9])
        for key, count in (
            ((job, match["queue"], match["sender"], match["reason"]), 1),
            ((job, match["queue"], "", _UNSAID), more),
        ):
            if count:
                _add(found, key, count, line.at_unix_ms)
    return sorted(found.values(), key=lambda each: -int(each["at_ms"]))[:_REASONS]


def _add(found: dict[_Reason, dict[str, Any]], key: _Reason, count: int, at: int) -> None:
    named = dict(zip(("job", "queue", "sender", "reason"), key, strict=True))
    known = found.setdefault(key, {**named, "count": 0, "at_ms": at})
    known["count"] += count
    known["at_ms"] = max(at, known["at_ms"])
