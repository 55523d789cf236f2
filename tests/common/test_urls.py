"""Broker URLs: every form, every mistake, and never a password."""

from __future__ import annotations

import contextlib

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.urls import BrokerUrl, InvalidBrokerUrl, parse_broker_url, redact_url


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("amqp://", ("localhost", 5672, "/", "guest", "guest", False)),
        ("amqps://broker", ("broker", 5671, "/", "guest", "guest", True)),
        ("amqp://u:p@h:1234/v", ("h", 1234, "v", "u", "p", False)),
        ("amqp://u:p@h/%2F", ("h", 5672, "/", "u", "p", False)),
        ("amqp://u:p@h/a%2Fb", ("h", 5672, "a/b", "u", "p", False)),
        ("amqp://a%40b:c%3Ad%2F@h/", ("h", 5672, "/", "a@b", "c:d/", False)),
        ("amqp://u@h", ("h", 5672, "/", "u", "", False)),
        ("amqp://u:p@[::1]:5673/v", ("::1", 5673, "v", "u", "p", False)),
        ("amqp://u:p@h/v?heartbeat=30", ("h", 5672, "v", "u", "p", False)),
    ],
)
def test_it_is_taken_apart(text: str, parts: tuple[object, ...]) -> None:
    url = parse_broker_url(text)
    assert (url.host, url.port, url.vhost, url.user, url.password, url.tls) == parts
    assert parse_broker_url(url.full) == url


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("localhost:5672", "begin with amqp"),
        ("amqps", "begin with amqp"),
        ("http://u:s3cret@h", "begin with amqp"),
        ("u:s3cret@h", "begin with amqp"),
        ("amqp://u:s3cret@h:port/", "host or port"),
        ("amqp://u:s3cret@h:70000/", "host or port"),
        ("amqp://u:s3cret@h:0/", "the port is"),
        ("amqp://u:s3cret@h:/", "the port is"),
        ("amqp://u:s3cret@:5672/", "host is missing"),
        ("amqp://u:s3cret@h/a/b", "write it as %2F"),
        ("amqp://u:s3/cret@h/v", "%2F"),
        ("amqp://u:s3@cret@h/v", "%40"),
        ("amqp://u:s3:cret@h/v", "%3A"),
        ("amqp://u:s3cret#@h/v", "%23"),
        ("amqp://u:s3cret%zz@h/v", "%25"),
        ("amqp://u:s3cret @h/v", "%20"),
        ("amqp://u:s3cret@[::1/v", "host or port"),
    ],
)
def test_a_mistake_is_named_without_the_password(text: str, reason: str) -> None:
    with pytest.raises(InvalidBrokerUrl, match="not usable") as caught:
        parse_broker_url(text)
    said = str(caught.value)
    assert reason in said
    assert "s3" not in said
    assert "cret" not in said
    assert "cret" not in redact_url(text)


def test_what_is_shown_has_no_password_and_no_options() -> None:
    url = parse_broker_url("amqps://ann:s3cret@h:1/v%2Fw?ssl_options=%7B'password':'s3cret'%7D")
    for shown in (str(url), repr(url), redact_url(url.full), f"{url}"):
        assert "s3cret" not in shown
    assert str(url) == "amqps://ann:***@h:1/v%2Fw"
    assert url.with_vhost("other").vhost == "other"


def test_what_is_no_url_and_holds_no_secret_is_shown_as_it_is() -> None:
    assert redact_url("localhost:5672") == "localhost:5672"
    assert redact_url("http://broker/x") == "http://broker/x"


@given(
    user=st.text(min_size=1, max_size=20),
    password=st.text(max_size=20),
    vhost=st.text(min_size=1, max_size=20),
)
def test_any_login_survives_the_way_through_a_url(user: str, password: str, vhost: str) -> None:
    try:
        url = BrokerUrl("h", 1, vhost, user, password)
        text = url.full
    except UnicodeEncodeError:
        return
    assert parse_broker_url(text) == url
    seen = pika.URLParameters(text)
    assert (seen.virtual_host, seen.credentials.username) == (vhost, user)
    assert seen.credentials.password == password


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidBrokerUrl):
        assert parse_broker_url(text).host
