"""``flmq provision``: make all that a federation needs on its brokers, from one file."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import click
import typer

from flmq.broker.identity import write_private
from flmq.cli.commands import Commands
from flmq.cli.exit_codes import ExitCode
from flmq.cli.saying import hint
from flmq.cli.site import FILE, DryRun, File, One, Unconfirmed, Yes, confirmed
from flmq.common.errors import UsageError
from flmq.common.files import make_folder
from flmq.provision.applying import Plan, carry_out, planned, rotate
from flmq.provision.importing import importable
from flmq.provision.parties import Provision
from flmq.provision.passwords import Passwords, writing
from flmq.provision.plan import lines_of
from flmq.provision.reading import read_provision
from flmq.sites.federation import Federation
from flmq.sites.links import links_of

__all__ = ["provision_app"]

provision_app = typer.Typer(
    cls=Commands,
    help="Make users, permissions, queues and limits of a federation on its brokers, from a file.",
)


class WrongOptions(UsageError):
    """Options that contradict each other, or would have no effect."""


_Passwords = Annotated[
    Path,
    typer.Option(
        "--passwords",
        envvar="FLMQ_PASSWORDS",
        help="Folder of the users' passwords, one file a user; made, and kept.",
    ),
]
_PASSWORDS = Path("passwords")


@provision_app.callback(invoke_without_command=True)
def provision(
    context: typer.Context,
    file: File = FILE,
    site: One = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    folder: _Passwords = _PASSWORDS,
    to: Annotated[
        Path | None,
        typer.Option(
            "--definitions",
            help="Write a file for each site to this folder, for rabbitmqctl import_definitions, "
            "instead of asking any broker. They hold hashes of passwords.",
        ),
    ] = None,
) -> None:
    """Make what the file says, and remove what it says no more; the plan is shown first."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    wanted = read_provision(file)
    passwords = Passwords(folder)
    if to is not None:
        with passwords.alone():
            _write_definitions(wanted, site, passwords, to)
        return
    if dry_run:
        _show(planned(wanted, _sites(wanted, site), passwords))
        return
    with passwords.alone():
        plan = planned(wanted, _sites(wanted, site), passwords)
        _show(plan)
        if plan.is_empty:
            return
        if not yes and not confirmed("make these changes?"):
            raise Unconfirmed
        carry_out(plan, passwords, hint)
    typer.echo(f"done; passwords are in {folder}" if plan.passwords else "done")


@provision_app.command()
def check(file: File = FILE, site: One = None, folder: _Passwords = _PASSWORDS) -> None:
    """Say in what the brokers differ from the file, and which links do not run."""
    wanted = read_provision(file)
    plan = planned(wanted, _sites(wanted, site), Passwords(folder))
    _show(plan)
    well = plan.is_empty
    for tenant in wanted:
        if len(tenant.federation.sites) > 1:
            for link in links_of(tenant.federation, site):
                well = well and link.running
                typer.echo(f"{'ok' if link.running else '!!'}  {link}")
    if not well:
        raise typer.Exit(ExitCode.CHECK_FAILED)


@provision_app.command(name="rotate")
def rotate_(
    user: Annotated[
        list[str] | None, typer.Argument(help="Users who get new passwords.", show_default=False)
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users with a password.")] = False,
    file: File = FILE,
    folder: _Passwords = _PASSWORDS,
) -> None:
    """Give users new passwords; who is connected stays so, and needs it to connect again."""
    if everybody == bool(user):
        raise WrongOptions("name one or more users, or give --all")
    passwords = Passwords(folder)
    with passwords.alone():
        done = rotate(read_provision(file), None if everybody else user, passwords)
    typer.echo(f"{len(done)} new passwords, in {folder}")


def _sites(wanted: Provision, only: str | None) -> Collection[str]:
    federation = _federation(wanted)
    if only is not None:
        return {federation[only].name}
    return {site.name for site in federation}


def _federation(wanted: Provision) -> Federation:
    """Return the sites, which are the same for every tenant."""
    return wanted.tenants[0].federation


def _show(plan: Plan) -> None:
    for line in lines_of(plan):
        typer.echo(line)
    if plan.is_empty:
        typer.echo("nothing to change")


def _write_definitions(
    wanted: Provision, only: str | None, passwords: Passwords, folder: Path
) -> None:
    for name in sorted(_sites(wanted, only)):
        file = folder / f"{name}.json"
        text = json.dumps(importable(wanted, name, passwords), indent=1)
        with writing(folder):
            make_folder(folder)
            write_private(file, f"{text}\n")
        typer.echo(f"{file}: on the machine of {name}: rabbitmqctl import_definitions {file}")


def _refuse_options(context: typer.Context) -> None:
    """Refuse an option that stands before the command, where it would have no effect."""
    for name in context.params:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise WrongOptions(f"write the options after the command: {context.invoked_subcommand}")
