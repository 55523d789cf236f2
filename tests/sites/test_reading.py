"""federation.toml: what it may say, and how it objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.common.errors import BrokerUnavailable
from flmq.sites.federation import Federation, UnknownSite
from flmq.sites.reading import InvalidFederation, read_federation
from flmq.sites.wanted import parent_url

ENVIRON = {"MAIN_URL": "amqp://flmq:s3cret@hub:5672/flmq", "PASSWORD": "p@ss/word"}
HUB = '[[site]]\nname = "main"\nurl = "${MAIN_URL}"\n'
CHILD = '[[site]]\nname = "eu"\nparent = "main"\nurl = "amqp://flmq@eu/flmq"\n'


def read(tmp_path: Path, text: str) -> Federation:
    file = tmp_path / "federation.toml"
    file.write_text(text)
    return read_federation(file, ENVIRON)


def test_a_tree_of_sites_is_read(tmp_path: Path) -> None:
    (tmp_path / "eu.password").write_text("from-file\n")
    federation = read(
        tmp_path,
        f"""
        {HUB}
        management_url = "http://admin:${{PASSWORD}}@hub-api:8080"
        [links]
        prefetch = 12
        [[site]]
        name = "eu"
        parent = "main"
        url = "amqps://flmq@eu.example/flmq?cafile=/etc/ca.pem"
        link_url = "amqps://links@eu.internal/other?cacertfile=/etc/ca.pem&verify=verify_peer"
        password_file = "eu.password"
        vhost = "fl"
        management_url = "http://eu.example:15672"
        link = {{ expires_days = 1 }}
        [[site]]
        name = "eu-west"
        parent = "eu"
        url = "amqp://flmq:${{PASSWORD}}@west/flmq"
        """,
    )
    hub, eu, west = federation
    assert federation.hub is hub
    assert federation.depth == 2
    assert federation.children("main") == (eu,)
    assert (hub.management.user, hub.management.password) == ("admin", "p@ss/word")
    assert hub.management.port == 8080
    assert eu.url.password == eu.link_url.password == eu.management.password == "from-file"
    assert eu.link_url.user == "links"
    assert eu.vhost == eu.link_url.vhost == "fl"
    assert dict(eu.link_url.options)["verify"] == "verify_peer"
    assert (eu.link.prefetch, eu.link.expires) == (12, 86400)
    assert west.url.password == "p@ss/word"
    assert west.management.shown_url == "http://west:15672"
    with pytest.raises(UnknownSite, match=r"no site 'eu-wset'.*main, eu, eu-west"):
        federation["eu-wset"]


def test_flmqs_own_options_of_a_url_are_not_for_links(tmp_path: Path) -> None:
    text = HUB.replace("${MAIN_URL}", "amqp://flmq@hub/flmq?heartbeat=5")
    (hub,) = read(tmp_path, text)
    assert hub.url.options
    assert not hub.link_url.options


def test_links_lead_to_the_virtual_hosts_of_their_sites_whatever_their_urls_say(
    tmp_path: Path,
) -> None:
    more = 'link_url = "amqp://links@eu.internal"\nparent_url = "amqp://links@hub.internal/x"\n'
    _, eu = federation = read(tmp_path, HUB + CHILD + more)
    assert eu.link_url.vhost == eu.vhost == "flmq"
    assert parent_url(federation, eu).host == "hub.internal"
    assert parent_url(federation, eu).vhost == "flmq"


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("", "site", "names none: write a table"),
        ("[[site]\n", "", "is not TOML"),
        ("site = 3\n", "site", "write a table"),
        ("[[site]]\n" + 'url = "amqp://a/b"\n', "site 1.name", "is missing"),
        ('[[site]]\nname = "main"\n', "site 'main'.url", "is missing"),
        (HUB + "prefetchh = 3\n", "site 'main'.prefetchh", "unknown key; there are name"),
        (HUB + 'manegement_url = "x"\n', "site 'main'.manegement_url", "mean 'management_url'"),
        ("[linkz]\n" + HUB, "linkz", "did you mean 'link'"),
        (HUB + "link = { prefetch = 0 }\n", "site 'main'.link.prefetch", "is 0: give"),
        (HUB + "link = { prefetch = true }\n", "site 'main'.link.prefetch", "is True: give"),
        (HUB + "link = { expires_days = 0 }\n", "site 'main'.link.expires_days", "1 to 365"),
        (HUB + "link = 8\n", "site 'main'.link", "must be a table"),
        (HUB.replace('"main"', '"eu.west"'), "site 'eu.west'.name", "is no name"),
        (HUB.replace('"main"', "7"), "site 7.name", "must be a text in quotes"),
        (HUB + CHILD + CHILD, "site 'eu'.name", "another site has this name"),
        (HUB + CHILD.replace('"eu"', '"us"') + CHILD, "site 'eu'.url", "is that of site 'us'"),
        (HUB + CHILD.replace('"main"', '"mian"'), "site 'eu'.parent", "did you mean 'main'"),
        (HUB + CHILD.replace('parent = "main"', ""), "site 'eu'.parent", "'main' has none"),
        (HUB + CHILD.replace('"main"', '"eu"'), "site 'eu'.parent", "eu -> eu"),
        (CHILD.replace('"main"', '"eu"'), "site 'eu'.parent", "goes in a circle"),
        (HUB + 'parent_url = "amqp://x/y"\n', "site 'main'.parent_url", "needs a parent"),
        (HUB.replace("MAIN", "MIAN"), "site 'main'.url", "the environment has no MIAN_URL"),
        (HUB.replace("${MAIN_URL}", "http://x"), "site 'main'.url", "must begin with amqp"),
        (HUB.replace("${MAIN_URL}", "amqp://u:s3cret@h/v"), "site 'main'.url", "in clear"),
        (HUB + 'management_url = "hub:15672"\n', "site 'main'.management_url", "not usable"),
        (HUB + 'management_url = "http://u:s3cret@h"\n', "site 'main'.management_url", "in clear"),
        (HUB + 'password_file = "none"\n', "site 'main'.password_file", "cannot be read"),
    ],
)  # fmt: skip
def test_an_objection_names_file_key_and_what_to_write(
    tmp_path: Path, text: str, key: str, says: str
) -> None:
    with pytest.raises(InvalidFederation) as raised:
        read(tmp_path, text)
    assert raised.value.key == key
    assert str(raised.value).startswith(f"{tmp_path / 'federation.toml'}: {key}")
    assert says in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_file_that_is_not_there_or_is_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFederation, match=r"federation\.toml: cannot be read"):
        read_federation(tmp_path / "federation.toml", {})
    (tmp_path / "federation.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidFederation, match="cannot be read"):
        read_federation(tmp_path / "federation.toml", {})


def test_a_cafile_that_is_not_there_is_named(tmp_path: Path) -> None:
    text = HUB.replace("${MAIN_URL}", f"amqps://flmq@hub/flmq?cafile={tmp_path}/none.pem")
    with pytest.raises(InvalidFederation, match=r"site 'main'.url: cannot be used: .*none.pem"):
        read(tmp_path, text)


def test_a_management_url_whose_host_is_none_does_not_answer(tmp_path: Path) -> None:
    (hub,) = read(tmp_path, f'{HUB}management_url = "http://a..b:15672"')
    with pytest.raises(BrokerUnavailable, match="no management API answers at http://a"):
        hub.management.call("GET", "/api/nodes")
