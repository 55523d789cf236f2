"""Private nodes: they start, keep their data, die as told, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pika
import pytest

from flmq.broker import processes
from flmq.broker.installed import find_programs
from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.common.errors import BrokerNotFound, BrokerRefusal, BrokerUnavailable, StoredDataError
from flmq.common.urls import parse_broker_url
from tests.conftest import SessionBroker


def _publish(url: str, queue: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True)
        persistent = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish("", queue, body, persistent, mandatory=True)


def _fetch(url: str, queue: str) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        body: bytes | None = connection.channel().basic_get(queue, auto_ack=True)[2]
        return body


def _wait_until_gone(folder: Path, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while (left := processes.members(folder)) or folder.exists():
        assert time.monotonic() < deadline, f"{left} or the folder are still there"
        time.sleep(0.1)


def test_restart_and_crash_keep_a_durable_queue_on_the_same_url(private_node: PrivateNode) -> None:
    url, first = private_node.url, private_node.pid
    _publish(url, "kept", b"one")
    private_node.restart()
    assert private_node.url == url
    assert private_node.pid != first
    assert _fetch(url, "kept") == b"one"

    _publish(url, "kept", b"two")
    # A classic queue writes within some 0.2 s of the confirm at most; give the index its time.
    time.sleep(1.0)
    private_node.kill()
    assert not private_node.running
    with pytest.raises(BrokerUnavailable, match="no broker answers"):
        ask_broker(parse_broker_url(url))
    private_node.start()
    assert _fetch(url, "kept") == b"two"

    private_node.stop()
    assert processes.members(private_node.folder) == []
    assert private_node.folder.exists(), "a folder that was given is kept"


def test_two_nodes_at_once_share_nothing_and_leave_nothing() -> None:
    nodes = [PrivateNode(), PrivateNode()]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(PrivateNode.start, nodes))
        ports = [port for node in nodes for port in vars_of(node)]
        assert len(set(ports)) == len(ports)
        assert len({node.ports for node in nodes}) == 2
        _publish(nodes[0].url, "mine", b"x")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="no queue 'mine'"):
            _fetch(nodes[1].url, "mine")
    finally:
        for node in nodes:
            node.stop()
    for node in nodes:
        assert processes.members(node.folder) == []
        assert not node.folder.exists()
        assert not node.ports.busy()


def vars_of(node: PrivateNode) -> tuple[int, ...]:
    ports = node.ports
    return ports.amqp, ports.distribution, ports.epmd, ports.management


def test_everything_listens_on_loopback_only(broker_node: SessionBroker) -> None:
    node = broker_node.node
    if node is None:
        pytest.fail("this test looks at a private node: run it without FLMQ_BROKER_URL")
    ours = {f"{port:04X}" for port in vars_of(node)}
    seen = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if port in ours and line.split()[3] == "0A":
            seen.add(port)
            assert address == "0100007F"
    assert seen == ours


def test_ctrl_c_does_not_reach_the_node_and_killing_its_owner_ends_it() -> None:
    program = (
        "import time\n"
        "from flmq.broker.node import PrivateNode\n"
        "node = PrivateNode().start()\n"
        "try:\n"
        "    print(node.folder, flush=True)\n"
        "    time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(0.5)\n"
        "    print(node.ctl('list_vhosts').split(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    with owner.stdout:
        folder = Path(owner.stdout.readline().strip())
        assert len(processes.members(folder)) >= 3, "server, epmd, port programs"
        # As a terminal does: to the whole foreground process group.
        os.killpg(owner.pid, signal.SIGINT)
        assert owner.stdout.readline() == "['name', 'flmq']\n", "the node is alive and well"
    owner.kill()
    owner.wait()
    _wait_until_gone(folder)


def test_killing_the_owner_during_the_start_leaves_no_node_behind() -> None:
    program = (
        "from flmq.broker.node import PrivateNode\n"
        "node = PrivateNode()\n"
        "print(node.folder, flush=True)\n"
        "node.start()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        folder = Path(owner.stdout.readline().strip())
    while len(processes.members(folder)) < 2:
        assert owner.poll() is None
        time.sleep(0.02)
    owner.kill()
    owner.wait()
    _wait_until_gone(folder)


def _broken_server(folder: Path, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("rabbitmq-server", "rabbitmqctl"):
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    return folder / "rabbitmq-server"


def test_a_broken_server_is_an_error_that_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = _broken_server(tmp_path / "bin", "echo 'the disk is made of cheese'; exit 7")
    monkeypatch.setenv("FLMQ_RABBITMQ_SERVER", str(server))
    node = PrivateNode(tmp_path / "node")
    with pytest.raises(BrokerNotFound, match="ended while it started") as caught:
        node.start()
    assert "made of cheese" in str(caught.value)
    assert str(node.folder / "log") in str(caught.value)
    assert processes.members(node.folder) == []


def test_a_server_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = _broken_server(tmp_path / "bin", "sleep 600")
    monkeypatch.setenv("FLMQ_RABBITMQ_SERVER", str(server))
    monkeypatch.setattr("flmq.broker.node.START_SECONDS", 0.3)
    node = PrivateNode(tmp_path / "node")
    with pytest.raises(BrokerNotFound, match=r"did not take logins within 0.3 s"):
        node.start()
    assert processes.members(node.folder) == []


def test_a_taken_port_is_chosen_again_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = _broken_server(
        tmp_path / "bin", "echo start >> starts; echo 'error: eaddrinuse'; exit 1"
    )
    monkeypatch.setenv("FLMQ_RABBITMQ_SERVER", str(server))
    node = PrivateNode(tmp_path / "node")
    ports = node.ports
    with pytest.raises(BrokerNotFound, match="was taken"):
        node.start()
    assert node.ports != ports
    assert (node.folder / "starts").read_text().count("start") == 3


def test_a_missing_binary_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLMQ_RABBITMQ_SERVER", "/nowhere/rabbitmq-server")
    with pytest.raises(BrokerNotFound, match="/nowhere/rabbitmq-server"):
        PrivateNode().start()


def test_a_damaged_identity_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(StoredDataError, match="delete the folder"):
        PrivateNode(tmp_path)


def test_debian_wrappers_are_not_used() -> None:
    assert find_programs().server.resolve().name != "rabbitmq-script-wrapper"


def test_ctl_speaks_to_the_node_and_names_what_failed(broker_node: SessionBroker) -> None:
    node = broker_node.node
    if node is None:
        pytest.fail("this test looks at a private node: run it without FLMQ_BROKER_URL")
    assert node.evaluate("1 + 1.") == "2"
    assert node.evaluate("application:get_env(rabbit, consumer_timeout).") == "{ok,86400000}"
    assert node.evaluate("application:get_env(rabbit, max_message_size).") == "{ok,16777216}"
    with pytest.raises(BrokerRefusal, match="rabbitmqctl set_permissions failed"):
        node.ctl("set_permissions", "-p", "nowhere", "flmq", ".*", ".*", ".*")


def test_secrets_are_readable_by_the_owner_alone(broker_node: SessionBroker) -> None:
    node = broker_node.node
    if node is None:
        pytest.fail("this test looks at a private node: run it without FLMQ_BROKER_URL")
    password = parse_broker_url(node.url).password
    assert node.folder.stat().st_mode & 0o077 == 0
    for pid in processes.members(node.folder):
        assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert password not in node.log.read_text()
    assert password not in repr(node.management)
    assert password not in node.shown_url


def test_each_test_has_a_virtual_host_of_its_own(
    broker_url: str, broker_node: SessionBroker
) -> None:
    assert parse_broker_url(broker_url).vhost.startswith("test-")
    assert ask_broker(parse_broker_url(broker_url), declare=True).can_declare
    assert broker_url != broker_node.url
