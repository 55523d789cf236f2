"""What deploy/ ships, as data: its YAML, its units, and the commands that they start."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.docs.pages import ROOT

DEPLOY = ROOT / "deploy"
K8S = DEPLOY / "k8s"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SECRETS = "/run/secrets/"


def compose() -> dict[str, Any]:
    """compose.yaml, its anchors resolved."""
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return read


def manifests(folder: Path = K8S) -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifests of a folder, each with the name of its file."""
    for file in sorted(folder.glob("*.yaml")):
        for one in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            yield file.name, one


def manifest(kind: str, name: str) -> dict[str, Any]:
    """The manifest of that kind and name."""
    every = [each for _, each in manifests() if each["kind"] == kind]
    (found,) = [each for each in every if each["metadata"]["name"] == name]
    return found


def settings(name: str) -> dict[str, str]:
    """The lines of a rabbitmq.conf."""
    return parsed((DEPLOY / name).read_text(encoding="utf-8"))


def parsed(text: str) -> dict[str, str]:
    """The settings in the text of a rabbitmq.conf."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, _, value in pairs}


@dataclass(frozen=True)
class Command:
    """A command of flmq, as something here starts it."""

    arguments: list[str]
    env: dict[str, str]
    signal_seconds: float
    """Seconds from SIGTERM to SIGKILL."""


def of_compose(service: str, files: Mapping[str, Path]) -> Command:
    """The command of a service; its secrets are ``files``."""
    read = compose()["services"][service]
    env = {key: _with_files(str(value), files) for key, value in read["environment"].items()}
    return Command(list(read["command"]), env, _seconds(read["stop_grace_period"]))


def _with_files(text: str, files: Mapping[str, Path]) -> str:
    return re.sub(SECRETS + r"(\w+)", lambda found: str(files[found.group(1)]), text)


def of_pod(kind: str, name: str, replaced: Mapping[str, str]) -> Command:
    """The command of the pods of a manifest; paths and hosts ``replaced``."""
    spec = manifest(kind, name)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = {each["name"]: _replaced(each["value"], replaced) for each in container["env"]}
    arguments = [_replaced(each, replaced) for each in container["args"]]
    return Command(arguments, env, spec["terminationGracePeriodSeconds"])


def _replaced(text: str, by: Mapping[str, str]) -> str:
    for old, new in by.items():
        text = text.replace(old, new)
    return text


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit(file: Path) -> configparser.RawConfigParser:
    """A unit; of a key that is given several times the last."""
    read = _Unit(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    read.read_string(file.read_text(encoding="utf-8"))
    return read


def of_unit(file: Path, instance: str, credentials: Path, state: Path, env: Path) -> Command:
    """The command that systemd starts for an instance, given what stands for its folders."""
    service = unit(file)["Service"]

    def meant(text: str) -> str:
        text = text.replace("%i", instance).replace("%d", str(credentials))
        return text.replace("/var/lib/flmq", str(state))

    lines = [line for line in env.read_text(encoding="utf-8").splitlines() if line]
    variables = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    name, _, value = meant(service["Environment"]).partition("=")
    program, *arguments = shlex.split(meant(service["ExecStart"]))
    assert program == "/opt/flmq/bin/flmq"
    known = [re.sub(r"\$\{(\w+)\}", lambda found: variables[found.group(1)], a) for a in arguments]
    return Command(known, {**variables, name: value}, float(service["TimeoutStopSec"]))


def _seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])
