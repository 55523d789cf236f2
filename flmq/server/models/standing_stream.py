"""The stream of models where it is provisioned: it stands, or a person has to make it again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flmq.common.errors import BrokerRefusal
from flmq.common.logger import logger
from flmq.transport import MODELS, Transport

__all__ = ["await_stream"]

_PATIENCE = 600.0
"""Seconds for which a stream that somebody deleted is waited for."""
_LOOK_EVERY = 2.0
_SAY_EVERY = 30.0


def await_stream(
    transport: Transport,
    wait: Callable[[float], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return once the stream of models is there; blocks, and says so every half minute.

    ``wait`` waits for that many seconds; ``clock`` gives seconds.

    Raises:
        BrokerRefusal: it was not there for ten minutes.
    """
    wait = wait or threading.Event().wait
    began, said = clock(), None
    while transport.inspect_queue(MODELS) is None:
        now = clock()
        if now - began > _PATIENCE:
            raise BrokerRefusal(
                f"the stream {MODELS} is gone from this provisioned virtual host: make it again "
                "with: flmq provision --file federation.toml"
            )
        if said is None or now - said >= _SAY_EVERY:
            said = now
            logger.warning(
                "the stream %s is gone, and is waited for; to make it again: flmq provision "
                "--file federation.toml",
                MODELS,
            )
        wait(_LOOK_EVERY)
