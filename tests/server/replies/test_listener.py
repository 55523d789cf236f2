"""When the thread that hears clients deals with what it heard."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

from flmq.messaging.speakers import Speakers
from flmq.server.replies.listener import Listener
from flmq.wire import Presence, PresenceKind


class Quiet:
    """Takes every call, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class Loop(Quiet):
    """Has a reply to deal with, and is never full."""

    is_idle, is_full = False, False

    def perform_if_free(self) -> bool:
        self.is_idle = True
        return True


class Inbox(Quiet):
    """Brings a message each hundredth of a second, without end."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.now = loop, 0.0

    def receive(self, timeout: float) -> Any:
        self.now += 0.01
        if self.loop.is_idle or self.now > 10.0:
            raise StopIteration
        body = Presence(PresenceKind.HEARTBEAT, "a", "main", "i")
        message = SimpleNamespace(correlation_id="")
        return SimpleNamespace(body=body, delivery=SimpleNamespace(message=message))


def test_a_steady_flow_of_presence_does_not_put_off_what_replies_need() -> None:
    loop = Loop()
    inbox, quiet = Inbox(loop), Quiet()
    context = SimpleNamespace(
        job=SimpleNamespace(name="job"),
        presence=quiet,
        aggregators=quiet,
        speakers=Speakers(required=False),
        emit=quiet,
        clock=lambda: inbox.now,
    )
    parts: Any = (context, inbox, loop, quiet, quiet, quiet, quiet)
    listener = Listener(*parts)
    with contextlib.suppress(StopIteration):
        listener._hear_all()
    assert loop.is_idle
    assert inbox.now < 0.5
