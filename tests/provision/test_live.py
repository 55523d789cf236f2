"""What provision makes, mends and removes on a real broker, and what it leaves alone."""

from __future__ import annotations

import stat
import threading

import pika
import pytest

from flmq.broker.management import Management
from flmq.broker.policies import dropping_policies
from flmq.provision.applying import carry_out, planned, rotate
from flmq.provision.difference import NotOurs, WrongType
from flmq.provision.importing import importable
from flmq.provision.parties import UnknownUser
from flmq.provision.passwords import Passwords, PasswordsInUse
from flmq.provision.permissions import client_rights
from flmq.provision.plan import lines_of
from tests.provision.stage import Stage

ALICE = '[[client]]\nids = ["@alice.org"]\n'
BOB = '[[client]]\nids = ["@bob"]\n'
OTHERS = (
    '[[client]]\nids = "@w-{0..2}"\nuser = "@pool"\n'
    '[[client]]\nids = ["@cert"]\nlogin = "certificate"\n'
    '[[server]]\nuser = "@server"\njobs = ["mnist-*"]\n'
    '[[aggregator]]\nuser = "@adds"\n'
    '[[operator]]\nuser = "@carol"\n'
)
NOBODY = (pika.exceptions.ProbableAuthenticationError, pika.exceptions.AMQPConnectionError)


def test_all_that_a_federation_needs_is_made_once(stage: Stage) -> None:
    lines = stage.apply(ALICE + OTHERS + "[limits]\nqueue_messages = 50\nvhost_connections = 99\n")
    assert any(stage.name("alice.org") in line and line.startswith("+") for line in lines)
    assert stage.users() == {"alice.org", "pool", "cert", "server", "adds", "carol"}
    queues = stage.queues()
    ids = {"@alice.org", "@w-0", "@w-1", "@w-2", "@cert"}
    assert {f"flmq.client.{each}" for each in ids} <= set(queues)
    assert queues["flmq.client.@alice.org"]["x-dead-letter-exchange"] == "flmq.dead"
    assert not any("x-expires" in each for name, each in queues.items() if name != "flmq.dead")
    assert stage.bindings("flmq.client.@alice.org") == {
        ("flmq.tasks.local", "main.@alice/org"),
        ("flmq.tasks.everybody", ""),
    }
    (permission,) = stage.call("GET", "/api/users/@alice.org/permissions")
    rights = client_rights("main", [stage.name("alice.org")], aggregated=True)
    assert (permission["read"], permission["write"]) == (rights.read, rights.write)
    assert len(stage.call("GET", "/api/users/@alice.org/topic-permissions")) == len(rights.topics)
    assert stage.user("alice.org")["limits"] == {"max-connections": 8, "max-channels": 64}
    assert stage.user("pool")["limits"]["max-connections"] == 24
    assert stage.call("GET", "/api/exchanges/@/flmq.provisioned")["internal"] is True
    assert stage.call("GET", "/api/vhost-limits/@")[0]["value"] == {"max-connections": 99}
    # Limits of one's own file are no surprise.
    assert not dropping_policies(stage.broker.management, stage.prefix)
    (policy,) = stage.call("GET", "/api/policies/@")
    assert policy["definition"] == {"max-length": 50, "overflow": "drop-head"}


def test_passwords_are_files_for_their_owner_alone_and_are_kept(stage: Stage) -> None:
    lines = stage.apply(ALICE + OTHERS)
    file = stage.passwords.file(stage.name("alice.org"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = stage.password("alice.org")
    assert len(before) >= 32
    assert not any(before in line for line in lines)
    stage.connect("alice.org").close()
    stage.apply(ALICE + OTHERS + BOB)
    assert stage.password("alice.org") == before
    # A user with a certificate has none, and none can be guessed.
    assert not stage.passwords.file(stage.name("cert")).exists()
    with pytest.raises(NOBODY):
        stage.connect("cert", "")


def test_a_password_that_a_person_put_there_is_taken(stage: Stage) -> None:
    stage.passwords.write({stage.name("bob"): "of his own"})
    stage.apply(BOB)
    stage.connect("bob", "of his own").close()


def test_what_was_changed_by_hand_is_put_right(stage: Stage) -> None:
    stage.apply(ALICE + BOB)
    user, queue = "@alice.org", "flmq.client.@alice.org".replace("@", stage.prefix)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    stage.call("PUT", f"/api/permissions/@/{user}", everything)
    stage.call("PUT", f"/api/topic-permissions/@/{user}", {
        "exchange": "flmq.replies", "write": ".*", "read": ".*",
    })  # fmt: skip
    stage.call("PUT", f"/api/topic-permissions/@/{user}", {
        "exchange": "flmq.tasks", "write": ".*", "read": ".*",
    })  # fmt: skip
    stage.call("PUT", f"/api/user-limits/{user}/max-channels", {"value": -1})
    bobs = "main." + stage.name("bob")
    stage.call("POST", f"/api/bindings/@/e/flmq.tasks.local/q/{queue}", {"routing_key": bobs})
    stage.call("DELETE", "/api/queues/@/flmq.client.@bob")
    lines = stage.apply(ALICE + BOB)
    assert any(line.startswith("~") and "permissions" in line for line in lines)
    rights = client_rights("main", [stage.name("alice.org")])
    (permission,) = stage.call("GET", f"/api/users/{user}/permissions")
    assert permission["configure"] == "^$"
    topics = stage.call("GET", f"/api/users/{user}/topic-permissions")
    assert {each["exchange"]: each["write"] for each in topics} == {
        each.exchange: each.write for each in rights.topics
    }
    assert stage.user("alice.org")["limits"]["max-channels"] == 64
    assert ("flmq.tasks.local", "main.@bob") not in stage.bindings(queue)
    assert "flmq.client.@bob" in stage.queues()


def test_a_user_who_was_given_a_tag_by_hand_loses_it(stage: Stage) -> None:
    stage.apply(BOB)
    bob = stage.user("bob")
    stage.call(
        "POST", "/api/definitions", {"users": [{**bob, "tags": [*bob["tags"], "administrator"]}]}
    )
    stage.apply(BOB)
    assert "administrator" not in stage.user("bob")["tags"]


def test_a_client_that_leaves_the_file_goes_with_all_that_was_its(stage: Stage) -> None:
    stage.apply(ALICE + BOB)
    connection = stage.connect("bob")
    channel = connection.channel()
    channel.basic_consume(stage.name("bob").join(("flmq.client.", "")), lambda *_: None)
    stage.call("PUT", "/api/queues/@/flmq.client.other", {
        "durable": True, "arguments": {"x-expires": 10_000_000},
    })  # fmt: skip
    stage.call("PUT", "/api/queues/@/mine", {"durable": True})
    stage.call("PUT", "/api/users/@mine", {"password": "x", "tags": ""})
    (line,) = stage.apply(ALICE)
    assert "no longer in the file" in line
    assert "its connections are closed" in line
    with pytest.raises(pika.exceptions.AMQPError):
        connection.process_data_events(10)
    assert stage.users() == {"alice.org", "mine"}
    left = {name for name in stage.queues() if "bob" in name}
    assert not left
    assert {"flmq.client.other", "mine", "flmq.client.@alice.org"} <= set(stage.queues())
    assert not stage.passwords.file(stage.name("bob")).exists()
    with pytest.raises(NOBODY):
        stage.connect("bob", "anything")


def test_limits_that_leave_the_file_are_lifted(stage: Stage) -> None:
    server = '[[server]]\nuser = "@s"\n'
    stage.apply(server + "limits = { connections = 5 }\n[limits]\njob_bytes = 1000\n")
    assert stage.user("s")["limits"] == {"max-connections": 5}
    stage.apply(server)
    assert stage.user("s")["limits"] == {}
    assert not stage.call("GET", "/api/policies/@")


def test_a_queue_that_a_client_declared_before_is_made_again(stage: Stage) -> None:
    stage.broker.management.add_vhost(stage.prefix)
    name = "/api/queues/@/flmq.client.@bob"
    stage.call("PUT", name, {"durable": True, "arguments": {"x-expires": 10_000_000}})
    lines = stage.apply(BOB)
    assert any("deleted and made again" in line for line in lines)
    assert "x-expires" not in stage.queues()["flmq.client.@bob"]


def test_what_others_made_is_not_touched(stage: Stage) -> None:
    stage.call("PUT", "/api/users/@bob", {"password": "x", "tags": "monitoring"})
    with pytest.raises(NotOurs, match="was not made for this virtual host"):
        stage.apply(BOB)
    assert stage.user("bob")["tags"] == ["monitoring"]
    stage.call("DELETE", "/api/users/@bob")
    stage.broker.management.add_vhost(stage.prefix)
    stage.call("PUT", "/api/exchanges/@/flmq.replies", {"type": "fanout", "durable": True})
    with pytest.raises(WrongType, match=r"exchange 'flmq\.replies'"):
        stage.apply(BOB)


def test_others_with_rights_on_the_virtual_host_are_named(stage: Stage) -> None:
    stage.apply(BOB)
    stage.call("PUT", "/api/users/@eve", {"password": "x", "tags": ""})
    stage.call("PUT", "/api/permissions/@/@eve", {"configure": "", "write": ".*", "read": ""})
    plan = stage.plan(stage.says(BOB))
    assert plan.is_empty
    (line,) = lines_of(plan)
    assert "left alone" in line
    assert stage.name("eve") in line


def test_a_rotated_password_holds_for_who_connects_anew(stage: Stage) -> None:
    stage.apply(ALICE + BOB)
    old = stage.password("bob")
    connection = stage.connect("bob")
    wanted = stage.says(ALICE + BOB)
    assert rotate(wanted, [stage.name("bob")], stage.passwords) == (stage.name("bob"),)
    assert stage.password("bob") != old
    connection.channel().close()
    connection.close()
    stage.connect("bob").close()
    with pytest.raises(NOBODY):
        stage.connect("bob", old)
    alice = stage.password("alice.org")
    assert len(rotate(wanted, None, stage.passwords)) == 2
    assert stage.password("alice.org") != alice
    assert stage.plan(wanted).is_empty


def test_who_cannot_have_a_new_password_is_named(stage: Stage) -> None:
    wanted = stage.says(OTHERS)
    with pytest.raises(UnknownUser, match="no such user"):
        rotate(wanted, ["nobody"], stage.passwords)
    with pytest.raises(UnknownUser, match="logs in without a password"):
        rotate(wanted, [stage.name("cert")], stage.passwords)
    with pytest.raises(UnknownUser, match="stands on no broker yet"):
        rotate(wanted, [stage.name("server")], stage.passwords)
    assert not stage.passwords.folder.exists()


def test_passwords_of_another_machine_are_left_as_they_are(stage: Stage) -> None:
    stage.apply(BOB)
    elsewhere = Passwords(stage.folder / "elsewhere")
    secret = stage.password("bob")
    stage.passwords.folder.rename(stage.folder / "kept")
    wanted = stage.says(BOB)
    plan = stage.plan(wanted)
    assert plan.is_empty
    assert any("rotate" in line for line in lines_of(plan))
    carry_out(plan, elsewhere)
    stage.connect("bob", secret).close()


def test_definitions_are_imported_by_rabbitmqctl(stage: Stage) -> None:
    wanted = stage.says(ALICE + OTHERS + "[limits]\nqueue_bytes = 5000\nvhost_queues = 500\n")
    definitions = importable(wanted, "main", stage.passwords)
    assert definitions == importable(wanted, "main", stage.passwords)
    assert stage.password("pool") not in str(definitions)
    stage.call("POST", "/api/definitions", definitions)
    # Who imports needs no rights there; who looks may.
    assert all("who provisions" in line for line in lines_of(stage.plan(wanted)))
    stage.connect("pool").close()


def test_two_at_once_with_one_folder_and_with_two(stage: Stage) -> None:
    text = "".join(f'[[client]]\nids = ["@c-{number}"]\n' for number in range(20))
    wanted = stage.says(text)
    with stage.passwords.alone(), pytest.raises(PasswordsInUse), stage.passwords.alone():
        pass
    folders = [stage.passwords, Passwords(stage.folder / "other")]
    errors: list[Exception] = []

    def run(passwords: Passwords) -> None:
        try:
            carry_out(planned(wanted, ["main"], passwords), passwords)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    plan = stage.plan(wanted)
    carry_out(plan, stage.passwords)
    assert stage.plan(wanted).is_empty
    stage.connect("c-7").close()


def test_calls_do_not_grow_with_the_number_of_clients(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    call = Management.call

    def counted(api: Management, method: str, path: str, body: object = None) -> object:
        calls.append(f"{method} {path}")
        return call(api, method, path, body)

    monkeypatch.setattr(Management, "call", counted)
    wanted = stage.says('[[client]]\nids = "@c-{0..199}"\n')
    carry_out(stage.plan(wanted), stage.passwords)
    assert stage.plan(wanted).is_empty
    assert len(calls) < 25, calls
    assert sum(path.startswith("POST /api/definitions") for path in calls) <= 4
    queues = [name for name in stage.queues() if name.startswith("flmq.client.")]
    assert len(queues) == 200
