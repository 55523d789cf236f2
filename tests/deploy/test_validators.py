"""What deploy/ ships is taken by those that read it: their schemas and their own validators."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import kubernetes_validate
import pytest
import yaml

from flmq.cli.exit_codes import ExitCode
from flmq.monitoring.families import MEASURED
from tests.deploy.schemas import CUSTOM
from tests.deploy.shipped import (
    DEPLOY,
    K8S,
    UNITS,
    compose,
    manifest,
    manifests,
    parsed,
    settings,
    unit,
)
from tests.processes import BIN

KUBERNETES = ("1.30", kubernetes_validate.latest_version())
_EXPOSURE = 20
"""Tenths of what `systemd-analyze security` may say of a unit: 0 is none, 10 is all."""


# -- Kubernetes ------------------------------------------------------------------------------


def _merged(base: Any, patch: Any) -> Any:
    """A strategic merge, of what our patches have: lists of things with names, and objects."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {
            **base,
            **{key: _merged(base[key], new) if key in base else new for key, new in patch.items()},
        }
    if isinstance(base, list) and isinstance(patch, list):
        news = {each["name"]: each for each in patch}
        assert news.keys() <= {each["name"] for each in base}
        return [_merged(each, news.get(each["name"], {})) for each in base]
    return patch


def _all_manifests() -> list[tuple[str, dict[str, Any]]]:
    found = [*manifests()]
    for name, each in manifests(K8S / "standby"):
        if each["kind"] != "Kustomization":  # a patch: what it makes of what it is for
            each = _merged(manifest(each["kind"], each["metadata"]["name"]), each)
        found.append((f"standby/{name}", each))
    return found


@pytest.mark.parametrize(
    ("where", "manifest"),
    _all_manifests(),
    ids=lambda each: each if isinstance(each, str) else each["kind"],
)
def test_every_manifest_fits_its_schema(where: str, manifest: dict[str, Any]) -> None:
    """None has a field that Kubernetes, KEDA or the operator of RabbitMQ does not know."""
    if (schema := CUSTOM.get(manifest["kind"])) is not None:
        jsonschema.validate(manifest, schema)
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_typing_error_is_found() -> None:
    """The schemas are strict: what nobody reads is refused."""
    wrong = deepcopy(manifest("StatefulSet", "flmq-server"))
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[0], strict=True)
    for kind, name in (("ScaledObject", "flmq-pool"), ("RabbitmqCluster", "rabbitmq")):
        wrong = deepcopy(manifest(kind, name))
        wrong["spec"]["maxReplicas"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, CUSTOM[kind])


def test_kustomize_finds_all_files_and_only_those() -> None:
    for folder, more in ((K8S, set()), (K8S / "standby", {".."})):
        said = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named = {*said["resources"], *(each["path"] for each in said.get("patches", ()))}
        there = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert named == there | more


def test_the_operator_is_given_the_settings_of_rabbitmq_conf() -> None:
    given = parsed(manifest("RabbitmqCluster", "rabbitmq")["spec"]["rabbitmq"]["additionalConfig"])
    secure = settings("rabbitmq-secure.conf")
    shipped = {
        **settings("rabbitmq.conf"),
        # Files and ports are the operator's, and so are definitions.
        **{key: secure[key] for key in secure if re.match(r"ssl_options\.(ver|fail)", key)},
    }
    assert given == shipped


@pytest.mark.parametrize(
    ("kind", "name"), [("StatefulSet", "flmq-server"), ("Deployment", "flmq-pool")]
)
def test_our_pods_may_do_nothing_that_they_need_not(kind: str, name: str) -> None:
    """As the Pod Security Standard `restricted` has it, and a root that cannot be written."""
    spec = manifest(kind, name)["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}


def test_what_selects_pods_selects_those_that_there_are() -> None:
    labels = {"rabbitmq"}  # the operator's pods: the name of the cluster
    for _, each in manifests():
        if each["kind"] in ("StatefulSet", "Deployment"):
            labels.add(each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"])
    text = "".join(file.read_text() for file in K8S.glob("*.yaml"))
    named = set(re.findall(r"app\.kubernetes\.io/name: ([\w-]+)", text))
    for values in re.findall(r"app\.kubernetes\.io/name, operator: In, values: \[(.*)\]", text):
        named |= set(values.split(", "))
    assert named == labels
    scaled = manifest("ScaledObject", "flmq-pool")["spec"]["scaleTargetRef"]["name"]
    assert manifest("Deployment", scaled)["spec"]["replicas"] == 0


def test_keda_asks_for_metrics_that_there_are() -> None:
    triggers = manifest("ScaledObject", "flmq-pool")["spec"]["triggers"]
    asked = {
        name
        for each in triggers
        for name in re.findall(r"flmq_\w+", each["metadata"].get("query", ""))
    }
    assert asked == {"flmq_worker_tasks_open", "flmq_epoch"}
    assert asked <= MEASURED.keys()


# -- compose and its image -------------------------------------------------------------------


def _compose_schema() -> dict[str, Any]:
    """The schema of the Compose specification, as check-jsonschema has it."""
    folder = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    read: dict[str, Any] = json.loads((folder / "compose-spec.json").read_text(encoding="utf-8"))
    return read


def test_compose_fits_its_schema() -> None:
    schema = _compose_schema()
    jsonschema.validate(compose(), schema)
    wrong = compose()
    wrong["services"]["server"]["stop_graceperiod"] = "30s"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_compose_gives_each_its_own_secret_and_no_other() -> None:
    read = compose()
    for name in ("server", "alice", "bob"):
        assert read["services"][name]["secrets"] == ["ca", name]
        assert f"//{name}@" in read["services"][name]["environment"]["FLMQ_BROKER_URL"]
    used = {
        secret if isinstance(secret, str) else secret["source"]
        for service in read["services"].values()
        for secret in service.get("secrets", ())
    }
    assert used == read["secrets"].keys()


def _instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, _, rest in pairs]


def test_the_image_runs_as_nobody_and_hears_signals() -> None:
    instructions = _instructions()
    last = dict(instructions)
    known = {
        *("FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV"),
        *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
    }
    assert last.keys() <= known
    assert last["USER"] == "1000:1000"
    assert [word for word, _ in instructions].index("USER") < len(instructions) - 1
    # Exec form: a shell in between would keep the signal to itself.
    assert json.loads(last["ENTRYPOINT"]) == ["tini", "--", "flmq"]
    assert json.loads(last["CMD"]) == ["--help"]
    for _, base in [each for each in instructions if each[0] == "FROM"]:
        assert re.match(r"\S+:\d+\.\d+\S*( AS \w+)?$", base), "a version is named"


def test_the_check_of_health_is_a_program() -> None:
    (check,) = [rest for word, rest in _instructions() if word == "HEALTHCHECK"]
    program = json.loads(check.partition("CMD ")[2])
    assert program[:2] == ["python", "-c"]
    env = {"FLMQ_METRICS_PORT": "1"}
    for given, status in (({}, 0), (env, 1)):  # nothing is asked for; and nobody answers
        done = subprocess.run(
            [sys.executable, *program[1:]], env=given, check=False, capture_output=True
        )
        assert done.returncode == status


# -- systemd ---------------------------------------------------------------------------------


def _systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    assert found, "systemd-analyze is missing: `apt-get install systemd` (no service is started)"
    return found


def _installed(file: Path, folder: Path) -> Path:
    """The unit for one instance, with a program that is there."""
    text = file.read_text().replace("/opt/flmq/bin/flmq", str(BIN / "flmq"))
    made = folder / file.name.replace("@.", "@one.")
    made.write_text(text)
    return made


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_systemd_takes_every_unit(file: Path, tmp_path: Path) -> None:
    made = _installed(file, tmp_path)
    command = [_systemd_analyze(), "verify", "--man=no", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = [_systemd_analyze(), "security", "--offline=true", f"--threshold={_EXPOSURE}"]
    done = subprocess.run([*command, str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    made.write_text(made.read_text().replace("Restart=", "Restarts=", 1))
    command = [_systemd_analyze(), "verify", "--man=no", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Restarts" in done.stderr


def test_units_start_again_by_exit_status() -> None:
    """What the next start would end with likewise is left to a person; SIGTERM is no failure."""
    assert {file.name for file in UNITS} == {
        *("flmq-server@.service", "flmq-client@.service", "flmq-aggregator@.service")
    }
    for file in UNITS:
        service = unit(file)["Service"]
        prevented = {ExitCode(int(each)) for each in service["RestartPreventExitStatus"].split()}
        over = {ExitCode.UNCHANGED} if "server" in file.name else set()
        assert prevented == {ExitCode.USAGE, ExitCode.STORED_DATA, *over}
        assert int(service["SuccessExitStatus"]) == ExitCode.TERMINATED
        assert service["KillMode"] == "mixed"
    client = unit(DEPLOY / "systemd" / "flmq-client@.service")["Service"]
    (grace,) = re.findall(r"--grace (\d+)", client["ExecStart"])
    assert int(client["TimeoutStopSec"]) >= int(grace) + 10
