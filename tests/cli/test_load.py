"""Apps by their names: what can stand there, and what is said of what cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.cli.load import load_client, load_server
from flmq.client import Client, NumPyClient
from flmq.common.errors import AppLoadError
from flmq.server import ServerConfig
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.server import Server
from flmq.server.strategy import FedAvg

APP = '''
"""An app with everything that may be named, and some that may not."""
from flmq.client import Client, NumPyClient
from flmq.server import Server, ServerConfig, SimpleClientManager
from flmq.server.components import ServerAppComponents
from flmq.server.strategy import FedAvg

class MyClient(NumPyClient):
    pass

class RawClient(Client):
    pass

class Box:
    client = MyClient()

client = MyClient()
raw = RawClient().to_client()
strategy = FedAvg()
manager = SimpleClientManager()
whole = Server(client_manager=manager, strategy=strategy)
parts = ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=3))
number = 3

def make_client(context):
    return MyClient()

def make_parts(context):
    return ServerAppComponents(config=ServerConfig(num_rounds=int(context.run_config["rounds"])))

def make_strategy():
    return FedAvg(fraction_fit=0.5)

def make_with_default(fraction=0.25):
    return FedAvg(fraction_fit=fraction)

def make_nothing():
    pass

def make_broken(context):
    raise LookupError("no such table")
'''
CONTEXT = ServerContext("job", {"rounds": 7})


@pytest.fixture(autouse=True)
def _apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "someapp.py").write_text(APP)
    (tmp_path / "needy.py").write_text("import a_package_that_nobody_has\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "unfinished.py").write_text("def f(:\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.py").write_text(APP)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["client", "raw", "MyClient", "RawClient", "make_client"])
def test_a_client_a_class_and_a_function_can_be_clients(name: str) -> None:
    loaded = load_client(f"someapp:{name}")
    assert loaded is getattr(sys.modules["someapp"], name)


def test_an_app_can_be_a_file_a_module_in_a_folder_and_an_attribute_of_a_class() -> None:
    assert isinstance(load_client("someapp.py:client"), NumPyClient)
    assert isinstance(load_client("folder/inner.py:client"), NumPyClient)
    assert isinstance(load_client("folder.inner:raw"), Client)
    assert isinstance(load_client("someapp:Box.client"), NumPyClient)


def test_a_server_is_parts_a_strategy_or_a_server() -> None:
    parts = load_server("someapp:parts", CONTEXT)
    assert parts.config == ServerConfig(num_rounds=3)
    assert isinstance(load_server("someapp:strategy", CONTEXT).strategy, FedAvg)
    assert isinstance(load_server("someapp:whole", CONTEXT).server, Server)


def test_a_function_makes_a_server_with_or_without_the_context() -> None:
    assert load_server("someapp:make_parts", CONTEXT).config == ServerConfig(num_rounds=7)
    for name, fraction in (("make_strategy", 0.5), ("make_with_default", 0.25)):
        made = load_server(f"someapp:{name}", CONTEXT)
        assert isinstance(made, ServerAppComponents)
        assert isinstance(made.strategy, FedAvg)
        assert made.strategy.fraction_fit == fraction


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("someapp", "names no app: give module:name"),
        ("someapp:", "names no app: give module:name"),
        (":client", "names no app: give module:name"),
        ("", "names no app: give module:name"),
        ("nowhere:client", "there is no module 'nowhere'"),
        ("nowhere.py:client", "there is no module 'nowhere.py'"),
        ("someapp.inner:client", "there is no module 'someapp.inner'"),
        ("someapp:clinet", "module 'someapp' has no 'clinet'; it has: "),
        ("needy:client", "imports 'a_package_that_nobody_has', which is not installed here"),
        ("broken:client", "importing 'broken' failed: ZeroDivisionError: division by zero"),
        ("unfinished:client", "importing 'unfinished' failed: SyntaxError"),
    ],
)
def test_what_cannot_be_imported_says_why(app: str, said: str) -> None:
    with pytest.raises(AppLoadError) as client_error:
        load_client(app)
    with pytest.raises(AppLoadError) as server_error:
        load_server(app, CONTEXT)
    assert said in str(client_error.value)
    assert said in str(server_error.value)


@pytest.mark.parametrize("name", ["number", "strategy", "whole", "Box"])
def test_what_is_no_client_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(AppLoadError) as info:
        load_client(f"someapp:{name}")
    assert f"someapp:{name} is a {type(getattr(sys.modules['someapp'], name)).__name__};" in str(
        info.value
    )
    assert "def client(context: ClientContext) -> Client:" in str(info.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number", "someapp:number is a int;"),
        ("client", "someapp:client is a MyClient;"),
        ("make_nothing", "someapp:make_nothing returned a NoneType;"),
        ("MyClient", "someapp:MyClient returned a MyClient;"),
    ],
)
def test_what_is_no_server_is_refused_with_an_example(name: str, said: str) -> None:
    with pytest.raises(AppLoadError) as info:
        load_server(f"someapp:{name}", CONTEXT)
    assert said in str(info.value)
    assert "def server(context: ServerContext) -> ServerAppComponents:" in str(info.value)


def test_what_a_factory_raises_passes_through() -> None:
    with pytest.raises(LookupError, match="no such table"):
        load_server("someapp:make_broken", CONTEXT)
