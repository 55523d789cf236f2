"""``flmq keys``: the keys of clients and servers, for jobs that do not trust their broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flmq.cli.commands import Commands
from flmq.cli.saying import hint

__all__ = ["keys_app"]

keys_app = typer.Typer(
    cls=Commands,
    help="Keys of clients and servers, for jobs that do not trust their broker (--e2e).",
    no_args_is_help=True,
)

_Dir = Annotated[
    Path, typer.Option("--dir", envvar="FLMQ_KEYS_DIR", help="The folder of the keys.")
]
_FOLDER = Path("keys")
_Path = Annotated[
    Path,
    typer.Argument(help="A .pub or .key file, or a folder of .pub files.", show_default=False),
]


@keys_app.command()
def new(
    names: Annotated[
        list[str],
        typer.Argument(help="Whose they are: a client's id, or what the server is called."),
    ],
    folder: _Dir = _FOLDER,
) -> None:
    """Make a key pair for each name: NAME.key, to be kept secret, and NAME.pub, to be given away.

    A key that exists is never replaced.
    """
    from flmq.e2e.keys import Identity, save_identity  # needs cryptography

    for name in names:
        identity = Identity.new(name)
        private, public = save_identity(identity, folder)
        typer.echo(f"{name}  {identity.public.fingerprint}")
        hint(f"  {private}  private: it stays with {name}, and nobody else reads it")
        hint(f"  {public}  public: give it to the other side, and compare fingerprints")


@keys_app.command("list")
def list_keys(
    path: Annotated[
        Path, typer.Argument(help="A .pub or .key file, or a folder of .pub files.")
    ] = _FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON each.")] = False,
) -> None:
    """List public keys: names and fingerprints."""
    from flmq.e2e.keys import PRIVATE, load_identities, load_public

    if path.suffix == PRIVATE and not path.is_dir():
        found = {name: one.public for name, one in load_identities(path).items()}
    else:
        found = load_public(path)
    for name, one in sorted(found.items()):
        if as_json:
            typer.echo(json.dumps({"name": name, "fingerprint": one.fingerprint}))
        else:
            typer.echo(f"{name}  {one.fingerprint}")


@keys_app.command()
def fingerprint(path: _Path) -> None:
    """Print the fingerprints of keys, to be compared by another way than the keys came."""
    list_keys(path, as_json=False)


@keys_app.command()
def public(path: _Path) -> None:
    """Print the public half of a private key, if its .pub file is lost."""
    from flmq.e2e.keys import load_identity

    typer.echo(load_identity(path).public.line(), nl=False)


@keys_app.command()
def roster(
    path: Annotated[
        Path, typer.Argument(help="A folder of .pub files, or one file of many public keys.")
    ],
) -> None:
    """Print the digest of a set of clients, which a server signs into its jobs' manifests."""
    from flmq.e2e.keys import load_public, roster_digest

    typer.echo(roster_digest(load_public(path).values()).hex())
