"""How large things may grow, and who may look at the clock: limits that every room keeps."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "flmq"

LINES_OF_A_MODULE = 400
METHODS_OF_A_CLASS = 20
PARAMETERS_OF_A_CONSTRUCTOR = 7
FILES_OF_THE_SERVER = 15

CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of each module that a person wrote."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "proto" not in path.parts:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path.read_text(encoding="utf-8")


def functions(of: ast.AST) -> list[Function]:
    return [node for node in ast.iter_child_nodes(of) if isinstance(node, Function)]


def classes(text: str) -> Iterator[ast.ClassDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            yield node


def of_time(node: ast.AST, names: set[str]) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        and node.attr in names
    )


def long_modules() -> Iterator[str]:
    for module, text in sources():
        if len(text.splitlines()) > LINES_OF_A_MODULE:
            yield module


def large_classes() -> Iterator[str]:
    for module, text in sources():
        for node in classes(text):
            if len(functions(node)) > METHODS_OF_A_CLASS:
                yield f"{module}.{node.name}"


def wide_constructors() -> Iterator[str]:
    for module, text in sources():
        for node in classes(text):
            for method in functions(node):
                taken = method.args
                names = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs]
                rest = [taken.vararg, taken.kwarg]
                count = len(names) - 1 + sum(each is not None for each in rest)
                if method.name == "__init__" and count > PARAMETERS_OF_A_CONSTRUCTOR:
                    yield f"{module}.{node.name}"


def sleepers() -> Iterator[str]:
    """Modules in which a thread sleeps, whatever happens meanwhile."""
    for module, text in sources():
        tree = ast.parse(text)
        if any(of_time(node, {"sleep"}) for node in ast.walk(tree)):
            yield module


def clock_readers() -> Iterator[str]:
    """Classes in whose methods the clock is named; as a parameter's default it may be."""
    for module, text in sources():
        for node in classes(text):
            bodies = (line for method in functions(node) for line in method.body)
            if any(of_time(each, CLOCKS) for line in bodies for each in ast.walk(line)):
                yield f"{module}.{node.name}"


MAY_SLEEP = {
    # What another program does can only be looked at, again and again.
    "flmq.broker.polling",
    # A script of its own, of the standard library alone.
    "flmq.broker.watchdog",
}
MAY_READ_THE_CLOCK = {
    # It is the clock: the memory broker's, which tests move on.
    "flmq.transport.memory.clock.Clock",
}

# What does not keep a limit yet. These lists only ever get shorter.
LONG_MODULES: set[str] = set()
LARGE_CLASSES: set[str] = set()
WIDE_CONSTRUCTORS: set[str] = set()
SLEEPERS: set[str] = set()
CLOCK_READERS: set[str] = set()


@pytest.mark.parametrize(
    ("find", "known"),
    [
        (long_modules, LONG_MODULES),
        (large_classes, LARGE_CLASSES),
        (wide_constructors, WIDE_CONSTRUCTORS),
        (sleepers, SLEEPERS | MAY_SLEEP),
        (clock_readers, CLOCK_READERS | MAY_READ_THE_CLOCK),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_a_limit_is_kept(find: Callable[[], Iterator[str]], known: set[str]) -> None:
    assert set(find()) <= known


def test_a_module_of_the_page_is_no_longer_than_one_of_python() -> None:
    static = PACKAGE / "ui" / "static"
    lines = {
        path.relative_to(static).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for kind in ("*.js", "*.css")
        for path in static.rglob(kind)
    }
    assert "main.js" in lines
    assert {name for name, count in lines.items() if count > LINES_OF_A_MODULE} == set()


def test_the_server_is_a_room_of_rooms() -> None:
    assert len(list((PACKAGE / "server").glob("*.py"))) <= FILES_OF_THE_SERVER
