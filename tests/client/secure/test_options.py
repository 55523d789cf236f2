"""Which options of a client's keys go together, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.client.options import WorkerOptions
from flmq.client.secure.options import ClientKeyOptions, InvalidClientKeys
from flmq.e2e.errors import InvalidKey
from flmq.e2e.keys import Identity, save_identity


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("alice", "bob", "hospital"):
        save_identity(Identity.new(name), tmp_path)
    return tmp_path


def test_keys_are_read_for_the_clients(keys: Path) -> None:
    options = ClientKeyOptions(True, keys, keys / "hospital.pub", keys)
    found = options.load(["alice", "bob"])
    assert found is not None
    assert set(found.identities) == {"alice", "bob"}
    assert [one.name for one in found.authorities] == ["hospital"]
    assert found.roster is not None
    assert ClientKeyOptions(True, keys / "alice.key", keys).name() == "alice"
    assert options.name() is None
    assert WorkerOptions(keys=found).protection(lambda: 0.0) is not None
    assert WorkerOptions().protection(lambda: 0.0) is None


def test_without_e2e_there_are_none(keys: Path) -> None:
    assert ClientKeyOptions().load(["alice"]) is None
    assert ClientKeyOptions().name() is None
    with pytest.raises(InvalidClientKeys, match="--e2e"):
        ClientKeyOptions(key=keys).load(["alice"])


def test_what_is_missing_is_said(keys: Path) -> None:
    with pytest.raises(InvalidClientKeys, match="--server-key"):
        ClientKeyOptions(True, keys).load(["alice"])
    with pytest.raises(InvalidClientKeys, match="--key"):
        ClientKeyOptions(True, server_key=keys).load(["alice"])
    with pytest.raises(InvalidClientKeys, match="flmq keys new carol"):
        ClientKeyOptions(True, keys, keys).load(["alice", "carol"])
    with pytest.raises(InvalidKey, match="nowhere"):
        ClientKeyOptions(True, keys / "nowhere", keys).load(["alice"])


def test_tasks_that_came_plain_are_not_taken_up_with_keys(keys: Path, tmp_path: Path) -> None:
    found = ClientKeyOptions(True, keys, keys).load(["alice"])
    state = tmp_path / "state"
    WorkerOptions(state_dir=state).check_folders("alice")
    WorkerOptions(state_dir=state, keys=found).check_folders("alice")
    assert {path.name for path in (state / "alice").iterdir()} == {"spool", "spool-e2e"}
