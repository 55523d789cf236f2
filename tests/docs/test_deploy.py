"""The page on deploying: what it has one type works, with the files and secrets that are used."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import typer

from flmq.cli.main import app
from flmq.provision.reading import read_provision
from tests.deploy.shipped import compose, manifests
from tests.docs.pages import ROOT, blocks

DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "deploy.md"


def test_what_it_has_one_type_on_one_machine_does_a_job(tmp_path: Path) -> None:
    """From nothing, in an empty folder: certificates, a broker, users, two clients, a server."""
    (text,) = blocks(PAGE, "toml")
    (tmp_path / "federation.toml").write_text(text)
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLMQ_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    if (rabbitmq := os.environ.get("FLMQ_RABBITMQ_SERVER")) is not None:
        env["FLMQ_RABBITMQ_SERVER"] = rabbitmq
    script = "set -e\n" + "\n".join(blocks(PAGE, "sh"))
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=tmp_path,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=400,
            check=False,
        )
    said = (tmp_path / "output").read_text()
    if done.returncode:
        subprocess.run(["flmq", "broker", "down"], env=env, check=False)
    assert done.returncode == 0, said
    assert said.count(": done\n") == 2, said
    with np.load(tmp_path / "runs" / "line" / "model.npz") as model:
        slope, intercept = model[model.files[0]]
    assert abs(slope - 3) < 1
    assert abs(intercept - 1) < 1


def _texts() -> str:
    return "".join(blocks(PAGE, "text"))


def test_the_commands_for_other_machines_exist_with_their_options() -> None:
    """Those that cannot be run here: of compose, of Kubernetes, and of services."""
    group = typer.main.get_command(app)
    found = 0
    for line in re.findall(r"(?:^|&& )flmq ([^&\n]+)", _texts(), re.MULTILINE):
        command, words = group, shlex.split(line)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        options = {flag for param in command.params for flag in param.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= options, line
        found += 1
    assert found >= 6


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"(?:-f |-k |--file |cp )(deploy/[\w/.*-]+)", _texts()))
    assert len(named) >= 5
    for name in named:
        assert list(ROOT.glob(name)), name


def test_it_has_one_make_every_secret_that_is_used() -> None:
    made = set(re.findall(r"create (?:secret \w+|configmap) ([\w-]+)", _texts()))
    used: set[str] = set()
    for _, each in manifests():
        text = str(each)
        used |= set(re.findall(r"'(?:secretName|caSecretName)': '([\w-]+)'", text))
        used |= set(re.findall(r"'configMap': \{'name': '([\w-]+)'", text))
        if each["kind"] == "TriggerAuthentication":
            used |= {asked["name"] for asked in each["spec"]["secretTargetRef"]}
    assert used == made
    provision = read_provision(DEPLOY / "k8s" / "federation.toml")
    users = {party.user for tenant in provision.tenants for party in tenant.parties}
    assert (
        set(re.findall(r"[ =]passwords/(\w+)\.password", _texts().partition("kubectl")[2])) == users
    )
    files = {said["file"] for said in compose()["secrets"].values()}
    for folder in ("certs", "passwords", "definitions"):
        assert f"deploy/secrets/{folder}" in _texts()
        assert any(file.startswith(f"./secrets/{folder}/") for file in files)


def test_what_compose_mounts_and_builds_is_there() -> None:
    read = compose()
    mounted = {
        volume.partition(":")[0]
        for service in read["services"].values()
        for volume in service["volumes"]
        if volume.startswith(".")
    }
    assert len(mounted) == 3
    build = read["x-flmq"]["build"]
    for path in (*mounted, f"{build['context']}/{build['dockerfile']}"):
        assert (DEPLOY / path).is_file(), path


def test_what_the_dockerfile_copies_is_there() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    sources = [
        name
        for line in re.findall(r"^COPY (?!--)(.+)$", dockerfile, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert {"pyproject.toml", "README.md", "LICENSE", "flmq"} <= set(sources)
    for name in sources:
        assert (ROOT / name).exists(), name


def test_the_table_has_the_variables_of_server_and_client() -> None:
    table = dict(
        re.findall(r"^\| `(FLMQ_\w+)` \| (\w+) \|", (DEPLOY / "README.md").read_text(), re.M)
    )
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    read: dict[str, str] = {"FLMQ_KEEP_MEMORY": "both", "FLMQ_DEBUG": "both"}
    for of in ("server", "client"):
        for option in commands[of].params:
            if option.envvar:
                read[option.envvar] = "both" if option.envvar in read else of
    assert table == read


def test_compose_starts_again_who_fails() -> None:
    restarts = {name: said.get("restart") for name, said in compose()["services"].items()}
    del restarts["rabbitmq"]
    assert restarts == {
        "server": "on-failure:10",
        "alice": "unless-stopped",
        "bob": "unless-stopped",
    }
