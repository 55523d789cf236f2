"""``flmq client``: a worker that serves every job of its virtual host."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from flmq.cli.load import load_client
from flmq.cli.options import Broker, Site, pairs
from flmq.cli.process import log_to_stderr
from flmq.cli.stopping import in_order, typed_again
from flmq.client.app import run_client
from flmq.client.cache import DEFAULT_CACHE_BYTES
from flmq.client.models import PATIENCE as MODEL_PATIENCE
from flmq.client.options import WorkerOptions
from flmq.client.tasks import AckPolicy
from flmq.common.environment import broker_url
from flmq.common.logger import logger
from flmq.common.names import check_client_id, make_client_id
from flmq.wire.bounds import MAX_HEARTBEAT, MIN_HEARTBEAT

__all__ = ["client"]


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
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Stop when the first job ends, and others that it works in by then."
        ),
    ] = False,
    site: Site = "main",
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="FLMQ_STATE_DIR",
            help="Folder that outlives the process: for the spool of tasks and replies, and for "
            "what the client itself keeps.",
        ),
    ] = None,
    ack: Annotated[
        AckPolicy | None,
        typer.Option(
            envvar="FLMQ_ACK",
            help="When the broker may forget a task: once it is in the spool (accept; needs "
            "--state-dir, and is the default with it), or once its reply is sent (result).",
        ),
    ] = None,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby/--no-standby",
            help="Wait while another process has this client id, and take over when it ends; or "
            "fail at once.",
        ),
    ] = True,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="FLMQ_CACHE_DIR",
            help="Folder for models, which the workers of a machine may share. Default: in memory.",
        ),
    ] = None,
    cache_bytes: Annotated[
        int, typer.Option(envvar="FLMQ_CACHE_BYTES", min=0, help="PublishedModels to keep, in all.")
    ] = DEFAULT_CACHE_BYTES,
    max_model_bytes: Annotated[
        int | None,
        typer.Option(
            envvar="FLMQ_MAX_MODEL_BYTES",
            min=1,
            help="Refuse larger models at once. Default: what fits the memory that is free.",
        ),
    ] = None,
    max_deaths: Annotated[
        int,
        typer.Option(
            envvar="FLMQ_MAX_DEATHS",
            min=0,
            help="Deaths of this client in one task (out of memory, a crash, kill -9) after which "
            "it is reported as failed; 0: never.",
        ),
    ] = 3,
    model_patience: Annotated[
        float,
        typer.Option(
            envvar="FLMQ_MODEL_PATIENCE",
            min=1,
            help="Seconds for which a model that is not there is asked for, before its task fails.",
        ),
    ] = MODEL_PATIENCE,
    heartbeat: Annotated[
        float,
        typer.Option(
            envvar="FLMQ_HEARTBEAT",
            min=MIN_HEARTBEAT,
            max=MAX_HEARTBEAT,
            help="Seconds between signs of life.",
        ),
    ] = 30.0,
) -> None:
    """Work for every job of the broker's virtual host, one task at a time, until stopped."""
    log_to_stderr(logging.INFO)
    name = make_client_id() if client_id is None else check_client_id(client_id)
    if client_id is None:
        logger.info("client id %s (give --client-id one that stays)", name)
    options = WorkerOptions(
        site=site,
        state_dir=state_dir,
        ack=ack,
        once=once,
        standby=standby,
        heartbeat=heartbeat,
        cache_dir=cache_dir,
        cache_bytes=cache_bytes,
        max_model_bytes=max_model_bytes,
        max_deaths=max_deaths,
        model_patience=model_patience,
    )
    url = broker_url(broker)
    properties = pairs("--property", prop or [])
    with in_order(lambda: _goes_on(client_id, options)):
        run_client(url, load_client(app), name, properties, options)


def _goes_on(client_id: str | None, options: WorkerOptions) -> str:
    """What becomes of its work when a client is stopped, and how to go on."""
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
