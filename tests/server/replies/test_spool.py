"""Replies' parameters on disk: there as long as somebody holds them, and no longer."""

from __future__ import annotations

import copy
import errno
import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from flmq.common import NDArrays, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import MalformedMessage
from flmq.server.replies.spool import SpooledParameters, SpoolFailed, SpoolFile, SpoolFolder
from flmq.wire import BlobRef, iter_chunks, refer

ARRAYS: NDArrays = [np.arange(40, dtype=np.float32), np.zeros(0), np.array(7, np.int64)]
MODEL = ndarrays_to_parameters(ARRAYS)
REF = refer(MODEL, chunk_bytes=100)
CHUNKS = list(iter_chunks(REF, MODEL.tensors))


@pytest.fixture
def folder(tmp_path: Path) -> SpoolFolder:
    return SpoolFolder(tmp_path)


def spooled(folder: SpoolFolder, name: str = "task") -> SpooledParameters:
    file = SpoolFile(folder, name, REF)
    for index, data in CHUNKS:
        complete = file.write(index, data)
        assert complete == (index == len(CHUNKS) - 1)
    return file.parameters()


def test_what_was_written_is_read(folder: SpoolFolder) -> None:
    parameters = spooled(folder)
    assert parameters == MODEL
    assert parameters != Parameters(MODEL.tensors[:1], MODEL.tensor_type)
    assert parameters.tensor_type == "numpy.ndarray"
    for got, sent in zip(parameters_to_ndarrays(parameters), ARRAYS, strict=True):
        assert got.dtype == sent.dtype
        assert got.tobytes() == sent.tobytes()
    assert "3 tensors" in repr(parameters)


def test_chunks_in_any_order_and_twice(folder: SpoolFolder) -> None:
    file = SpoolFile(folder, "task", REF)
    for index, data in [*reversed(CHUNKS[1:]), *CHUNKS[1:], CHUNKS[0], CHUNKS[0]]:
        file.write(index, data)
    assert file.parameters() == MODEL


def test_the_file_is_there_as_long_as_somebody_holds_it(folder: SpoolFolder) -> None:
    parameters = spooled(folder)
    path = parameters.path
    tensor = parameters.tensors[0]
    del parameters
    gc.collect()
    assert bytes(tensor) == MODEL.tensors[0]  # a view of it stays what it was
    del tensor
    gc.collect()
    assert not path.exists()


def large(folder: SpoolFolder, value: int, megabytes: int = 2) -> SpooledParameters:
    model = Parameters([bytes([value]) * (megabytes << 20)], "")
    ref = refer(model)
    file = SpoolFile(folder, f"large{value}", ref)
    for index, data in iter_chunks(ref, model.tensors):
        file.write(index, data)
    return file.parameters()


def test_a_large_file_is_written_again_when_nobody_holds_it_or_a_view_of_it(
    folder: SpoolFolder,
) -> None:
    first = large(folder, 1)
    path, (view,) = first.path, first.tensors
    array = np.frombuffer(view, np.uint8)[5:]
    del first, view
    gc.collect()
    second = large(folder, 2)
    assert second.path != path
    assert set(array[:10]) == {1}
    del array
    gc.collect()
    third = large(folder, 4)
    assert third.path == path
    assert set(third.tensors[0]) == {4}


@pytest.mark.parametrize("megabytes", [1, 3])
def test_a_file_of_another_size_is_made_as_long_as_is_asked_for(
    folder: SpoolFolder, megabytes: int
) -> None:
    """What is compressed has a size of its own each time: such files must not pile up."""
    path = large(folder, 1).path
    gc.collect()
    other = large(folder, 2, megabytes)
    assert other.path == path
    assert path.stat().st_size == megabytes << 20
    assert set(other.tensors[0]) == {2}
    assert list(folder.path.iterdir()) == [path]


def test_a_kept_file_that_somebody_removed_is_not_missed(folder: SpoolFolder) -> None:
    path = large(folder, 1).path
    gc.collect()
    path.unlink()
    assert set(large(folder, 2).tensors[0]) == {2}


def test_where_a_kept_file_cannot_be_made_longer_it_makes_room_for_a_new_one(
    folder: SpoolFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(folder, 1).path
    gc.collect()
    fallocate = os.posix_fallocate

    def full(file: int, offset: int, length: int) -> None:
        if path.exists():
            raise OSError(errno.ENOSPC, "no space left")
        fallocate(file, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    other = large(folder, 2, megabytes=3)
    assert set(other.tensors[0]) == {2}
    assert list(folder.path.iterdir()) == [other.path]


def test_at_the_end_nothing_is_kept_to_be_written_again(folder: SpoolFolder) -> None:
    held = large(folder, 1)
    for value in (2, 3):
        large(folder, value)
    gc.collect()
    assert len(list(folder.path.iterdir())) == 2
    folder.keep(0)
    assert list(folder.path.iterdir()) == [held.path]
    del held
    gc.collect()
    assert list(folder.path.iterdir()) == []


def test_what_is_kept_to_be_written_again_is_bounded(
    folder: SpoolFolder,
) -> None:
    folder.keep(4 << 20)
    held = [large(folder, value) for value in range(4)]
    last = [each.path for each in held[2:]]
    while held:
        held.pop(0)
    gc.collect()
    assert sorted(folder.path.iterdir()) == sorted(last)


def test_the_folder_is_there_as_long_as_a_file_in_it(tmp_path: Path) -> None:
    folder = SpoolFolder(tmp_path)
    kept, other = spooled(folder, "kept"), spooled(folder, "other")
    del folder, other
    gc.collect()
    assert [path.name.partition("-")[0] for path in tmp_path.glob("*/*")] == ["kept"]
    assert kept == MODEL
    del kept
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_copies_are_parameters_in_memory(folder: SpoolFolder) -> None:
    parameters = spooled(folder)
    copies = [
        copy.copy(parameters),
        copy.deepcopy(parameters),
        pickle.loads(pickle.dumps(parameters)),
    ]
    del parameters
    gc.collect()
    for each in copies:
        assert type(each) is Parameters
        assert each == MODEL
        assert all(type(tensor) is bytes for tensor in each.tensors)


def test_other_tensors_can_be_put_in_their_place(folder: SpoolFolder) -> None:
    parameters = spooled(folder)
    parameters.tensors = [b"mine"]
    assert parameters.tensors == [b"mine"]
    assert copy.deepcopy(parameters) == Parameters([b"mine"], "numpy.ndarray")


def test_looking_takes_no_memory_afterwards(folder: SpoolFolder) -> None:
    """Each look maps the file anew: views live as long as somebody holds them."""

    def mapped() -> int:
        maps = Path("/proc/self/maps").read_text()
        return maps.count(str(folder.path))

    parameters = spooled(folder)
    looks = [parameters.tensors for _ in range(3)]
    assert mapped() == 3
    del looks
    gc.collect()
    assert mapped() == 0


def test_a_file_that_moved_is_somebody_elses(folder: SpoolFolder, tmp_path: Path) -> None:
    parameters = spooled(folder)
    there = tmp_path / "journal"
    parameters.path.rename(there)
    parameters.keep(there)
    assert parameters == MODEL
    del parameters
    gc.collect()
    assert there.exists()


# -- what goes wrong


def test_other_bytes_than_stated_are_noticed_and_leave_nothing(folder: SpoolFolder) -> None:
    file = SpoolFile(folder, "task", REF)
    for index, data in CHUNKS:
        file.write(index, bytes(len(data)) if index == 1 else data)
    with pytest.raises(MalformedMessage, match="as stated"):
        file.parameters()
    file.close()
    file.close()
    assert list(folder.path.iterdir()) == []


def test_a_chunk_that_is_none_changes_nothing(folder: SpoolFolder) -> None:
    file = SpoolFile(folder, "task", REF)
    for index, data in [(-1, b"x" * 100), (99, b"x"), (0, b"x")]:
        with pytest.raises(MalformedMessage):
            file.write(index, data)
    assert file.path.stat().st_size == REF.total


def test_a_disk_that_is_full_is_found_out_at_once(
    folder: SpoolFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(SpoolFailed, match="The reply is not lost"):
        SpoolFile(folder, "task", REF)
    assert list(folder.path.iterdir()) == []


def test_more_than_there_is_is_not_taken(folder: SpoolFolder) -> None:
    """A lie about its length costs the sender its reply, and the server nothing."""
    ref = BlobRef("0" * 64, "numpy.ndarray", (2**60,), chunk_bytes=2**50)
    with pytest.raises(SpoolFailed):
        SpoolFile(folder, "task", ref)
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.EROFS, errno.EMFILE])
@pytest.mark.parametrize("call", ["tempfile.mkdtemp", "tempfile.mkstemp", "os.pwrite"])
def test_whatever_the_system_says_is_the_servers_own_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(call, fail)
    with pytest.raises(SpoolFailed, match=os.strerror(code)):
        spooled(SpoolFolder(tmp_path))


def test_a_file_that_cannot_be_read_is_the_servers_own_trouble(folder: SpoolFolder) -> None:
    parameters = spooled(folder)
    parameters.path.unlink()
    with pytest.raises(SpoolFailed, match="No such file"):
        parameters.tensors[0]
