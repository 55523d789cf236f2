"""`flmq doctor --file`: the links between sites, as their brokers' management APIs have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flmq.broker import doctor
from flmq.broker.management import Management, NoSuchThing
from flmq.broker.probe import BrokerFacts
from flmq.cli.exit_codes import ExitCode
from flmq.cli.main import app
from flmq.common.errors import BrokerAccessRefused, BrokerUnavailable
from flmq.sites.wanted import DOWN, OURS, UP

FILE = """
[[site]]
name = "main"
url = "amqp://flmq:${SECRET}@hub/flmq"
management_url = "http://hub-api:8080"

[[site]]
name = "eu"
parent = "main"
url = "amqp://flmq:${SECRET}@eu/flmq"
"""


class Apis:
    """What the management APIs say, by host; a host that is not here does not answer."""

    def __init__(self) -> None:
        self.links: dict[str, Any] = {
            "hub-api": [_link("up.eu", exchange) for exchange in UP],
            "eu": [_link("down.main", exchange) for exchange in DOWN],
        }
        self.clusters: dict[str, str] = {}
        """Names of brokers that have not each its own."""
        self.waiting: dict[str, dict[str, int]] = {"hub-api": {}, "eu": {}}

    def call(self, api: Management, method: str, path: str, body: object = None) -> Any:
        assert (method, body) == ("GET", None)
        if api.host not in self.links:
            raise BrokerUnavailable(f"no management API answers at {api.shown_url}")
        what = path.split("/")[2].partition("?")[0]
        match what:
            case "cluster-name":
                return {"name": self.clusters.get(api.host, f"rabbit@{api.host}")}
            case "queues":
                waiting = self.waiting.get(api.host, {})
                queues = [{"name": n, "messages": m} for n, m in waiting.items()]
                return {"items": queues, "page_count": 1}
            case "federation-links":
                if isinstance(links := self.links[api.host], Exception):
                    raise links
                return links
            case "nodes":
                return [{"enabled_plugins": ["rabbitmq_federation"]}]
            case "policies" | "operator-policies":
                return []
        raise NoSuchThing(path)


def _link(upstream: str, exchange: str, status: str = "running", error: str = "") -> dict[str, Any]:
    return {
        "upstream": f"{OURS}{upstream}",
        "exchange": exchange,
        "status": status,
        "error": error,
    }


@pytest.fixture
def apis(monkeypatch: pytest.MonkeyPatch) -> Apis:
    apis = Apis()
    monkeypatch.setattr(Management, "call", lambda *args: apis.call(*args))
    facts = BrokerFacts("RabbitMQ", "3.10.8", "rabbit@hub", (), can_declare=True)
    monkeypatch.setattr(doctor, "ask_broker", lambda address, declare: facts)
    return apis


def run(tmp_path: Path, *arguments: str, more: str = "") -> Result:
    file = tmp_path / "federation.toml"
    file.write_text(FILE + more)
    environ = {
        "SECRET": "s3cret",
        "XDG_STATE_HOME": str(tmp_path),
        "FLMQ_BROKER_URL": "",
        "FLMQ_MANAGEMENT_URL": "",
    }
    return CliRunner().invoke(app, ["doctor", "--file", str(file), *arguments], env=environ)


def line(result: Result, name: str) -> str:
    (found,) = [each for each in result.output.splitlines() if each[4:].startswith(f"{name}  ")]
    return found


def test_it_looks_at_the_hub_and_at_each_link(tmp_path: Path, apis: Apis) -> None:
    result = run(tmp_path)
    assert result.exit_code == ExitCode.OK, result.output
    assert line(result, "broker").startswith("ok")
    assert "rabbitmq_federation" in line(result, "broker plugins")
    assert line(result, "broker policies").startswith("ok")
    assert line(result, "link main -> eu").split("  ")[-1] == "running"
    assert line(result, "link eu -> main").split("  ")[-1] == "running"
    assert "s3cret" not in result.output


def test_a_link_that_is_down_is_a_fault_with_what_waits_for_it_and_its_mend(
    tmp_path: Path, apis: Apis
) -> None:
    apis.links["hub-api"][0] = _link("up.eu", UP[0], "error", "{auth_failure, s3cret}")
    apis.waiting["eu"] = {f"federation: {UP[0]} -> rabbit@hub-api": 12}
    result = run(tmp_path, "--quiet")
    assert result.exit_code == ExitCode.CHECK_FAILED
    said = line(result, "link eu -> main")
    assert said.startswith("!!")
    assert said.endswith("down: eu refuses the password of user 'flmq', 12 waiting")
    assert "mend: correct link_url of site 'eu', and flmq site apply" in result.output
    assert "main -> eu" not in result.output
    assert "s3cret" not in result.output


def test_a_site_that_cannot_be_asked_is_named(tmp_path: Path, apis: Apis) -> None:
    del apis.links["eu"]
    result = run(tmp_path, "--quiet")
    assert result.exit_code == ExitCode.CHECK_FAILED
    assert "unknown: no management API answers at http://eu:15672" in line(
        result, "link main -> eu"
    )
    assert "correct management_url of site 'eu'" in result.output


def test_a_user_who_may_not_ask_for_links_is_told_the_tag(tmp_path: Path, apis: Apis) -> None:
    apis.links["eu"] = BrokerAccessRefused("the management API refuses user 'flmq'")
    result = run(tmp_path, "--quiet")
    assert "tag monitoring" in result.output


def test_a_link_that_is_not_set_up_may_have_another_policy_before_it(
    tmp_path: Path, apis: Apis
) -> None:
    """Of the policies that match an exchange only the one of the highest priority holds."""
    apis.links["eu"] = []
    result = run(tmp_path, "--quiet")
    assert line(result, "link main -> eu").endswith("not set up")
    assert "mend: flmq site apply; if that changes nothing" in result.output
    assert "rabbitmqctl list_policies -p flmq" in result.output


def test_two_brokers_that_are_taken_for_one_are_no_fault_of_a_third(
    tmp_path: Path, apis: Apis
) -> None:
    more = ""
    for name in ("us", "asia"):
        url = f"amqp://flmq:${{SECRET}}@{name}/flmq"
        more += f'[[site]]\nname = "{name}"\nparent = "main"\nurl = "{url}"\n'
        apis.links["hub-api"] += [_link(f"up.{name}", exchange) for exchange in UP]
        apis.links[name] = [_link("down.main", exchange) for exchange in DOWN]
    apis.clusters = {"eu": "same", "us": "same"}
    result = run(tmp_path, more=more)
    assert result.exit_code == ExitCode.CHECK_FAILED
    for name in ("eu", "us"):
        assert "have one cluster name, same" in line(result, f"link {name} -> main")
    assert line(result, "link asia -> main").split("  ")[-1] == "running"
