"""``flmq broker up``, ``status`` and ``down``: the functions behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flmq.broker import persistent_nodes, processes
from flmq.broker.doctor import run_checks
from flmq.broker.probe import ask_broker
from flmq.common.errors import StoredDataError
from flmq.common.urls import parse_broker_url


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path)}


def test_up_outlives_its_process_and_down_leaves_nothing(
    state: dict[str, str], tmp_path: Path
) -> None:
    program = "from flmq.broker import persistent_nodes; persistent_nodes.up()"
    subprocess.run([sys.executable, "-c", program], env=state, check=True, timeout=60)
    try:
        now = persistent_nodes.status(environ=state)
        assert now.running
        assert now.node is not None
        assert now.version
        assert now.trouble == ""
        file = tmp_path / "flmq" / "broker" / "default" / "state.json"
        assert file.stat().st_mode & 0o777 == 0o600

        again = persistent_nodes.up(environ=state)
        assert again.already
        assert again.node == now.node
        assert persistent_nodes.standing_names(environ=state) == ["default"]

        checks = {check.name: check for check in run_checks(environ=state)}
        assert checks["standing broker"].ok
        # `flmq server` would fail, too, for it does not look for one.
        assert checks["broker"].ok is False
        assert "eval $(flmq broker up)" in checks["broker"].mend
        checks = {check.name: check for check in run_checks(now.node.url, environ=state)}
        assert checks["broker"].ok
        assert checks["permissions"].ok
        password = parse_broker_url(now.node.url).password
        assert password not in repr(checks)
        assert password not in repr(now)
    finally:
        ended = persistent_nodes.down(environ=state)
    assert ended.was_running
    assert not ended.purged
    assert processes.members(Path(now.node.folder)) == []
    assert not persistent_nodes.status(environ=state).running
    assert not persistent_nodes.down(environ=state).was_running

    # Up again from this process: same URL, so what was configured with it still holds.
    try:
        back = persistent_nodes.up(environ=state)
        assert not back.already
        assert back.node.url == now.node.url
        assert ask_broker(parse_broker_url(back.node.url)).product == "RabbitMQ"
    finally:
        ended = persistent_nodes.down(purge=True, environ=state)
    assert ended.purged
    assert not Path(ended.folder).exists()
    assert persistent_nodes.standing_names(environ=state) == []


def test_before_the_first_up_there_is_nothing(state: dict[str, str], tmp_path: Path) -> None:
    assert persistent_nodes.status(environ=state) == persistent_nodes.StandingStatus(
        "default", None, running=False, version="", trouble=""
    )
    assert not persistent_nodes.down(environ=state).was_running
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_pid_of_somebody_else_is_not_touched(
    state: dict[str, str], tmp_path: Path
) -> None:
    place = tmp_path / "flmq" / "broker" / "default"
    (place / "node").mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            (place / "node" / "server.pid").write_text(f"{bystander.pid}\n")
            (place / "state.json").write_text(
                json.dumps(
                    {
                        "name": "default",
                        "url": "amqp://flmq:x@127.0.0.1:1/flmq",
                        "shown_url": "amqp://flmq:***@127.0.0.1:1/flmq",
                        "pid": bystander.pid,
                        "amqp_port": 1,
                        "management_url": None,
                        "folder": str(place / "node"),
                        "log": "",
                        "started": 0.0,
                    }
                )
            )
            assert not persistent_nodes.status(environ=state).running
            assert not persistent_nodes.down(environ=state).was_running
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_damaged_state_says_what_to_do_and_can_be_purged(
    state: dict[str, str], tmp_path: Path
) -> None:
    place = tmp_path / "flmq" / "broker" / "default"
    place.mkdir(parents=True)
    (place / "state.json").write_text("[]")
    with pytest.raises(StoredDataError, match=r"down --purge"):
        persistent_nodes.status(environ=state)
    checks = {check.name: check for check in run_checks(environ=state)}
    assert checks["standing broker"].ok is False
    assert checks["standing broker"].mend == "flmq broker down --purge"
    assert persistent_nodes.down(purge=True, environ=state).purged


def test_a_name_stays_within_its_folder(state: dict[str, str]) -> None:
    with pytest.raises(persistent_nodes.InvalidBrokerName, match="not usable"):
        persistent_nodes.up("../../etc", environ=state)
