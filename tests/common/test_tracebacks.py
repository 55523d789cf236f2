"""Tracebacks: they begin in the user's code, and are whole where there is none in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest

from flmq.common.errors import InvalidClientId
from flmq.common.names import check_client_id
from flmq.common.parameter import ndarrays_to_parameters
from flmq.common.scalars import check_scalars
from flmq.common.tracebacks import user_traceback
from flmq.server.strategy import FedAvg
from flmq.wire import FailureKind
from flmq.wire.failures import failure_of


def raised(what: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as info:  # noqa: PT011  whatever it is
        what()
    return info.value


def lookup(*_: Any) -> Any:
    raise KeyError("no such table")


def in_libraries() -> Any:
    """A user's function, called by flmq, called by click."""
    strategy = FedAvg(evaluate_fn=lookup)

    @click.command()
    def command() -> None:
        strategy.evaluate(1, ndarrays_to_parameters([]))

    command.main([], standalone_mode=False)


def code_of(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    source = "def deep():\n    raise KeyError('x')\n"
    exec(compile(source, f"/home/user/{name}", "exec"), names)
    return names


def test_a_traceback_begins_with_the_users_first_frame() -> None:
    names = code_of("app.py")
    strategy = FedAvg(evaluate_fn=lambda *_: names["deep"]())
    error = raised(lambda: strategy.evaluate(1, ndarrays_to_parameters([])))
    text = user_traceback(error)
    assert "test_tracebacks.py" in text.splitlines()[1]
    assert 'File "/home/user/app.py", line 2, in deep' in text
    assert text.endswith("KeyError: 'x'\n")


def test_frames_of_click_and_flmq_before_it_are_left_out() -> None:
    error = raised(in_libraries)
    frames = [line for line in user_traceback(error).splitlines() if line.startswith("  File")]
    assert "click" not in frames[0]
    inner = raised(lambda: check_scalars(3, "x"))
    assert "flmq/common/scalars.py" in user_traceback(inner)  # after the user's own


def test_an_error_of_flmq_alone_is_shown_whole() -> None:
    error = raised(lambda: check_client_id("?"))
    # As it would be without this file's frames around it.
    assert error.__traceback__ is not None
    inside = error.__traceback__.tb_next
    while inside is not None and "flmq/common" not in inside.tb_frame.f_code.co_filename:
        inside = inside.tb_next
    assert isinstance(error, InvalidClientId)
    assert "names.py" in user_traceback(error.with_traceback(inside))


def test_causes_begin_with_the_user_too_and_may_go_in_a_circle() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert "second" in user_traceback(first)


def test_a_failure_that_is_reported_has_the_users_frames() -> None:
    names = code_of("client.py")
    told = failure_of(FailureKind.EXCEPTION, raised(names["deep"]))
    assert "/home/user/client.py" in told.traceback_tail
