"""Many clients divided among processes: children of one command, which says how they end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from flmq.cli.children import Children
from flmq.cli.draining import CLOSING
from flmq.cli.exit_codes import ExitCode, Terminated
from flmq.cli.process import begun_by
from flmq.cli.stopping import PART_OF_DEMO, typed_again
from flmq.client.client_ids import Share, some_of
from flmq.common.logger import logger

__all__ = ["serve_in_processes"]

_LOOK_EVERY = 0.5
"""Seconds between looks at the children."""
_LATER = 1.0
"""Seconds by which children may be later than their grace allows."""


def serve_in_processes(
    ports: Sequence[int | None], ids: Sequence[str], share: Share, threads: int, grace: float
) -> int:
    """Run this command once more for each part of ``share``, and wait for all.

    There is a part for each of ``ports``, at which its metrics are (None: nowhere). Each does
    ``threads`` tasks at a time.

    A child that dies is not started again: its exit status, its clients, and the command that
    starts it are logged, and the others go on. However this process ends, the children end: by
    SIGTERM each has ``grace`` seconds for what it is at, else none.
    Returns the exit status of the first that failed; 0 if none did.
    """
    count = len(ports)
    parts = {f"process {number}": share.part(number, count) for number in range(1, count + 1)}
    children = Children({PART_OF_DEMO: "1"})
    running, status = list(parts), int(ExitCode.OK)
    try:
        for (name, part), port in zip(parts.items(), ports, strict=True):
            again = ["--processes=1", f"--concurrency={threads}", f"--share={part}"]
            again += _at(port)
            children.start(name, [sys.executable, *begun_by(), *sys.argv[1:], *again])
            logger.info("%s of %d serves %s", name, count, some_of(part.taken_of(ids)))
        while running:
            children.wait(running[:1], _LOOK_EVERY)
            for name in [name for name in running if not children.running(name)]:
                running.remove(name)
                ended = children.exit_status(name) or 0
                if ended:
                    port = ports[list(parts).index(name)]
                    _say_it_died(name, ended, parts[name], ids, port)
                    status = status or (ended if ended > 0 else 128 - ended)
    except Terminated:
        children.end(grace + CLOSING + _LATER)
        raise
    finally:
        children.end_at_once()
    return status


def _at(port: int | None) -> list[str]:
    return [] if port is None else [f"--metrics-port={port}"]


def _say_it_died(name: str, status: int, part: Share, ids: Sequence[str], port: int | None) -> None:
    how = f"exit status {status}"
    if status < 0:
        how = f"signal {-status}, {signal.strsignal(-status)}" if os.name != "nt" else how
    command = " ".join([typed_again(), "--processes=1", f"--share={part}", *_at(port)])
    logger.error(
        "%s ended by %s: its tasks wait for %s. It is not started again by itself; start it with: "
        "%s",
        name,
        how,
        some_of(part.taken_of(ids)),
        command,
    )
