"""How SIGTERM drains: the signal is heard at once, whatever the client's code is at."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

_RIG = """
import hashlib, multiprocessing, os, signal, sys, threading, time
from flmq.cli import draining
from flmq.cli.draining import Drain
from flmq.cli.stopping import in_order

draining.CLOSING = 0.5

class Worker:
    serves, ended = True, threading.Event()
    def drain(self):
        print("drains", flush=True)
        return self.serves
    def abandon(self):
        print("abandoned", flush=True)

def goes_on():
    return "as it was"

worker, drain = Worker(), Drain(float(sys.argv[1]))
with in_order(goes_on, drain), drain.serving(worker):
    print("works", flush=True)
"""


class Process:
    """A process that works as ``body`` says, and prints "works" when it does."""

    def __init__(self, body: str, grace: float) -> None:
        script = textwrap.dedent(_RIG) + textwrap.indent(textwrap.dedent(body), "    ")
        self.output: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, str(grace)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def says(self, wanted: str) -> None:
        """Wait until it says so."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == wanted:
                return
        raise AssertionError(f"it did not say {wanted!r}: {self._process.communicate()}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def ends(self, status: int) -> tuple[str, str]:
        """Wait for its end; what else it wrote, and what it complained of."""
        said = self._process.communicate(timeout=60.0)
        assert self._process.returncode == status, said
        return said


LONG_CALL = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
"""A call of C that takes minutes and does not come back for a signal."""


def test_bye_is_said_while_a_long_call_goes_on_and_its_process_ends_all_the_same() -> None:
    with Process(LONG_CALL, 1) as process:
        process.says("works")
        process.signal()
        process.says("drains")  # in the midst of the call
        said, complained = process.ends(143)
    assert said == "abandoned\n"
    assert "ended by force" in complained


def test_what_is_at_work_in_a_long_call_goes_on_when_that_is_over() -> None:
    body = """
    hashlib.pbkdf2_hmac("sha256", b"", b"", 4 * 10**6)
    time.sleep(0.5)
    print("done", flush=True)
    """
    with Process(body, 600) as process:
        process.says("works")
        process.signal()
        said, _ = process.ends(143)
    assert said == "drains\ndone\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["sigterm", "ctrl-c"]
)
def test_a_second_signal_is_heard_in_a_long_call_too(number: signal.Signals, status: int) -> None:
    with Process(LONG_CALL, 600) as process:
        process.says("works")
        process.signal()
        process.says("drains")
        time.sleep(1.1)
        process.signal(number)
        said, _ = process.ends(status)
    assert said == "abandoned\n"


def test_sigterm_that_comes_by_two_ways_counts_once() -> None:
    with Process("time.sleep(2); print('done', flush=True)", 600) as process:
        process.says("works")
        for _ in range(3):
            process.signal()
            time.sleep(0.1)
        said, complained = process.ends(143)
    assert said == "drains\ndone\n"
    assert complained == "flmq: stopped: as it was\n"


def test_who_does_not_serve_yet_is_interrupted() -> None:
    body = "worker.serves = False; print('stands by', flush=True); time.sleep(600)"
    with Process(body, 600) as process:
        process.says("stands by")
        process.signal()
        process.ends(143)


@pytest.mark.parametrize("grace", [600, 0])
def test_two_signals_at_once_before_it_serves_break_off_no_end(grace: int) -> None:
    """A service manager sends it to all processes, and the parent passes it on."""
    body = """
    drain._serves = False
    print("starts", flush=True)
    try:
        time.sleep(600)
    finally:
        time.sleep(0.5)
        print("closed in order", flush=True)
    """
    with Process(body, grace) as process:
        process.says("starts")
        process.signal()
        time.sleep(0.1)
        process.signal()
        said, complained = process.ends(143)
    assert said.splitlines()[-1] == "closed in order"
    assert complained == "flmq: stopped: as it was\n"


def test_without_grace_it_is_interrupted_as_by_ctrl_c() -> None:
    with Process("time.sleep(600)", 0) as process:
        process.says("works")
        process.signal()
        said, _ = process.ends(143)
    assert said == ""


def test_a_child_that_the_clients_code_ends_drains_nobody() -> None:
    """Pools and data loaders fork children and end them by SIGTERM."""
    body = """
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    time.sleep(0.5)
    child.terminate()
    child.join()
    time.sleep(0.5)
    print("ended", drain._begun, flush=True)
    """
    with Process(body, 600) as process:
        said, _ = process.ends(0)
    assert said == "works\nended None\n"
