"""Identities, and the files they are in."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from flmq.e2e.errors import InvalidKey, KeyNotPrivate
from flmq.e2e.keys import (
    Identity,
    PublicIdentity,
    load_identities,
    load_identity,
    load_public,
    roster_digest,
    save_identity,
)

ALICE = Identity("alice", b"\1" * 32, b"\2" * 32)


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    private, public = save_identity(ALICE, tmp_path / "keys")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert load_identity(private) == ALICE
    assert load_public(public) == {"alice": ALICE.public}
    assert ALICE.line() not in public.read_text()


def test_a_folder_and_a_file_of_many_are_read_alike(tmp_path: Path) -> None:
    for name in ("alice", "bob", "host-1"):
        save_identity(Identity.new(name), tmp_path)
    many = tmp_path / "trusted"
    many.write_text("\n".join(path.read_text() for path in tmp_path.glob("*.pub")))
    assert load_public(many) == load_public(tmp_path)
    assert set(load_identities(tmp_path)) == {"alice", "bob", "host-1"}


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    save_identity(ALICE, tmp_path)
    with pytest.raises(InvalidKey, match="not replaced"):
        save_identity(Identity.new("alice"), tmp_path)
    assert load_identity(tmp_path / "alice.key") == ALICE


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    private, _ = save_identity(ALICE, tmp_path)
    private.chmod(0o640)
    with pytest.raises(KeyNotPrivate, match="chmod 600"):
        load_identity(private)


def test_the_wrong_half_is_named(tmp_path: Path) -> None:
    private, public = save_identity(ALICE, tmp_path)
    public.chmod(0o600)
    with pytest.raises(InvalidKey, match="public key"):
        load_identity(public)
    with pytest.raises(InvalidKey, match="private key"):
        load_public(private)


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "[1]", "{}", '{"form": "flmq public key 1"}', "[" * 3000, "x" * 9000],
)
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "some.pub"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InvalidKey):
        load_public(file)
    with pytest.raises(InvalidKey):
        load_identity(file)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidKey, match="flmq keys new"):
        load_public(tmp_path)
    with pytest.raises(InvalidKey, match=r"none\.key"):
        load_identity(tmp_path / "none.key")


@pytest.mark.parametrize("field", ["name", "sign", "seal", "proof"])
def test_a_public_key_with_a_part_of_another_is_refused(tmp_path: Path, field: str) -> None:
    mine = json.loads(ALICE.public.line())
    mine[field] = json.loads(Identity.new("mallory").public.line())[field]
    file = tmp_path / "alice.pub"
    file.write_text(json.dumps(mine))
    with pytest.raises(InvalidKey):
        load_public(file)


def test_a_name_has_one_key(tmp_path: Path) -> None:
    both = ALICE.public.line() + Identity.new("alice").public.line()
    file = tmp_path / "both.pub"
    file.write_text(both)
    with pytest.raises(InvalidKey, match="one key"):
        load_public(file)


def test_a_sealing_key_without_a_secret_is_refused() -> None:
    """Sealing to it would fail in the middle of a round."""
    with pytest.raises(InvalidKey):
        PublicIdentity("alice", ALICE.public.signing, bytes(32), ALICE.public.proof)


@pytest.mark.parametrize("name", ["", "a/b", "!server", "x" * 65])
def test_a_name_is_a_client_id(name: str) -> None:
    with pytest.raises(InvalidKey):
        Identity.new(name)


def test_private_keys_are_in_no_text() -> None:
    assert ALICE.signing.hex() not in repr(ALICE)
    assert repr(ALICE.signing) not in repr(ALICE)
    assert repr(ALICE) == "Identity(name='alice')"


def test_fingerprints_and_rosters_tell_keys_apart() -> None:
    bob, other = Identity.new("bob").public, Identity.new("bob").public
    assert bob.fingerprint != other.fingerprint
    assert len(bob.fingerprint.split()) == 16
    assert roster_digest([ALICE.public, bob]) == roster_digest([bob, ALICE.public])
    assert roster_digest([ALICE.public, bob]) != roster_digest([ALICE.public, other])
    assert roster_digest([bob]) != roster_digest([ALICE.public, bob])
