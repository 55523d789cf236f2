"""``flmq client``: a worker that serves every job of its virtual host."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from flmq.cli.load import load_client
from flmq.cli.options import Broker, pairs, with_options
from flmq.cli.process import log_to_stderr
from flmq.cli.stopping import in_order, typed_again
from flmq.client.app import run_client
from flmq.client.options import WorkerOptions
from flmq.client.tasks import AckPolicy
from flmq.common.environment import broker_url
from flmq.common.logger import logger
from flmq.common.names import check_client_id, make_client_id

__all__ = ["client"]


@with_options
def client(
    app: Annotated[
        str,
        typer.Argument(
            help="The client, as module:name: a Client or NumPyClient, its class, or a function "
            "that makes one.",
            show_default=False,
        ),
    ],
    broker: Broker = None,
    client_id: Annotated[
        str | None,
        typer.Option(
            envvar="FLMQ_CLIENT_ID",
            help="Stable name of this client: tasks wait under it while it is away. Default: one "
            "made from host and process.",
        ),
    ] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            "-p",
            help="key=value that the client tells of itself; repeatable. A value that looks like a "
            "number or a bool is one, but for one in double quotes.",
        ),
    ] = None,
    *,
    options: WorkerOptions,
) -> None:
    """Work for every job of the broker's virtual host, one task at a time, until stopped."""
    log_to_stderr(logging.INFO)
    name = make_client_id() if client_id is None else check_client_id(client_id)
    if client_id is None:
        logger.info("client id %s (give --client-id one that stays)", name)
    url = broker_url(broker)
    properties = pairs("--property", prop or [])
    with in_order(lambda: _goes_on(client_id, options)):
        run_client(url, load_client(app), name, properties, options)


def _goes_on(client_id: str | None, options: WorkerOptions) -> str:
    """Return text on what happens to a stopped client's work, and how to resume it."""
    if client_id is None:
        return (
            "a task that it had waits in a queue that no other client reads, so its round ends at "
            "its deadline; give --client-id a name that stays, and the task waits for its return"
        )
    if options.state_dir is None or options.ack is AckPolicy.RESULT:
        what = "a task that it had waits in its queue, and will be trained anew"
    else:
        what = f"{options.state_dir} keeps its tasks and what it has finished"
    return f"{what}. Go on with: {typed_again(f'--client-id={client_id}')}"
