"""What the page says of a round in plain words: who slowed it, who is missing, and why."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.ui.said import as_text, sentences_of_round

T0 = 1_700_000_000_000


def part(client: str, seconds: float | None = 1.0, **changes: Any) -> dict[str, Any]:
    """A part of which all times are known, whose training takes all but 0.2 s."""
    ms = None if seconds is None else T0 + round(seconds * 1000)
    values: dict[str, Any] = {
        "client": client,
        "ask": client,
        "outcome": "accepted" if ms is not None else "silent",
        "published_ms": T0,
        "taken_ms": ms and T0 + 50,
        "training_started_ms": ms and T0 + 100,
        "training_ended_ms": ms and ms - 100,
        "received_ms": ms,
        "counted_ms": ms and ms + 5,
        "deliveries": 1,
        "away": [],
    }
    return values | changes


def a_round(
    *parts: dict[str, Any], number: int = 7, closed: float | None = 10.0, **changes: Any
) -> dict[str, Any]:
    """A round of one phase, of training."""
    closed_ms = None if closed is None else T0 + round(closed * 1000)
    phase = {
        "phase": "fit",
        "call": 0,
        "opened_ms": T0,
        "closed_ms": closed_ms,
        "reason": "all answered",
        "asked": len({each["ask"] for each in parts}),
        "parts": list(parts),
    }
    head = {"round": number, "opened_ms": T0, "closed_ms": closed_ms}
    return {"round": head, "phases": [phase | changes]}


def told(found: dict[str, Any], **more: Any) -> list[str]:
    """The sentences as text, with times as seconds since the phase was opened."""
    sentences = sentences_of_round(found, **more)
    return [as_text(each, lambda ms: f"<{(ms - T0) / 1000:g}>") for each in sentences]


def test_the_client_that_slowed_a_round_is_named_with_what_it_did() -> None:
    parts = [part(f"c{n}") for n in range(5)]
    assert told(a_round(*parts, part("slow", 6.5))) == [
        (
            "slow slowed round 7: its reply came 5.5 s after the median of all (6.5 s, "
            "median 1.0 s); 5.5 s more than the median went into training (6.3 s)."
        )
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"taken_ms": T0 + 5000, "training_started_ms": T0 + 5050}, "waiting in its queue (5.0 s)"),
        ({"training_started_ms": T0 + 5050}, "reading the model (5.0 s)"),
        ({"training_ended_ms": T0 + 1000}, "sending its reply (5.5 s)"),
    ],
)
def test_the_step_that_took_longer_is_named(changes: dict[str, Any], words: str) -> None:
    parts = [part(f"c{n}") for n in range(5)]
    assert words in told(a_round(*parts, part("slow", 6.5, **changes)))[0]


def test_deaths_deliveries_and_time_away_are_told_of_who_slowed_it() -> None:
    parts = [part(f"c{n}") for n in range(5)]
    away = [[T0 + 1000, T0 + 3000], [T0 - 9000, T0 - 8000]]
    slow = part("slow", 6.5, deaths=2, deliveries=3, away=away)
    assert told(a_round(*parts, slow))[0].endswith(
        "; its process died twice in it; it trained anew 0.05 s after it had taken the task; "
        "it took the task 3 times; it was away for a while."
    )


def test_an_older_peers_times_are_said_not_to_be_known() -> None:
    none = dict.fromkeys(("taken_ms", "training_started_ms", "training_ended_ms"))
    parts = [part(f"c{n}", **none) for n in range(5)]
    said = told(a_round(*parts, part("slow", 6.5, **none | {"published_ms": None})))
    assert said[0].endswith(
        "where the time went is not known, as it told no times that can be used."
    )


def test_further_slow_clients_are_named_and_the_rest_counted() -> None:
    parts = [part(f"c{n:02}") for n in range(20)]
    slow = [part(f"slow{n}", 4.0 + n) for n in range(6)]
    said = told(a_round(*parts, *slow))
    assert said[0].startswith("slow5 slowed round 7: its reply came 8.0 s after the median")
    assert said[1] == "Slow too: slow4 (8.0 s), slow3 (7.0 s), slow2 (6.0 s), and 2 more."


def test_nobody_is_accused_of_what_all_do() -> None:
    spread = [part(f"c{n}", 1 + n / 20) for n in range(10)]
    assert told(a_round(*spread)) == [
        (
            "Nobody slowed round 7, and nobody is missing: 10 replies, the median after 1.2 s, "
            "the last after 1.4 s."
        )
    ]
    quick = [part(f"c{n}", 0.01 * (1 + n)) for n in range(10)]
    assert told(a_round(*quick))[0].startswith("Nobody slowed round 7")


def test_a_client_that_was_away_until_after_the_deadline() -> None:
    parts = [part(f"c{n}") for n in range(7)]
    gone = part("c7", None, away=[[T0 + 2000, T0 + 12_500]])
    late = part("c7", 13.0, outcome="late", late_by=3.0, deaths=1)
    said = told(a_round(*parts, gone, late, number=9, reason="deadline"))
    assert said == [
        (
            "Round 9 has one reply less (7 of 8): c7 did not answer: it was away, without a "
            "sign of life, from <2> until <12.5>, 2.5 s after the closing; its process died "
            "once in this task; it had taken the task at <0.05>; its reply came 3.0 s after the "
            "closing."
        ),
        (
            "Round 9 waited for c7 until its deadline, after 10 s: 9.0 s longer than for the last "
            "that answered (1.0 s)."
        ),
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"away": [[T0 - 5000, None]]}, "since <-5> and has not come back since"),
        ({"taken_ms": T0 + 70}, "it had taken the task at <0.07>"),
        ({"deaths": 1}, "its process died once in this task"),
        (
            {"outcome": "failed", "reason": "ValueError: no data."},
            "c1 failed: ValueError: no data.",
        ),
        ({"outcome": "rejected", "reason": "2 tensors"}, "c1 was rejected: 2 tensors."),
        ({"outcome": "unroutable"}, "c1 could not be asked: it has no queue at the broker."),
        ({"reason": "deadline"}, "c1 did not answer."),
        ({"away": None}, "c1 did not answer; where it was meanwhile is not recorded."),
    ],
)
def test_why_a_client_is_missing(changes: dict[str, Any], why: str) -> None:
    said = told(a_round(part("c0"), part("c1", None, **changes)))
    assert said[-1].startswith("Round 7 has one reply less (1 of 2): ")
    assert why in said[-1]


def test_many_that_are_missing_are_counted_and_some_named() -> None:
    parts = [part(f"c{n}") for n in range(995)]
    silent = [part(f"s{n}", None) for n in range(4)]
    failed = part("f", None, outcome="failed", reason="x" * 1000)
    said = told(a_round(*parts, *silent, failed))
    assert said[0] == "Round 7 has 5 replies less (995 of 1,000): 4 silent, 1 failed."
    assert said[1:4] == [f"s{n} did not answer." for n in range(3)]
    assert said[4] == "2 more are marked below."


def test_an_open_round_says_who_is_awaited() -> None:
    waiting = [part(f"w{n}", None, outcome="open") for n in range(4)]
    waiting[3]["away"] = [[T0 + 100, None]]
    said = told(a_round(part("c0"), *waiting, closed=None))
    assert said == [
        "1 of 5 have answered in training; awaited: w3, w0, w1 and 1 more; away now: w3."
    ]
    assert "being added up" in told(a_round(part("c0"), closed=None))[0]


def test_what_befell_the_server_meanwhile_is_told() -> None:
    marks = [
        {"at_ms": T0 + 500, "kind": "resume", "text": "the server was resumed"},
        {"at_ms": T0 + 600, "kind": "note", "text": "nothing to speak of"},
        {"at_ms": T0 - 900, "until_ms": T0 + 700, "kind": "outage", "text": "connection lost"},
        {"at_ms": T0 + 99_000, "kind": "outage", "text": "later"},
    ]
    said = told(a_round(part("a"), part("b")), marks=marks)
    assert said == [
        "Meanwhile, at <0.5>: the server was resumed.",
        "Meanwhile, from <-0.9> until <0.7>: connection lost.",
    ]


def test_nobody_is_accused_while_server_or_broker_were_gone_but_who_trained_longer() -> None:
    outage = [{"at_ms": T0 + 500, "until_ms": T0 + 5000, "kind": "outage", "text": "gone"}]
    parts = [part(f"c{n}") for n in range(5)]
    waited = part("waited", 6.0, training_ended_ms=T0 + 900)
    assert told(a_round(*parts, waited), marks=outage) == ["Meanwhile, from <0.5> until <5>: gone."]
    (slowed, _) = told(a_round(*parts, waited, part("slow", 6.0)), marks=outage)
    assert slowed.startswith("slow slowed round 7")


def test_names_and_reasons_are_pieces_of_their_own_and_bounded() -> None:
    name = "<script>alert(1)</script>"
    found = a_round(part("a"), part(name, None, outcome="failed", reason="a\nb " + "y" * 999))
    (sentence,) = sentences_of_round(found)
    assert {"client": name} in sentence
    assert all("<script>" not in each for each in sentence if isinstance(each, str))
    assert len(as_text(sentence)) < 260
    assert "\n" not in as_text(sentence)


@pytest.mark.parametrize("found", [{}, {"phases": []}, {"round": None, "phases": [{}]}])
def test_of_nothing_nothing_is_said(found: dict[str, Any]) -> None:
    assert sentences_of_round(found) == [] or found["phases"]
