"""`flmq site` on three real brokers: a hub, a region below it, and a site below that."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from flmq.broker.polling import poll_until
from flmq.cli.main import app
from flmq.transport import (
    MODELS,
    REPLIES,
    TASKS,
    Address,
    Delivery,
    Message,
    PublishOutcome,
    client_queue,
    client_topology,
    job_topology,
    open_transport,
    replies_queue,
    reply_key,
    task_key,
)
from tests.conftest import SessionBroker
from tests.sites.brokers import PARENTS, Brokers


def taken(url: str, queue: str) -> Delivery | None:
    """Take one message that comes within a few seconds."""
    with open_transport(url, name="test") as transport:
        consumer = transport.consumer([queue], prefetch=1)
        delivery = consumer.receive(timeout=20.0)
        if delivery is not None:
            consumer.ack(delivery)
        return delivery


def publish(url: str, address: Address, message: Message) -> PublishOutcome:
    with open_transport(url, name="test") as transport:
        return transport.publisher().publish(address, message).result(20.0)


def test_apply_links_the_tree_and_messages_cross_it_both_ways(brokers: Brokers) -> None:
    planned = brokers.site("plan")
    applied = brokers.run()
    assert planned.output.strip() in applied.output
    assert "+ eu: policy flmq.sites.down" in applied.output
    assert brokers.site("apply", "--yes").output == "nothing to change\n"
    assert brokers.site("plan").output == "nothing to change\n"
    for secret in (node.management.password for node in brokers.nodes.values()):
        assert secret not in applied.output

    with open_transport(brokers.url("eu-west"), name="test") as transport:
        transport.declare(client_topology("alice", "eu-west"))
    task = Address(TASKS, task_key("eu-west", "alice"))
    assert publish(brokers.url("main"), task, Message(b"task", expiration=600.0)) is (
        PublishOutcome.CONFIRMED
    )
    there = taken(brokers.url("eu-west"), client_queue("alice"))
    assert there is not None
    assert there.message.body == b"task"
    assert there.message.expiration == 600.0
    unknown = Address(TASKS, task_key("nowhere", "alice"))
    assert publish(brokers.url("main"), unknown, Message(b"")) is PublishOutcome.UNROUTABLE

    with open_transport(brokers.url("main"), name="test") as transport:
        transport.declare(job_topology("job"))
        address = Address(REPLIES, reply_key("eu-west", "alice", "job"))
        message = Message(b"reply", user_id="flmq")

        def routed() -> bool:
            """The binding of the job's queue needs a moment to come down two storeys."""
            outcome = publish(brokers.url("eu-west"), address, message)
            return outcome is PublishOutcome.CONFIRMED

        assert poll_until(routed, 20.0)
        reply = taken(brokers.url("main"), replies_queue("job"))
        assert reply is not None
        assert reply.message.user_id == "flmq"
        assert reply.routing_key == "eu-west.alice.job"

    assert publish(brokers.url("main"), Address(MODELS, "job"), Message(b"chunk")) is (
        PublishOutcome.CONFIRMED
    )
    for url in map(brokers.url, PARENTS):
        with open_transport(url, name="test") as transport:
            found = transport.consumer([MODELS], prefetch=4, offset="first").receive(timeout=20.0)
            assert found is not None
            assert found.message.body == b"chunk"


def test_check_says_why_a_link_is_down_and_what_to_do(brokers: Brokers) -> None:
    brokers.run()
    text = brokers.file.read_text()
    eu = brokers.nodes["eu"].ports.amqp
    links = {
        'link_url = "amqp://flmq:${WRONG}@127.0.0.1:%d/flmq"': "eu refuses the password of user",
        'link_url = "amqp://flmq:${PASSWORD}@127.0.0.1:1/flmq"': "main does not reach eu at amqp",
        'link_url = "amqp://weak:weak@127.0.0.1:%d/flmq"': "user 'weak' lacks a permission at eu",
    }
    api = brokers.nodes["eu"].management
    api.call("PUT", "/api/users/weak", {"password": "weak", "tags": ""})
    none = {"configure": "^$", "write": "^$", "read": "^$"}
    api.call("PUT", "/api/permissions/flmq/weak", none)
    secret = {"WRONG": "wrong-one", "PASSWORD": api.password, "WEAK": "weak"}
    try:
        for link, says in links.items():
            link = link.replace("weak:weak", "weak:${WEAK}")
            line = link % eu if "%" in link else link
            brokers.file.write_text(text.replace('name = "eu"\n', f'name = "eu"\n{line}\n', 1))
            brokers.environ.update(secret)
            changed = brokers.site("apply", "--yes", "--site", "main")
            assert "~ main: upstream flmq.sites.up.eu" in changed.output
            result = brokers.checked(f"!!  eu -> main down: {says}")
            assert result.exit_code == 6
            assert "mend: " in result.output
            assert "wrong-one" not in result.output
            assert api.password not in result.output
    finally:
        brokers.file.write_text(text)
    brokers.run()


def test_brokers_of_one_cluster_name_are_told_apart_first(brokers: Brokers) -> None:
    brokers.run()
    eu, west = (brokers.nodes[name].management for name in ("eu", "eu-west"))
    name = west.call("GET", "/api/cluster-name")["name"]
    west.call("PUT", "/api/cluster-name", eu.call("GET", "/api/cluster-name"))
    try:
        checked = brokers.site("check")
        assert checked.exit_code == 6
        assert "the brokers of eu and eu-west have one cluster name" in checked.output
        assert "rabbitmqctl set_cluster_name eu-west" in checked.output
    finally:
        west.call("PUT", "/api/cluster-name", {"name": name})
    brokers.until_all_run()


def test_the_rights_that_the_page_names_suffice(brokers: Brokers) -> None:
    text = brokers.file.read_text()
    api = brokers.nodes["eu"].management
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    links = r"^(federation: |flmq\.).*"
    for user, tags, may in (
        ("ops", "policymaker,monitoring", everything),
        ("links", "", {"configure": links, "write": links, "read": links}),
    ):
        api.call("PUT", f"/api/users/{user}", {"password": user, "tags": tags})
        api.call("PUT", f"/api/permissions/flmq/{user}", may)
    brokers.environ.update({"OPS": "ops", "LINKS": "links"})
    line = f'link_url = "amqp://links:${{LINKS}}@127.0.0.1:{brokers.nodes["eu"].ports.amqp}/flmq"'
    changed = text.replace('name = "eu"\n', f'name = "eu"\n{line}\n', 1)
    changed = changed.replace(f"127.0.0.1:{api.port}", f"ops:${{OPS}}@127.0.0.1:{api.port}")
    try:
        brokers.file.write_text(changed)
        applied = brokers.run()
        assert "~ main: upstream flmq.sites.up.eu" in applied.output
        assert brokers.site("remove", "--site", "eu-west", "--yes").exit_code == 0
    finally:
        brokers.file.write_text(text)
    brokers.run()


def test_what_waits_for_a_broker_that_is_down_arrives_when_it_is_back(brokers: Brokers) -> None:
    brokers.run()
    with open_transport(brokers.url("eu-west"), name="test") as transport:
        transport.declare(client_topology("bob", "eu-west"))
    brokers.nodes["eu-west"].kill()
    assert "!!  eu -> eu-west unknown" in brokers.checked("!!  eu-west -> eu down").output
    task = Address(TASKS, task_key("eu-west", "bob"))
    for number in range(3):
        assert publish(brokers.url("main"), task, Message(b"%d" % number)) is (
            PublishOutcome.CONFIRMED
        )
    waits = sum(each["messages"] for each in buffers(brokers, "eu"))
    assert poll_until(lambda: sum(e["messages"] for e in buffers(brokers, "eu")) == 3, 20.0), waits
    brokers.nodes["eu-west"].start()
    brokers.until_all_run()
    for number in range(3):
        come = taken(brokers.url("eu-west"), client_queue("bob"))
        assert come is not None
        assert come.message.body == b"%d" % number
    # The management API counts some seconds later.
    assert poll_until(lambda: not any(each["messages"] for each in buffers(brokers, "eu")), 30.0)


def buffers(brokers: Brokers, name: str) -> list[dict[str, int]]:
    found = brokers.nodes[name].management.call("GET", "/api/queues/flmq") or []
    return [
        {"messages": each.get("messages", 0)}
        for each in found
        if each["name"].startswith("federation: flmq.tasks")
    ]


def test_remove_takes_a_site_away_at_both_ends_and_nothing_else(brokers: Brokers) -> None:
    brokers.run()
    refused = brokers.site("remove", "--site", "eu", "--yes")
    assert refused.exit_code == 1
    assert "parent of eu-west" in str(refused.exception)
    shown = brokers.site("remove", "--site", "eu-west", "--dry-run")
    removed = brokers.site("remove", "--site", "eu-west", "--yes")
    assert removed.exit_code == 0
    assert shown.output in removed.output
    assert "delete site 'eu-west' from" in removed.output
    result = brokers.checked("ok  eu -> main running", "ok  main -> eu running")
    assert "!!  eu -> eu-west not set up; mend: flmq site apply" in result.output
    assert brokers.site("remove", "--site", "eu-west", "--yes").output == "nothing to change\n"
    for name in ("eu", "eu-west"):
        api = brokers.nodes[name].management
        for queue in api.call("GET", "/api/queues/flmq"):
            assert not queue["name"].startswith("federation: ") or name == "eu"
        exchanges = {each["name"] for each in api.call("GET", "/api/exchanges/flmq")}
        assert {TASKS, REPLIES, MODELS} <= exchanges
    (upstream,) = brokers.nodes["eu"].management.call(
        "GET", "/api/parameters/federation-upstream/flmq"
    )
    assert upstream["name"] == "flmq.sites.down.main"
    assert brokers.run().output.startswith("+ eu: upstream flmq.sites.up.eu-west\n")


def test_a_site_that_cannot_be_reached_is_taken_away_at_its_parent(brokers: Brokers) -> None:
    brokers.run()
    api = brokers.nodes["eu-west"].management
    gone = brokers.file.read_text().replace(f":{api.port}", ":1")
    text = brokers.file.read_text()
    try:
        brokers.file.write_text(gone)
        removed = brokers.site("remove", "--site", "eu-west", "--yes")
        assert brokers.site("plan").exit_code == 1
    finally:
        brokers.file.write_text(text)
    assert removed.exit_code == 6
    assert "- eu: upstream flmq.sites.up.eu-west" in removed.output
    assert "left as it is, run this again when it is there: site 'eu-west'" in removed.output
    assert brokers.site("remove", "--site", "eu-west", "--yes").exit_code == 0


def test_definitions_do_the_same_as_apply(brokers: Brokers, tmp_path: Path) -> None:
    vhost = "by-import"
    file = tmp_path / "federation.toml"
    file.write_text(brokers.file.read_text().replace("\nurl = ", f'\nvhost = "{vhost}"\nurl = '))
    there = Brokers(brokers.nodes, file, brokers.environ)
    folder = tmp_path / "definitions"
    assert there.site("apply", "--definitions", str(folder)).exit_code == 0
    try:
        for name, node in brokers.nodes.items():
            written = folder / f"{name}.json"
            assert written.stat().st_mode & 0o077 == 0
            node.management.call("POST", "/api/definitions", json.loads(written.read_text()))
            node.management.add_vhost(vhost)  # and permissions on it, which are not in there
        assert there.site("plan").output == "nothing to change\n"
        there.until_all_run()
    finally:
        for node in brokers.nodes.values():
            node.management.delete_vhost(vhost)


def test_a_broker_without_the_plugins_is_told_what_to_enable(
    broker_url: str, broker_node: SessionBroker, tmp_path: Path
) -> None:
    api = broker_node.management
    file = tmp_path / "federation.toml"
    file.write_text(
        '[[site]]\nname = "main"\nurl = "${U}"\n'
        f'management_url = "http://127.0.0.1:{api.port}"\n'
        '[[site]]\nname = "eu"\nparent = "main"\nurl = "${U}"\nvhost = "none"\n'
        f'management_url = "http://127.0.0.1:{api.port}"\n'
    )

    def run(*typed: str) -> Result:
        arguments = ["site", *typed, "--file", str(file)]
        return CliRunner().invoke(app, arguments, env={"U": broker_url})

    assert "site 'eu': there is no virtual host 'none'" in str(run("plan").exception)
    applied = run("apply", "--yes", "--site", "main")
    assert "rabbitmq-plugins enable rabbitmq_federation" in str(applied.exception)
    checked = run("check", "--site", "main")
    assert checked.exit_code == 6
    assert "no plugin for links" in checked.output


def test_a_tenant_is_provisioned_at_every_site_with_its_links(
    brokers: Brokers, tmp_path: Path
) -> None:
    file, passwords = tmp_path / "federation.toml", tmp_path / "passwords"
    file.write_text(
        brokers.file.read_text()
        + '[[tenant]]\nname = "clinic"\n'
        + '[[client]]\nids = ["alice.example.org"]\nsite = "eu-west"\n'
        + '[[server]]\nuser = "server"\njobs = ["mnist"]\n'
    )

    def provision(*arguments: str) -> Result:
        typed = ["provision", *arguments, "--file", str(file), "--passwords", str(passwords)]
        return CliRunner().invoke(app, typed, env=brokers.environ)

    made = provision("--yes")
    assert made.exit_code == 0, made.output
    assert "+ eu-west (clinic): client alice.example.org: user" in made.output
    assert "+ eu (clinic): upstream flmq.sites.down.main" in made.output
    assert provision("--yes").output == "nothing to change\n"
    assert poll_until(lambda: provision("check").exit_code == 0, 60.0, every=0.3), provision(
        "check"
    ).output

    def url(site: str, user: str) -> str:
        secret = (passwords / f"{user}.password").read_text().strip()
        port = brokers.nodes[site].ports.amqp
        return f"amqp://{user}:{secret}@127.0.0.1:{port}/clinic"

    with open_transport(url("main", "server"), name="test") as server:
        server.declare(job_topology("mnist"))
        address = Address(REPLIES, reply_key("eu-west", "alice.example.org", "mnist"))
        message = Message(b"reply", user_id="alice.example.org")

        def routed() -> bool:
            outcome = publish(url("eu-west", "alice.example.org"), address, message)
            return outcome is PublishOutcome.CONFIRMED

        assert poll_until(routed, 20.0)
        consumer = server.consumer([replies_queue("mnist")], prefetch=1)
        delivery = consumer.receive(timeout=20.0)
        assert delivery is not None
        assert delivery.message.user_id == "alice.example.org"
        consumer.ack(delivery)
