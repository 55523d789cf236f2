"""A task answered: every way in which the user's code may end becomes a reply."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from flmq.client import Client, NumPyClient
from flmq.client.tasks.answering import answer_task
from flmq.common import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetPropertiesIns,
    Parameters,
    ReconnectIns,
)
from flmq.common.errors import MalformedMessage, TransportClosed
from flmq.common.phase import Phase
from flmq.common.typing import Code, DisconnectRes, GetParametersRes, GetPropertiesRes
from flmq.wire import Failure, FailureKind, Ins, Reply, Task, decode, encode
from flmq.wire.kinds import Kind, UnknownKind, register
from tests.end_to_end.federation import OK

NONE = Parameters([], "numpy.ndarray")
NOW = 1_700_000_000.0


def task(ins: Ins, phase: Phase, deadline: float | None = None) -> Task:
    return Task(
        task_id="t",
        job="job",
        server_round=3,
        phase=phase,
        client_id="a",
        epoch=7,
        nonce=b"nonce",
        ins=ins,
        deadline_unix_ms=None if deadline is None else round(deadline * 1000),
    )


class Answers(Client):
    def fit(self, ins: FitIns) -> FitRes:
        return FitRes(OK, ins.parameters, 3, {"lr": ins.config["lr"]})

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        raise ZeroDivisionError("no examples")


def _answer(asked: Task, get_client: Callable[[], Client] = Answers) -> Reply:
    return answer_task(asked, lambda: asked, get_client, lambda: NOW)


FIT = task(FitIns(NONE, {"lr": 0.1}), Phase.FIT)


def test_a_reply_names_its_task_and_proves_that_it_was_read() -> None:
    reply = _answer(FIT)
    assert reply.res == FitRes(OK, NONE, 3, {"lr": 0.1})
    assert (reply.task_id, reply.job, reply.server_round) == ("t", "job", 3)
    assert (reply.phase, reply.client_id) == (Phase.FIT, "a")
    assert (reply.epoch, reply.nonce) == (7, b"nonce")
    assert reply.seconds >= 0


def test_what_a_method_or_factory_raises_is_a_failure_with_its_traceback() -> None:
    res = _answer(task(EvaluateIns(NONE, {}), Phase.EVALUATE)).res
    assert isinstance(res, Failure)
    assert (res.kind, res.exception_type) == (FailureKind.EXCEPTION, "ZeroDivisionError")
    assert res.message == "no examples"
    assert "in evaluate" in res.traceback_tail

    def factory() -> Client:
        raise OSError("no data")

    res = _answer(FIT, factory).res
    assert isinstance(res, Failure)
    assert (res.kind, res.exception_type) == (FailureKind.EXCEPTION, "OSError")


@pytest.mark.parametrize(
    ("ins", "phase", "code"),
    [
        (GetPropertiesIns({}), Phase.GET_PROPERTIES, Code.GET_PROPERTIES_NOT_IMPLEMENTED),
        (GetParametersIns({}), Phase.GET_PARAMETERS, Code.GET_PARAMETERS_NOT_IMPLEMENTED),
    ],
)
def test_a_method_that_was_left_out_says_so(ins: Ins, phase: Phase, code: Code) -> None:
    res = _answer(task(ins, phase)).res
    assert isinstance(res, GetPropertiesRes | GetParametersRes)
    assert res.status.code is code


@dataclass
class GreetIns:
    name: str


@dataclass
class GreetRes:
    said: str


GREET = register(Kind("test.greet", GreetIns, GreetRes, call="greet"))


class Greets(NumPyClient):
    def greet(self, ins: GreetIns) -> GreetRes:
        return GreetRes(f"hello {ins.name}")


class SaysSo(Client):
    def greet(self, ins: GreetIns) -> str:
        return f"hello {ins.name}"


def test_a_kind_that_a_program_adds_calls_the_method_that_it_names() -> None:
    asked = task(GreetIns("bob"), GREET.phase)
    reply = _answer(asked, lambda: Greets().to_client())
    assert (reply.phase, reply.res) == (GREET.phase, GreetRes("hello bob"))
    decoded = decode(encode(reply))
    assert decoded == reply


@pytest.mark.parametrize(
    ("client", "kind", "said"),
    [
        (SaysSo, FailureKind.BAD_RETURN, "SaysSo.greet returned a str, not a GreetRes"),
        (
            Answers,
            FailureKind.REFUSED,
            "Answers has no method 'greet', which a message of kind test.greet calls: implement it",
        ),
    ],
)
def test_a_client_that_cannot_says_what_to_do(
    client: type[Client], kind: FailureKind, said: str
) -> None:
    res = _answer(task(GreetIns("bob"), GREET.phase), client).res
    assert isinstance(res, Failure)
    assert (res.kind, res.message) == (kind, said)


def test_a_kind_that_is_not_registered_here_is_answered_so() -> None:
    asked = task(UnknownKind(b"\x01"), Phase("test.elsewhere"))
    reply = answer_task(asked, pytest.fail, pytest.fail, lambda: NOW)
    assert isinstance(reply.res, Failure)
    assert reply.res.kind is FailureKind.REFUSED
    assert reply.res.message == (
        "this client does not know messages of kind test.elsewhere: register it in the client's "
        "program"
    )
    assert decode(encode(reply)) == reply


def test_a_task_whose_deadline_has_passed_is_not_begun(caplog: pytest.LogCaptureFixture) -> None:
    res = _answer(task(FIT.ins, Phase.FIT, NOW - 2.5), lambda: pytest.fail("begun")).res
    assert isinstance(res, Failure)
    assert res.kind is FailureKind.EXPIRED
    assert "2.5 s after its deadline" in res.message
    assert caplog.messages == [f"job job, round 3, fit: Expired: {res.message}"]
    assert isinstance(_answer(task(FIT.ins, Phase.FIT, NOW + 1)).res, FitRes)


def test_a_model_that_cannot_be_had_is_a_refusal_and_a_stop_is_none() -> None:
    def unreadable() -> Task:
        raise MalformedMessage("the model is damaged")

    res = answer_task(FIT, unreadable, Answers, lambda: NOW).res
    assert isinstance(res, Failure)
    assert (res.kind, res.message) == (FailureKind.REFUSED, "the model is damaged")

    def stopping() -> Task:
        raise TransportClosed("the worker is stopping")

    with pytest.raises(TransportClosed):
        answer_task(FIT, stopping, Answers, lambda: NOW)


def test_a_request_to_leave_needs_no_client() -> None:
    asked = task(ReconnectIns(None), Phase.RECONNECT)
    res = _answer(asked, lambda: pytest.fail("made")).res
    assert res == DisconnectRes("leaving")


def test_ctrl_c_in_the_users_code_is_not_its_failure() -> None:
    class Interrupted(Client):
        def fit(self, ins: FitIns) -> FitRes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _answer(FIT, Interrupted)


@pytest.mark.parametrize("ending", ["returns", "raises", "exits"])
def test_a_forked_child_that_comes_back_ends_there(ending: str) -> None:
    """Else two processes would go on as the one worker."""
    children: list[int] = []

    class Forks(Answers):
        def fit(self, ins: FitIns) -> FitRes:
            pid = os.fork()
            if pid == 0 and ending != "returns":
                raise ValueError if ending == "raises" else SystemExit(0)
            children.append(pid)
            return super().fit(ins)

    assert isinstance(_answer(FIT, Forks).res, FitRes)
    (child,) = children
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 70


def test_on_the_main_thread_an_exit_passes_for_it_may_be_a_signals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Exits(Answers):
        def fit(self, ins: FitIns) -> FitRes:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        _answer(FIT, Exits)
    assert "job job, round 3, fit: the process exits (SystemExit: 3)" in caplog.text
