"""What `flmq demo-sites` is made of, and, where there is time, itself."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq.broker.ports import LOOPBACK, free_ports
from flmq.cli.demo.relay import Relay
from flmq.cli.main import app
from flmq.cli.view.links import LinkWatcher
from flmq.sites.federation import Federation
from flmq.sites.links import LinkState, LinkStatus


def test_a_relay_forwards_until_it_is_cut_and_again_when_it_is_mended() -> None:
    with socket.create_server((LOOPBACK, 0)) as there:
        port = there.getsockname()[1]
        with Relay(free_ports().amqp, LOOPBACK, port) as relay:
            for _ in range(2):
                with socket.create_connection((LOOPBACK, relay.port), 5.0) as near:
                    far, _ = there.accept()
                    near.sendall(b"there")
                    assert far.recv(5, socket.MSG_WAITALL) == b"there"
                    far.sendall(b"back")
                    assert near.recv(4, socket.MSG_WAITALL) == b"back"
                    relay.cut()
                    for end in (near, far):
                        end.settimeout(5.0)
                        with contextlib.suppress(ConnectionResetError):
                            assert end.recv(1) == b""
                    far.close()
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((LOOPBACK, relay.port), 5.0)
                relay.mend()


def test_a_links_changes_are_told_once_each_with_what_waits() -> None:
    down = LinkStatus("eu", "main", LinkState.DOWN, "main does not reach eu", "see", 3)
    looks = [
        [LinkStatus("eu", "main", LinkState.RUNNING)],
        [down],
        [down],
        [LinkStatus("eu", "main", LinkState.STARTING)],
        [LinkStatus("eu", "main", LinkState.RUNNING, waiting=0)],
    ]
    told = []
    left = iter(looks)
    watcher = LinkWatcher(Federation(()), lambda _: next(left))
    for _ in looks:
        told.append([note.text for note in watcher.news()])
    assert told == [
        [],
        ["link eu -> main down: main does not reach eu, 3 waiting"],
        [],
        [],
        ["link eu -> main running"],
    ]


@pytest.mark.slow
def test_three_sites_of_which_one_is_cut_off_have_the_flat_runs_bits(tmp_path: Path) -> None:
    typed = ["demo-sites", "--clients=4", "--rounds=4", "--cut=3", f"--runs-dir={tmp_path}"]
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 0, result.output
    assert result.output.endswith("the same bits\n")
