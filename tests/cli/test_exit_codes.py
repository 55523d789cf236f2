"""Exit statuses: one for each kind of error, and each explained on its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.cli.exit_codes import ExitCode, ModelUnchanged, exit_code_of
from flmq.cli.process import boundary
from flmq.common import errors

PAGE = Path(__file__).parents[2] / "docs" / "exit-codes.md"


def _kinds(kind: type[errors.FlmqError]) -> Iterator[type[errors.FlmqError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


def test_every_error_of_flmq_has_a_status_of_its_own_kind() -> None:
    expected: dict[type[errors.FlmqError], ExitCode] = {
        errors.UsageError: ExitCode.USAGE,
        errors.BrokerError: ExitCode.BROKER,
        errors.RunError: ExitCode.RUN,
        errors.PeerError: ExitCode.RUN,
        errors.StoredDataError: ExitCode.STORED_DATA,
    }
    for category, code in expected.items():
        for kind in [category, *_kinds(category)]:
            assert exit_code_of(BaseException.__new__(kind)) is code, kind
    assert set(expected) == {
        kind for kind in errors.FlmqError.__subclasses__() if kind.__module__ == errors.__name__
    }


def test_other_errors_are_internal_and_ctrl_c_is_130() -> None:
    assert exit_code_of(ValueError()) is ExitCode.INTERNAL
    assert exit_code_of(KeyboardInterrupt()) is ExitCode.INTERRUPTED


@pytest.mark.parametrize("code", list(ExitCode))
def test_each_status_has_its_section_in_the_documentation(code: ExitCode) -> None:
    headings = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("#")]
    assert any(f"{int(code)}" in heading.split() for heading in headings), headings


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobInUse("mnist"), 2),
        (errors.BrokerUnavailable("nobody answers"), 3),
        (errors.NotEnoughClients(2, 1, 3.0), 4),
        (errors.StoredDataError("damaged"), 5),
        (ModelUnchanged("mnist", 3, "nobody answered"), 7),
        (RuntimeError("a bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_the_boundary_makes_of_an_error_one_line_and_a_status(
    error: BaseException,
    code: int,
    debug: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLMQ_DEBUG", "1" if debug else "")
    with pytest.raises(SystemExit) as info, boundary():
        raise error
    assert info.value.code == code
    said = capsys.readouterr().err
    if isinstance(error, KeyboardInterrupt):
        assert said == ""
        return
    assert said.splitlines()[-1] == f"flmq: {type(error).__name__}: {error}"
    foreseen = isinstance(error, errors.FlmqError)
    assert ("Traceback" in said) is (debug or not foreseen)
