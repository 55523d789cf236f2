"""Who takes part, as federation.toml says it, and how it objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.provision.parties import Login, Provision, Role
from flmq.provision.permissions import client_rights, server_rights
from flmq.provision.reading import read_provision
from flmq.sites.reading import read_federation
from flmq.sites.tables import InvalidFederation

ENVIRON = {"URL": "amqp://admin:secret@hub:5672/fl"}
SITE = '[[site]]\nname = "main"\nurl = "${URL}"\n'
EU = '[[site]]\nname = "eu"\nparent = "main"\nurl = "amqp://admin@eu/fl"\n'
TENANTS = '[[tenant]]\nname = "a"\n[[tenant]]\nname = "b"\nvhost = "other"\n'


def read(tmp_path: Path, text: str) -> Provision:
    file = tmp_path / "federation.toml"
    file.write_text(text)
    return read_provision(file, ENVIRON)


def client(ids: str, more: str = "") -> str:
    return f"[[client]]\nids = {ids}\n{more}\n"


def test_a_file_with_one_broker(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("w-1 # the first\nw-2\n")
    provision = read(
        tmp_path,
        SITE
        + client('["alice.example.org"]', 'login = "certificate"')
        + client('"site-{00..11}"', 'user = "pool"\nlimits = { connections = 5 }')
        + client('"ids.txt"')
        + '[[server]]\nuser = "server"\njobs = ["mnist-*"]\n'
        + "[[aggregator]]\n"
        + '[[operator]]\nuser = "carol"\n'
        + "[limits]\nchannels = 7\nvhost_queues = 100\njob_bytes = 1000\n",
    )
    (tenant,) = provision
    alice, pool, first, second, server, aggregator, carol = tenant.parties
    assert (alice.user, alice.login, alice.site) == (
        "alice.example.org",
        Login.CERTIFICATE,
        "main",
    )
    assert alice.rights == client_rights("main", ["alice.example.org"], aggregated=True)
    assert (alice.limits.connections, alice.limits.channels) == (8, 7)
    assert (pool.limits.connections, pool.limits.channels) == (5, 7 * 12)
    assert pool.client_ids[-1] == "site-11"
    assert (first.user, second.user) == ("w-1", "w-2")
    assert server.rights == server_rights(["mnist-*"])
    assert (aggregator.user, aggregator.role) == ("aggregator-main", Role.AGGREGATOR)
    assert carol.role is Role.OBSERVER
    assert (tenant.limits.queues, tenant.limits.job_bytes) == (100, 1000)
    assert tenant.speakers["pool"] == {f"site-{number:02}" for number in range(12)}
    assert tenant.aggregators == {"aggregator-main": "main"}
    assert provision.at_vhost("fl") is tenant
    assert not provision.is_empty


def test_tenants_have_virtual_hosts_of_their_own_at_every_site(tmp_path: Path) -> None:
    provision = read(
        tmp_path,
        SITE + EU + TENANTS
        + client('["alice"]', 'tenant = "a"\nsite = "eu"')
        + client('["alice"]', 'tenant = "b"\nuser = "alice-b"')
        + '[[operator]]\nuser = "carol"\nrole = "operator"\ntenant = "b"\n',
    )  # fmt: skip
    first, second = provision
    assert [site.vhost for site in first.federation] == ["a", "a"]
    assert [site.link_url.vhost for site in second.federation] == ["other", "other"]
    assert [party.site for party in second.parties] == ["main", "main", "eu"]
    assert second.parties[1].rights.configure == ".*"


def test_links_of_one_tenant_of_several_are_asked_for_by_its_virtual_host(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(SITE + TENANTS)
    assert read_federation(file, ENVIRON, vhost="other").hub.vhost == "other"
    with pytest.raises(InvalidFederation, match="a, other"):
        read_federation(file, ENVIRON)
    file.write_text(SITE + '[[tenant]]\nname = "a"\n')
    assert read_federation(file, ENVIRON).hub.vhost == "a"


def test_a_file_of_sites_alone_provisions_nobody(tmp_path: Path) -> None:
    assert read(tmp_path, SITE + EU).is_empty


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[clients]]\nids = []\n", "clients: unknown key; did you mean 'client'?"),
        ("[[client]]\nid = ['a']\n", "client 1.id: unknown key; did you mean 'ids'?"),
        ("[[client]]\n", "client 1.ids: is missing: write a list"),
        (client("7"), "client 1.ids: must be a text in quotes"),
        (client('"7"'), "client 1.ids: is a number"),
        (client('"nobody.txt"'), "there is no such file"),
        (client("[]"), "client 1.ids: must be a list of texts"),
        (client('["a", 7]'), "client 1.ids: must be a list of texts"),
        (client('["a", "a"]'), "given twice"),
        (client('["a/b"]'), "client 1.ids: client id 1 of 1"),
        (client('["a.*"]'), "client 1.ids: client id 1 of 1"),
        (client('["../../etc/passwd"]'), "client 1.ids: client id 1 of 1"),
        (client('["a\\nb"]'), "client 1.ids: client id 1 of 1"),
        (client('["a"]', 'user = "^$|.*"'), "client 1.user"),
        (client('["a"]', 'user = "../x"'), "client 1.user"),
        (client('["a"]', 'user = "guest"'), "choose another user"),
        (client('["a"]', 'user = "admin"'), "is who provisions site 'main'"),
        (client('["a"]', 'site = "man"'), "did you mean 'main'?"),
        (client('["a"]', 'login = "passwort"'), "did you mean 'password'?"),
        (client('["a"]', "limits = { connection = 1 }"), "did you mean 'connections'?"),
        (client('["a"]', "limits = { channels = 0 }"), "give a whole number"),
        (client('["a"]', "limits = { channels = true }"), "give a whole number"),
        (client('["a"]', 'tenant = "x"'), "write a table [[tenant]] for it"),
        (client('["a"]') + client('["b", "a"]', 'user = "b2"'), "stands in two tables"),
        (client('["a"]') + '[[server]]\nuser = "a"\n', "for which it does not speak"),
        (client('["a"]', 'user = "p"') + client('["b"]', 'user = "p"'), "on one broker"),
        (client('["p"]', 'user = "x"') + client('["b"]', 'user = "p"'), "does not speak"),
        ("[[server]]\n", "server 1.user: is missing"),
        ('[[server]]\nuser = "s"\njobs = []\n', "server 1.jobs: must be a list"),
        ('[[server]]\nuser = "s"\njobs = ["a.b"]\n', "names no job"),
        ('[[server]]\nuser = "s"\njobs = ["^.*$"]\n', "names no job"),
        ("[[operator]]\n", "operator 1.user: is missing"),
        ('[[operator]]\nuser = "o"\nrole = "admin"\n', "is 'admin'; there are observer"),
        ("[limits]\nmessages = 1\n", "limits.messages: unknown key"),
        ("[[limits]]\nqueue_bytes = 1\n", "limits: must be a table"),
        ("[client]\nids = ['a']\n", "client: write a table [[client]] for each"),
        ("[[tenant]]\n", "tenant 1.name: is missing"),
        ('[[tenant]]\nname = "a"\n[[tenant]]\nname = "a"\n', "another tenant has this name"),
        ('[[tenant]]\nname = "a"\n[[tenant]]\nname = "b"\nvhost = "a"\n', "another tenant's"),
        (TENANTS + client('["a"]'), "client 1.tenant: is missing: it is one of a, b"),
        (
            TENANTS + client('["x"]', 'tenant = "a"') + client('["x"]', 'tenant = "b"'),
            "user 'x': is the client (x) at site main of tenant 'a'",
        ),
    ],
)
def test_an_objection_names_the_place_and_what_to_write(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(InvalidFederation) as raised:
        read(tmp_path, SITE + text)
    assert says in str(raised.value)
    assert str(tmp_path / "federation.toml") in str(raised.value)


def test_too_many_unlike_ids_for_one_user_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("".join(f"h{n * 7919 % 1_000_003}\n" for n in range(20_000)))
    assert len(list(read(tmp_path, SITE + client('"ids"')).parties)) == 20_000
    with pytest.raises(InvalidFederation, match="divide them among several tables"):
        read(tmp_path, SITE + client('"ids"', 'user = "pool"'))
    pattern = client('"h-{0..19999}"', 'user = "pool"')
    assert len(next(read(tmp_path, SITE + pattern).parties).client_ids) == 20_000
