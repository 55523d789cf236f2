"""The options that open a port, and what stands by or serves a site behind one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flmq.cli.monitoring import Monitoring
from flmq.client.options import WorkerOptions
from flmq.monitoring.errors import MetricsNotInstalled, MetricsPortInUse
from flmq.monitoring.role import Role
from flmq.monitoring.serving import Monitor
from flmq.observe.vitals import Vitals
from flmq.region import AggregatorOptions
from flmq.region.app import Aggregator
from flmq.testing import MemoryBroker, MemoryTransport, fast_retries
from flmq.transport import ConnectionEvent, ConnectionState
from tests.end_to_end.federation import Federation, in_thread, nudge
from tests.monitoring.scraping import get, scrape, until


def connected() -> Vitals:
    """Of a process whose transport the test has opened."""
    vitals = Vitals()
    vitals.connection_changed(ConnectionEvent("", ConnectionState.CONNECTED))
    return vitals


@contextmanager
def shown(role: Role, vitals: Vitals) -> Iterator[str]:
    """Show a process; its address."""
    server = Monitor(role, vitals).serve("127.0.0.1", 0)
    try:
        yield server.url
    finally:
        server.close()


def test_nothing_is_opened_unless_it_is_wanted() -> None:
    before = threading.active_count()
    with Monitoring().shown(Role.SERVER, Vitals()) as seen:
        assert (seen.run, seen.worker) == ((), ())
        assert threading.active_count() == before


def test_a_port_that_is_taken_is_a_mistake_in_the_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(MetricsPortInUse, match=f"127.0.0.1, port {port}: .*--metrics-port"),
            Monitoring(port).shown(Role.WORKER, Vitals()),
        ):
            pass


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("flmq.monitoring.")]:
        if name not in ("flmq.monitoring.errors", "flmq.monitoring.role"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with (
        pytest.raises(MetricsNotInstalled, match=r"pip install 'flmq\[metrics\]'"),
        Monitoring(0).shown(Role.SERVER, Vitals()),
    ):
        pass
    with Monitoring().shown(Role.SERVER, Vitals()) as seen:
        assert seen.run == ()


def test_processes_have_consecutive_ports() -> None:
    assert [Monitoring(9464).port_of(position) for position in range(3)] == [9464, 9465, 9466]
    assert Monitoring(0).port_of(2) == 0
    assert Monitoring().port_of(2) is None
    Monitoring(65535).check_ports(1)
    with pytest.raises(MetricsPortInUse, match="2 processes need a port each"):
        Monitoring(65535).check_ports(2)


def test_who_stands_by_is_alive_and_not_ready(memory_federation: Federation) -> None:
    federation, vitals = memory_federation, connected()
    federation.serve("ann")
    first = federation.workers["ann"]
    until(lambda: federation.rig.transport().inspect_queue("flmq.client.ann"), "no queue")
    options = WorkerOptions(heartbeat=1.0, standby=True, vitals=vitals)
    with shown(Role.WORKER, vitals) as base:
        assert get(f"{base}/readyz")[0] == 200  # nothing is asked of it yet
        second = federation.worker({"ann": {}}, nudge, options)
        until(lambda: get(f"{base}/readyz")[0] == 503, "it is ready")
        assert get(f"{base}/healthz") == (200, "alive\n")
        assert get(f"{base}/readyz")[1].startswith("queue: not consumed yet")
        first.stop()
        first.worker._transport.close()
        until(lambda: get(f"{base}/readyz")[0] == 200, "it does not take over")
        assert scrape(base).value("flmq_worker_clients") == 1
        second.stop()


def test_an_aggregator_shows_itself(tmp_path: Path) -> None:
    vitals = connected()
    options = AggregatorOptions(site="eu", state_dir=tmp_path, vitals=vitals)
    with (
        fast_retries(),
        MemoryTransport(MemoryBroker()) as transport,
        shown(Role.AGGREGATOR, vitals) as base,
    ):
        aggregator = Aggregator(transport, options)
        done = in_thread(aggregator.run)
        until(lambda: "flmq_aggregator_orders" in scrape(base).ours, "it does not serve")
        assert get(f"{base}/readyz") == (200, "ready\n")
        assert get(f"{base}/healthz") == (200, "alive\n")
        seen = scrape(base)
        assert seen.value("flmq_aggregator_orders") == 0
        assert seen.value("flmq_aggregator_sites") == 1
        assert seen.value("flmq_aggregator_ledger_bytes") > 0
        aggregator.stop()
        done.result(60)


def test_what_libraries_warn_of_is_a_line_for_programs_too() -> None:
    program = (
        "import logging\n"
        "from flmq.cli.monitoring import Monitoring\n"
        "from flmq.common.environment import LogFormat\n"
        "Monitoring(log_format=LogFormat.JSON).begin()\n"
        "logging.getLogger('opentelemetry.exporter').warning('no collector\\nat all')\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stderr
    assert json.loads(said)["logger"] == "opentelemetry.exporter"
