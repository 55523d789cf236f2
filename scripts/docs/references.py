"""Pages of reference that are made from the program whenever the site is built, so never stale."""

from __future__ import annotations

import ast
import html
from pathlib import Path

import click
import typer

from flmq.cli.main import app

ROOT = Path(__file__).resolve().parent.parent.parent

# Page, title, module. What a module's __all__ names is public, and shown in this order.
MODULES = (
    ("server", "Server", "flmq.server"),
    ("server-options", "Options of a run", "flmq.server.options"),
    ("strategy", "Strategies", "flmq.server.strategy"),
    ("client", "Client", "flmq.client"),
    ("client-options", "Options of a worker", "flmq.client.options"),
    ("client-mod", "Mods of a client", "flmq.client.mod"),
    ("common", "Types and helpers", "flmq.common"),
    ("errors", "Errors", "flmq.common.errors"),
    ("events", "Events", "flmq.observe.events"),
    ("simulation", "Simulation", "flmq.simulation"),
    ("partitioner", "Partitioners", "flmq.datasets.partitioner"),
    ("torch", "PyTorch", "flmq.torch"),
    ("tensorboard", "TensorBoard", "flmq.trackers.tensorboard"),
    ("mlflow", "MLflow", "flmq.trackers.mlflow"),
    ("wandb", "Weights & Biases", "flmq.trackers.wandb"),
    ("journal", "Journal", "flmq.journal"),
    ("testing", "Testing", "flmq.testing"),
)


def pages() -> dict[str, str]:
    """Every page by its path in the documentation."""
    made = {f"reference/{page}.md": _module(title, name) for page, title, name in MODULES}
    made["reference/cli.md"] = command_line()
    made["reference/wire.md"] = wire()
    return made


def public_names() -> dict[str, str]:
    """What a word of code may mean: each public name, short and whole, to its whole name."""
    short: dict[str, set[str]] = {}
    for _, _, module in MODULES:
        for name in _names(module):
            short.setdefault(name, set()).add(f"{module}.{name}")
            short[f"{module}.{name}"] = {f"{module}.{name}"}
    return {word: next(iter(meant)) for word, meant in short.items() if len(meant) == 1}


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names(module: str) -> list[str]:
    for node in ast.parse(_file(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [name for name in ast.literal_eval(node.value) if name[0].isalpha()]
    raise ValueError(f"{module} does not say what is public in it")


def _module(title: str, module: str) -> str:
    says = ast.get_docstring(ast.parse(_file(module).read_text(encoding="utf-8"))) or ""
    parts = [f"# {title}: `{module}`", says.replace("``", "`")]
    submodules = {"strategy"} if module == "flmq.server" else set()
    parts += [f"::: {module}.{name}" for name in _names(module) if name not in submodules]
    return "\n\n".join(parts) + "\n"


def command_line() -> str:
    """Each command with its options, their environment variables and their defaults."""
    parts = [
        "# The command line",
        (
            "Made from the commands themselves; `flmq COMMAND --help` prints the same. An option "
            "that names an environment variable takes its value where the option is not given."
        ),
    ]
    _command(typer.main.get_command(app), "flmq", parts)
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, path: str, parts: list[str]) -> None:
    context = click.Context(command, info_name=path)
    if path != "flmq":
        parts.append(f"## {path}")
    parts.append(_text(command.help or ""))
    if not isinstance(command, click.Group):
        usage = " ".join(command.collect_usage_pieces(context))
        parts.append(f"```text\n{path} {usage}\n```")
    rows = [row for param in command.params if (row := _parameter(param, context))]
    if rows:
        parts.append(
            "\n".join(
                ["| option | variable | default | what it does |", "|---|---|---|---|", *rows]
            )
        )
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            _command(each, f"{path} {name}", parts)


def _parameter(param: click.Parameter, context: click.Context) -> str | None:
    if getattr(param, "hidden", False):
        return None
    option = isinstance(param, click.Option)
    # Options that Typer gives every program have no text to be shown in a table of ours.
    kind = "" if getattr(param, "is_flag", False) else f" {param.make_metavar(context)}"
    name = ", ".join((*param.opts, *param.secondary_opts)) + kind
    if not option:
        name = param.make_metavar(context)
    variable = param.envvar if isinstance(param.envvar, str) else " ".join(param.envvar or ())
    default = param.default
    plain = default is None or default is False or default == () or callable(default)
    told = "required" if param.required else "" if plain else str(default)
    cells = (_code(name), _code(variable), _code(told) if told != "required" else told)
    return f"| {' | '.join((*cells, _text(getattr(param, 'help', None) or '')))} |"


def _code(text: str) -> str:
    text = html.escape(text).replace("|", "&#124;").replace("{", "&#123;")
    return f"<code>{text}</code>" if text else ""


def _text(text: str) -> str:
    text = " ".join(text.replace("\b", "").split())
    return html.escape(text, quote=False).replace("|", "&#124;").replace("*", "&#42;")


def wire() -> str:
    """The messages of the wire, as their schemas have them."""
    parts = [
        "# Messages on the wire",
        (
            "What server, clients and aggregators send each other, as protobuf. Fields that a peer "
            "does not know pass it by; numbers of retired fields are reserved."
        ),
    ]
    for path in sorted((ROOT / "schemas").rglob("*.proto")):
        text = path.read_text(encoding="utf-8")
        parts.append(f"## {path.stem}\n\n```protobuf\n{text}```")
    return "\n\n".join(parts) + "\n"
