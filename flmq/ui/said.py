"""What a person would say of a round: who slowed it, and who is missing and why. Pure.

It takes the JSON of a round as the API gives it (`flmq.ui` serves both together) and returns
sentences. A sentence is a list of pieces, so that the page can link clients and show times in its
reader's time zone: a text, ``{"client": id}``, or ``{"at_ms": Unix ms by the server's clock}``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from flmq.ui.parts import (
    Json,
    ask_of,
    asks_of,
    befell,
    begin_of,
    counted_of,
    seconds_of,
    span_of,
    touches,
)

__all__ = ["Sentence", "as_text", "sentences_of_round"]

Piece = str | dict[str, Any]
Sentence = list[Piece]

_NAMED = 3
"""Clients that are named before the rest is counted."""
_TWICE = 1.5
"""How many times the median a client takes that slows a round."""
_NEARLY = 0.2
"""Share of the slowest one's excess over the median from which another one is told of, too."""
_NOTICED = 0.2
"""Seconds below which nobody is said to have slowed anything."""
_LONGEST = 160
"""Characters of a reason that are told: a client writes it."""
_NOUNS = {"fit": "training", "evaluate": "evaluation"}
_TRAINING = ("training_started_ms", "training_ended_ms")
_STEPS: tuple[tuple[str, str, str], ...] = (
    ("waiting in its queue", "published_ms", "taken_ms"),
    ("waiting for its other tasks", "taken_ms", "begun_ms"),
    ("reading the model", "begun_ms", "training_started_ms"),
    ("training", *_TRAINING),
    ("sending its reply", "training_ended_ms", "received_ms"),
)


def sentences_of_round(found: Json, marks: Iterable[Json] = ()) -> list[Sentence]:
    """Return what to say of a round, the most important first.

    Args:
        found: ``{"round": .., "phases": [..]}`` as the API gives it.
        marks: what befell the run (``at_ms``, ``until_ms``, ``kind``, ``text``); those within the
            round are told.
    """
    number = (found.get("round") or {}).get("round")
    phases: Sequence[Json] = found.get("phases") or ()
    missing = [each for phase in phases for each in _missing(number, phase)]
    broken = [each for each in marks if each.get("kind") != "note"]
    slow = [each for phase in phases for each in _slow(number, phase, broken)]
    waiting = [each for phase in phases for each in _waiting(phase)]
    sentences = [*waiting, *missing, *slow, *_meanwhile(found, broken)]
    return sentences or _uneventful(number, phases)


def as_text(sentence: Sentence, at: Callable[[int], str] | None = None) -> str:
    """Return a sentence as plain text; ``at`` writes a time (by default: local time of day)."""
    write = at or (lambda ms: time.strftime("%H:%M:%S", time.localtime(ms / 1000)))
    return "".join(
        each if isinstance(each, str) else each.get("client") or write(each["at_ms"])
        for each in sentence
    )


# -- who slowed it -------------------------------------------------------------------------------


def _slow(number: object, phase: Json, broken: Sequence[Json]) -> list[Sentence]:
    """Say who kept a closed phase open for longer than the rest would have taken.

    Where server or broker were gone for a while, only who trained for longer is to blame.
    """
    if phase.get("closed_ms") is None or phase.get("streamed"):  # nobody waits in a stream
        return []
    took = seconds_of(phase)
    mid = median(took.values()) if took else None
    vain = [part for part in asks_of(phase) if part.get("outcome") in ("silent", "unroutable")]
    if vain and phase.get("reason") == "deadline":
        return [_in_vain(number, phase, vain, took)]
    if mid is None or len(took) < 2:
        return []
    slow = sorted((s, who) for who, s in took.items() if s > max(mid * _TWICE, mid + _NOTICED))
    slow.reverse()
    if any(befell(mark, phase) for mark in broken):
        slow = [(s, who) for s, who in slow if _trained_longer(who, phase, s - mid)]
    if not slow or len(slow) * 2 > len(took):
        return []
    seconds, who = slow[0]
    part = next(part for part in asks_of(phase) if ask_of(part) == who)
    said: Sentence = [
        _client(part),
        f" slowed {_where(number, phase)}: its reply came {_s(seconds - mid)} after the median ",
        f"of all ({_s(seconds)}, median {_s(mid)})",
    ]
    cause = _cause(part, phase)
    said.append(f"; {cause}." if cause else ".")
    sentences = [said]
    slow = [(s, name) for s, name in slow if s - mid >= (seconds - mid) * _NEARLY]
    if len(slow) > 1:
        by_name = {ask_of(each): each for each in asks_of(phase)}
        others: Sentence = ["Slow too: "]
        for place, (s, name) in enumerate(slow[1 : 1 + _NAMED]):
            others += [", " if place else "", _client(by_name[name]), f" ({_s(s)})"]
        rest = len(slow) - 1 - _NAMED
        others.append(f", and {rest:,} more." if rest > 0 else ".")
        sentences.append(others)
    return sentences


def _trained_longer(who: str, phase: Json, over: float) -> bool:
    """Return whether training explains half of the seconds by which a client was slower."""
    trained = {ask_of(each): span_of(each, *_TRAINING) for each in counted_of(phase)}
    own, known = trained.get(who), [each for each in trained.values() if each is not None]
    return own is not None and own - median(known) > over / 2


def _in_vain(
    number: object, phase: Json, vain: Sequence[Json], took: Mapping[str, float]
) -> Sentence:
    closed, opened = phase["closed_ms"], phase.get("opened_ms") or phase["closed_ms"]
    last = max(took.values(), default=None)
    open_for = (closed - opened) / 1000
    said: Sentence = [f"{_capital(_where(number, phase))} waited for "]
    said += _names(vain)
    said.append(f" until its deadline, after {_s(open_for)}")
    if last is not None and open_for - last > _NOTICED:
        said.append(f": {_s(open_for - last)} longer than for the last that answered ({_s(last)})")
    return [*said, "."]


def _cause(part: Json, phase: Json) -> str:
    """Say which step took longer than others' by the most, or what else is known."""
    excess = []
    for words, begin, end in _STEPS:
        own = span_of(part, begin, end)
        others = [span_of(each, begin, end) for each in counted_of(phase)]
        known = [each for each in others if each is not None]
        if own is not None and known:
            excess.append((own - median(known), own, words))
    causes = []
    deliveries, deaths = part.get("deliveries") or 0, part.get("deaths") or 0
    again = span_of(part, "taken_ms", "training_started_ms")
    if deaths and again is not None:
        # What the process that died had done is not told: only when the last one began.
        causes.append(f"it trained anew {_s(again)} after it had taken the task")
    elif excess:
        more, own, words = max(excess)
        if more > _NOTICED / 2:
            causes.append(f"{_s(more)} more than the median went into {words} ({_s(own)})")
    else:
        causes.append("where the time went is not known, as it told no times that can be used")
    if deaths:
        causes.insert(0, f"its process died {_times(deaths)} in it")
    if deliveries > 1:
        causes.append(f"it took the task {_times(deliveries)}")
    away = [each for each in part.get("away") or () if touches(each, phase)]
    if away:
        causes.append("it was away for a while")
    return "; ".join(causes)


# -- who is missing ------------------------------------------------------------------------------


def _missing(number: object, phase: Json) -> list[Sentence]:
    if phase.get("closed_ms") is None:
        return []
    asks = asks_of(phase)
    absent = [part for part in asks if part.get("outcome") not in ("accepted", "open")]
    if not absent:
        return []
    count, asked = len(absent), phase.get("asked") or len(asks)
    head = f"{_capital(_where(number, phase))} has {_fewer(count)} ({asked - count:,} of {asked:,})"
    if count == 1:
        return [[f"{head}: ", *_why(absent[0], phase), "."]]
    by_outcome = Counter(str(part.get("outcome")) for part in absent)
    split = ", ".join(f"{n:,} {outcome}" for outcome, n in by_outcome.most_common())
    sentences: list[Sentence] = [[f"{head}: {split}."]]
    sentences += [[*_why(part, phase), "."] for part in absent[:_NAMED]]
    if count > _NAMED:
        sentences.append([f"{count - _NAMED:,} more are marked below."])
    return sentences


def _why(part: Json, phase: Json) -> Sentence:
    """Say why a client's reply does not count, as far as is known."""
    who, reason = _client(part), _cut(part.get("reason"))
    outcome = part.get("outcome")
    if outcome == "failed":
        return [who, f" failed: {reason}" if reason else " failed"]
    if outcome == "rejected":
        return [who, f" was rejected: {reason}" if reason else " was rejected"]
    if outcome == "unroutable":
        return [who, " could not be asked: it has no queue at the broker"]
    said: Sentence = [who, " did not answer"]
    facts = [*_of_presence(part, phase), *_of_task(part, phase)]
    for place, fact in enumerate(facts):
        said += [": " if place == 0 else "; ", *fact]
    if not facts and reason and reason != "deadline":
        said.append(f": {reason}")
    elif not facts and part.get("away") is None:
        said.append("; where it was meanwhile is not recorded")
    return said


def _of_presence(part: Json, phase: Json) -> list[Sentence]:
    closed = phase["closed_ms"]
    away = sorted((each for each in part.get("away") or () if touches(each, phase)), key=begin_of)
    if not away:
        return []
    since, until = away[-1]
    said: Sentence = ["it was away, without a sign of life, from ", {"at_ms": since}]
    if since <= (phase.get("opened_ms") or since):
        said = ["it had been away, without a sign of life, since ", {"at_ms": since}]
    if until is None:
        said.append(" and has not come back since")
    else:
        said += [" until ", {"at_ms": until}]
        if until > closed:
            said.append(f", {_s((until - closed) / 1000)} after the closing")
    return [said]


def _of_task(part: Json, phase: Json) -> list[Sentence]:
    facts: list[Sentence] = []
    known = [part, *_later(part, phase)]
    deaths = max(each.get("deaths") or 0 for each in known)
    taken = next((each["taken_ms"] for each in known if each.get("taken_ms")), None)
    if deaths:
        facts.append([f"its process died {_times(deaths)} in this task"])
    if taken is not None and taken <= phase["closed_ms"]:
        facts.append(["it had taken the task at ", {"at_ms": taken}])
    late = next((float(each["late_by"]) for each in known if each.get("late_by")), None)
    if late is not None:
        facts.append([f"its reply came {_s(late)} after the closing"])
    return facts


def _later(part: Json, phase: Json) -> list[Json]:
    """Return what is told of a client's replies after the closing."""
    parts = phase.get("parts") or ()
    return [each for each in parts if each is not part and ask_of(each) == ask_of(part)]


# -- a round that is open, and one of which there is nothing to say --------------------------------


def _waiting(phase: Json) -> list[Sentence]:
    if phase.get("closed_ms") is not None:
        return []
    asks = asks_of(phase)
    awaited = [part for part in asks if part.get("outcome") in (None, "open")]
    noun, asked = _noun(phase), phase.get("asked") or len(asks)
    if not awaited:
        return [[f"All {asked:,} have answered in {noun}; their replies are being added up."]]
    said: Sentence = [f"{asked - len(awaited):,} of {asked:,} have answered in {noun}; awaited: "]
    said += _names(sorted(awaited, key=lambda part: not part.get("away")))
    gone = [part for part in awaited if (away := part.get("away")) and away[-1][1] is None]
    if gone:
        said += ["; away now: ", *_names(gone)]
    return [[*said, "."]]


def _uneventful(number: object, phases: Sequence[Json]) -> list[Sentence]:
    sentences: list[Sentence] = []
    calls = sum(bool(phase.get("call")) for phase in phases)
    for phase in phases:
        took = sorted(seconds_of(phase).values())
        if took and not phase.get("call"):
            when = f"the median after {_s(median(took))}, the last after {_s(took[-1])}"
            nobody = f"Nobody slowed {_where(number, phase)}, and nobody is missing"
            replies = "one reply" if len(took) == 1 else f"{len(took):,} replies"
            sentences.append([f"{nobody}: {replies}, {when}."])
    if calls:
        sentences.append([f"What the strategy asked by itself was answered ({calls:,} calls)."])
    return sentences


def _meanwhile(found: Json, marks: Iterable[Json]) -> list[Sentence]:
    """Tell what befell server and broker between a round's opening and closing."""
    head = found.get("round") or {}
    told: list[Sentence] = []
    for mark in marks:
        at = mark.get("at_ms")
        if at is not None and befell(mark, head):
            said: Sentence = ["Meanwhile, at ", {"at_ms": at}]
            if (until := mark.get("until_ms")) is not None:
                said = ["Meanwhile, from ", {"at_ms": at}, " until ", {"at_ms": until}]
            told.append([*said, f": {_cut(mark.get('text'))}."])
    return told[:_NAMED]


# -- words ---------------------------------------------------------------------------------------


def _client(part: Json) -> Piece:
    return {"client": str(part.get("client"))}


def _names(parts: Sequence[Json]) -> Sentence:
    said: Sentence = []
    for place, part in enumerate(parts[:_NAMED]):
        said += [", ", _client(part)] if place else [_client(part)]
    rest = len(parts) - _NAMED
    return [*said, f" and {rest:,} more"] if rest > 0 else said


def _where(number: object, phase: Json) -> str:
    noun = _noun(phase)
    call = phase.get("call") or 0
    again = f" (call {call})" if call else ""
    return f"round {number}{again}" if noun == "training" else f"round {number}'s {noun}{again}"


def _noun(phase: Json) -> str:
    return _NOUNS.get(str(phase.get("phase")), str(phase.get("phase")))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fewer(count: int) -> str:
    return "one reply less" if count == 1 else f"{count:,} replies less"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _cut(text: object) -> str:
    said = " ".join(str(text or "").split()).rstrip(".")
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"


def _s(seconds: float) -> str:
    """Write seconds as people read them."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
