"""Parameters in a file of the journal, where the file, or the process, is not as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.common import Parameters
from flmq.common.exhausted import SystemExhausted
from flmq.journal import JournalDamaged
from flmq.journal.mapped import MappedParameters
from flmq.journal.marker import Marker, read_marker, write_marker
from flmq.wire import refer
from tests.descriptors import no_more_files

MODEL = Parameters([bytes(range(200)), b"xyz"], "numpy.ndarray")
REF = refer(MODEL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.blob"
    path.write_bytes(b"".join(MODEL.tensors))
    return path


def test_a_process_that_may_open_no_file_does_not_condemn_the_journal(path: Path) -> None:
    parameters = MappedParameters(path, REF)
    with no_more_files():
        with pytest.raises(SystemExhausted, match=r"model\.blob: .*ulimit -n"):
            parameters.map()
        with pytest.raises(SystemExhausted):
            MappedParameters(path, REF)
    assert parameters == MODEL


def test_a_file_that_is_missing_or_wrong_is_damage(path: Path) -> None:
    parameters = MappedParameters(path, REF)
    path.write_bytes(b"short")
    with pytest.raises(JournalDamaged, match="has 5 bytes, not 203"):
        parameters.map()
    path.unlink()
    with pytest.raises(JournalDamaged, match="cannot be read: No such file"):
        parameters.map()


def test_a_marker_that_cannot_be_opened_is_not_damaged(tmp_path: Path) -> None:
    marker = Marker("job", "run", 1)
    write_marker(tmp_path, marker)
    with no_more_files(), pytest.raises(SystemExhausted, match=r"run\.json: .*ulimit -n"):
        read_marker(tmp_path)
    assert read_marker(tmp_path) == marker
