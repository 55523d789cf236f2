"""Three sites for all runs of the package."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flmq.broker.layout import FEDERATION_PLUGINS
from flmq.broker.node import PrivateNode
from flmq.common.errors import BrokerError
from tests.sites.brokers import PARENTS, Brokers
from tests.sites.stage import Sites


@pytest.fixture(scope="package")
def sites() -> Iterator[Sites]:
    """A hub and two sites below it, which are set anew for each run."""
    made = Sites()
    try:
        made.__enter__()
    except BrokerError as error:
        pytest.fail(str(error), pytrace=False)
    yield made
    made.__exit__(None, None, None)


@pytest.fixture(scope="package")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    folder = tmp_path_factory.mktemp("sites")
    nodes = {name: PrivateNode(folder / name, plugins=FEDERATION_PLUGINS) for name in PARENTS}
    lines, environ = [], {}
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(PrivateNode.start, nodes.values()))
        for name, parent in PARENTS.items():
            variable = name.upper().replace("-", "_")
            environ[f"{variable}_URL"] = nodes[name].url
            above = f'parent = "{parent}"\n' if parent else ""
            lines.append(
                f'[[site]]\nname = "{name}"\n{above}url = "${{{variable}_URL}}"\n'
                f'management_url = "http://127.0.0.1:{nodes[name].ports.management}"\n'
            )
        (folder / "federation.toml").write_text("\n".join(lines))
        yield Brokers(nodes, folder / "federation.toml", environ)
    except BrokerError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        for node in nodes.values():
            node.stop(timeout=2.0)
