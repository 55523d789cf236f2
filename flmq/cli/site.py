"""``flmq site``: link the brokers of several datacenters to one federation."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from flmq.broker.identity import write_private
from flmq.cli.commands import Commands
from flmq.cli.exit_codes import ExitCode
from flmq.common.errors import UsageError
from flmq.common.files import make_folder
from flmq.sites.brokers import carry_out, look_at_all, planned
from flmq.sites.definitions import definitions
from flmq.sites.federation import Federation
from flmq.sites.links import LinkStatus, links_of
from flmq.sites.plan import Change, plan_remove
from flmq.sites.reading import read_federation
from flmq.sites.wanted import Item, Kind

__all__ = ["FILE", "DryRun", "File", "One", "Unconfirmed", "Yes", "confirmed", "site_app"]

site_app = typer.Typer(
    cls=Commands,
    help="Link the brokers of several datacenters to one federation.",
    no_args_is_help=True,
)

File = Annotated[
    Path,
    typer.Option(
        "--file",
        envvar="FLMQ_FEDERATION",
        help="The sites and their brokers: docs/datacenters.md.",
    ),
]
FILE = Path("federation.toml")
One = Annotated[str | None, typer.Option("--site", help="Only the broker of this site.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")]
_Definitions = Annotated[
    Path | None,
    typer.Option(
        "--definitions",
        help="Write a file for each site to this folder, for rabbitmqctl import_definitions, "
        "instead of asking any broker. They hold passwords.",
    ),
]


class Unconfirmed(UsageError):
    """A plan was shown, and nobody said yes."""

    def __init__(self) -> None:
        """Say how to go on."""
        super().__init__("nothing was changed: answer y, or give --yes where nobody can answer")


@site_app.command()
def plan(file: File = FILE, site: One = None) -> None:
    """Show what `apply` would make (+), change (~) and remove (-)."""
    federation = read_federation(file)
    _show(_plan(federation, site))


@site_app.command()
def apply(
    file: File = FILE,
    site: One = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    to: _Definitions = None,
) -> None:
    """Make exchanges, upstreams and policies on the sites' brokers, as the file says."""
    federation = read_federation(file)
    if to is not None:
        _write_definitions(federation, site, to)
        return
    _carry_out(federation, _plan(federation, site), dry_run=dry_run, yes=yes)


@site_app.command()
def remove(
    site: Annotated[str, typer.Option("--site", help="The site to take away.")],
    file: File = FILE,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Take a site's links away, at its own broker and at its parent's; queues with work stay."""
    federation = read_federation(file)
    parent = federation[site].parent
    standing, wrong = look_at_all(federation, {site, parent or site})
    changes = plan_remove(federation, site, standing)
    _carry_out(federation, changes, dry_run=dry_run, yes=yes)
    for name, error in wrong.items():
        typer.echo(f"!! left as it is, run this again when it is there: {error}", err=True)
        if name == site:
            typer.echo(
                f"   what still waits at {parent} for {name} is given up when its expires_days "
                "are over",
                err=True,
            )
    if wrong:
        raise typer.Exit(ExitCode.CHECK_FAILED)
    if changes and not dry_run:
        typer.echo(f"delete site {site!r} from {file}: `flmq site apply` would link it again")


@site_app.command()
def check(file: File = FILE, site: One = None) -> None:
    """Say of each link whether it runs, or why not and what to do."""
    federation = read_federation(file)
    if site is not None:
        federation[site]
    links = links_of(federation, site)
    for link in links:
        typer.echo(_line(link))
    if not all(link.running for link in links):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _line(link: LinkStatus) -> str:
    mark = "ok" if link.running else "!!"
    return f"{mark}  {link}" + (f"; mend: {link.mend}" if link.mend else "")


def _plan(federation: Federation, site: str | None) -> tuple[Change, ...]:
    """Return what `apply` changes.

    Raises:
        BrokerError: a broker cannot be asked.
    """
    names = {each.name for each in federation} if site is None else {federation[site].name}
    return planned(federation, names)


def _show(changes: Collection[Change]) -> None:
    for change in changes:
        typer.echo(_told(change))
    if not changes:
        typer.echo("nothing to change")


def _told(change: Change) -> str:
    return f"{change.sign.value} {change.site}: {change.item.kind.value} {_detail(change.item)}"


def _detail(item: Item) -> str:
    """Return an object's name and what matters of it; never a password."""
    waits = item.value.get("messages") if item.kind is Kind.BUFFER else 0
    return f"{item.name} ({waits} messages wait in it)" if waits else item.name


def _carry_out(
    federation: Federation, changes: Sequence[Change], *, dry_run: bool, yes: bool
) -> None:
    _show(changes)
    if not changes or dry_run:
        return
    if not yes and not confirmed(f"make these {len(changes)} changes?"):
        raise Unconfirmed
    carry_out(federation, changes)
    typer.echo(f"{len(changes)} changes made")


def confirmed(question: str) -> bool:
    """Ask, and return whether the answer is yes; nobody there is no."""
    try:
        return typer.confirm(question)
    except typer.Abort:
        return False


def _write_definitions(federation: Federation, only: str | None, folder: Path) -> None:
    make_folder(folder)
    for site in federation if only is None else (federation[only],):
        file = folder / f"{site.name}.json"
        write_private(file, json.dumps(definitions(federation, site), indent=2) + "\n")
        typer.echo(f"{file}: on the machine of {site.name}: rabbitmqctl import_definitions {file}")
