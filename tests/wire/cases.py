"""One of every message, for all tests of the wire; and equality that tells 1, 1.0, True apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum

import numpy as np

from flmq.common.parameter import ndarrays_to_parameters
from flmq.common.phase import Phase
from flmq.common.times import WorkerTimes
from flmq.common.typing import (
    Code,
    Config,
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    ReconnectIns,
    Status,
)
from flmq.wire.blobs import BlobRef
from flmq.wire.bodies import Body
from flmq.wire.envelopes import (
    Begun,
    Companion,
    Failure,
    FailureKind,
    Ins,
    JobEnded,
    ModelRequest,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    Res,
    RollCall,
    Sealed,
    Task,
)
from flmq.wire.ids import task_id
from flmq.wire.regional import (
    PARTIAL_TENSORS,
    AggregateOrder,
    AggregatorReport,
    Asked,
    OrderInHand,
    PartialSum,
    ReplyRule,
    SendPartial,
)

SCALARS: Config = {
    "": "empty key",
    "yes": True,
    "no": False,
    "one": 1,
    "one.0": 1.0,
    "least": -(2**63),
    "most": 2**63 - 1,
    "tiny": 5e-324,
    "nan": float("nan"),
    "-inf": float("-inf"),
    "-0.0": -0.0,
    "empty": "",
    "text": "naïve 漢字 🌍 \x00",
    "raw": b"\x00\xff\xfe",
    "none": b"",
}
OK = Status(Code.OK, "Success")
MODEL = ndarrays_to_parameters(
    [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(True), np.zeros((0, 2), np.int64)]
)
NOTHING = Parameters(tensors=[], tensor_type="")


def task(ins: Ins, phase: Phase = Phase.FIT) -> Task:
    """A task with everything set."""
    return Task(
        task_id=task_id("job-1", 3, phase, "alice"),
        job="job-1",
        server_round=3,
        phase=phase,
        client_id="alice",
        epoch=2**64 - 1,
        nonce=b"\x00nonce\xff",
        ins=ins,
        deadline_unix_ms=1_700_000_000_123,
        timeout_seconds=12.5,
    )


def reply(res: Res, phase: Phase = Phase.FIT) -> Reply:
    """A reply with everything set."""
    return Reply(
        task_id=task_id("job-1", 3, phase, "alice"),
        job="job-1",
        server_round=3,
        phase=phase,
        client_id="alice",
        epoch=7,
        nonce=b"\x00nonce\xff",
        seconds=0.25,
        res=res,
    )


def _statuses() -> dict[str, Body]:
    return {
        f"reply with {code.name}": reply(FitRes(Status(code, ""), NOTHING, 0, {})) for code in Code
    }


def _failures() -> dict[str, Body]:
    return {
        f"failure {kind.name}": reply(Failure(kind, "ValueError", "no data: ü", 'File "a.py"\n'))
        for kind in FailureKind
    }


def _receipts() -> dict[str, Body]:
    return {
        f"receipt {outcome.name}": Receipt(
            "t1", "job-1", 1, Phase.EVALUATE, "bob", outcome, "so it is", 1.5
        )
        for outcome in ReceiptOutcome
    }


def _presences() -> dict[str, Body]:
    return {
        f"presence {kind.name}": Presence(
            kind, "bob", "main", "host-1-abc", SCALARS, 1_700_000_000_123, 30.0, "0.1.0"
        )
        for kind in PresenceKind
    }


_ASKED = (
    Asked("t1", "alice", b"n"),
    Asked("t2", "alice", b"\x00\xff", "alice#2"),
    Asked("t3", "bob", b"m" * 16, site="eu-west-2"),
)
_ORDER = AggregateOrder("o1", "job-1", 3, Phase.FIT, "eu", 7, b"nonce", "r1", NOTHING, _ASKED)
_FOLLOWING = BlobRef("a" * 64, PARTIAL_TENSORS, (0, 12))
_PARTIAL = PartialSum(
    "o1", "job-1", 3, Phase.FIT, "eu", 7, b"nonce", "r1", Parameters([b"", b"e"], PARTIAL_TENSORS)
)


def _regional() -> dict[str, Body]:
    return {
        "order": _ORDER,
        "order with everything": dataclasses.replace(
            _ORDER,
            parameters=MODEL,
            call=2,
            rule=ReplyRule.FINITE,
            cast=True,
            deadline_unix_ms=1_700_000_000_123,
            timeout_seconds=12.5,
            model=BlobRef("b" * 64, "numpy.ndarray", (3, 4), names=("a", "b")),
            reply_codec="zstd",
            max_reply_bytes=0,
            answer_to="eu-hub",
        ),
        "order that checks nothing": dataclasses.replace(_ORDER, rule=ReplyRule.NONE),
        "order of a kind": dataclasses.replace(_ORDER, phase=Phase("vote")),
        "partial sum": _PARTIAL,
        "partial sum that follows": dataclasses.replace(
            _PARTIAL, parameters=NOTHING, blob=_FOLLOWING
        ),
        "send partial": SendPartial("o1", "job-1", 7, "r1"),
        "receipt of an aggregator": Receipt(
            "o1", "job-1", 1, Phase.FIT, "!eu", ReceiptOutcome.REJECTED, "it lists bob twice"
        ),
        "model request of an aggregator": ModelRequest("job-1", "!eu", "a" * 64),
        "aggregator report": AggregatorReport(
            "eu",
            "host-1-abc",
            ("eu", "eu-west-2"),
            (OrderInHand("o1", b"digest", b"\x05"), OrderInHand("o2", b"", b"", answered=True)),
            1_700_000_000_123,
            2.0,
            "0.1.0",
        ),
        "aggregator that leaves": AggregatorReport("eu", "i", ("eu",)),
    }


_BARE_TASK = Task("t", "j", 0, Phase.FIT, "c", 0, b"", FitIns(NOTHING, {}))

BODIES: dict[str, Body] = {
    "fit task": task(FitIns(MODEL, SCALARS)),
    "evaluate task": task(EvaluateIns(MODEL, SCALARS), Phase.EVALUATE),
    "get_parameters task": task(GetParametersIns(SCALARS), Phase.GET_PARAMETERS),
    "get_properties task": task(GetPropertiesIns({}), Phase.GET_PROPERTIES),
    "reconnect task": task(ReconnectIns(5), Phase.RECONNECT),
    "reconnect task of 0 seconds": task(ReconnectIns(0), Phase.RECONNECT),
    "reconnect task for good": task(ReconnectIns(None), Phase.RECONNECT),
    "task with as little as can be": _BARE_TASK,
    "task with a deadline of 0": dataclasses.replace(
        _BARE_TASK, deadline_unix_ms=0, timeout_seconds=0.0
    ),
    "task of one whose aggregator adds up": dataclasses.replace(_BARE_TASK, via="eu-west"),
    "task to be done anew": dataclasses.replace(_BARE_TASK, again=2**64 - 1),
    "fit reply": reply(FitRes(OK, MODEL, 120, SCALARS)),
    "fit reply as since 1.5": dataclasses.replace(
        reply(FitRes(OK, MODEL, 120, SCALARS)), base="b" * 64, run="run-1"
    ),
    "fit reply as since 1.6": dataclasses.replace(
        reply(FitRes(OK, MODEL, 120, {})), times=WorkerTimes(5, 10, 10, 2**40, 2**45, 3, 0)
    ),
    "fit reply with as little of times as can be": dataclasses.replace(
        reply(FitRes(OK, MODEL, 120, {})), times=WorkerTimes()
    ),
    "fit reply of a negative number": reply(FitRes(OK, MODEL, -1, {})),
    "evaluate reply": reply(EvaluateRes(OK, 0.1, 2**62, SCALARS), Phase.EVALUATE),
    "evaluate reply of NaN": reply(EvaluateRes(OK, float("nan"), 0, {}), Phase.EVALUATE),
    "get_parameters reply": reply(GetParametersRes(OK, MODEL), Phase.GET_PARAMETERS),
    "get_properties reply": reply(GetPropertiesRes(OK, SCALARS), Phase.GET_PROPERTIES),
    "reconnect reply": reply(DisconnectRes("asked to"), Phase.RECONNECT),
    "reconnect reply without a word": reply(DisconnectRes(""), Phase.RECONNECT),
    **_statuses(),
    **_failures(),
    **_receipts(),
    **_presences(),
    "presence with as little as can be": Presence(PresenceKind.BYE, "c", "s", "i"),
    "presence of several": Presence(
        PresenceKind.HELLO,
        "c",
        "s",
        "i",
        others=(Companion("d"), Companion("e", {"gpus": 2}), Companion("f", SCALARS, "0f" * 16)),
    ),
    "roll call": RollCall("job-1", 3, 30.0),
    "roll call of one who hears of several": RollCall("job-1", 3, 30.0, hears_others=True),
    "roll call of one who is refused": RollCall("job-1", 3, 30.0, "r", "lack the property gpu"),
    "job ended": JobEnded("job-1", 3, "all rounds done"),
    "job ended without a word": JobEnded("j", 0),
    "begun": Begun("t-1", "bob", "a1b2"),
    "sealed": Sealed("Task", "!server", "bob", b"\x00letter\xff", "job-1", "run-1", b"manifest"),
    "signed": Sealed("Presence", "bob", "!all", b"letter"),
    "model request": ModelRequest("job-1", "bob", "a" * 64),
    **_regional(),
}


def exact(value: object) -> object:
    """A form of ``value`` whose equality sees types, NaN and -0.0, but no dict order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return type(value), [exact(getattr(value, field.name)) for field in fields]
    if isinstance(value, Mapping):
        return [(key, exact(value[key])) for key in sorted(value)]
    if isinstance(value, list | tuple):
        return type(value), [exact(item) for item in value]
    if isinstance(value, Enum):
        return value
    return type(value), repr(value)
