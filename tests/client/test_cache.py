"""Caches of models: read once, bounded in bytes, shared by processes, and never believed."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from flmq.client.models.cache import FolderCache, MemoryCache, ModelCache
from flmq.common import Parameters
from flmq.wire import BlobRef, refer
from tests.descriptors import no_more_files
from tests.transport.rigs import PATIENCE

Maker = Callable[[int], ModelCache]


def model(number: int, size: int = 1000) -> tuple[BlobRef, memoryview]:
    blob = memoryview(bytes([number]) * size)
    return refer(Parameters([bytes(blob)], "numpy.ndarray")), blob


class Source:
    """Gives models away, and counts."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def of(self, number: int) -> Callable[[], memoryview]:
        def read() -> memoryview:
            self.reads.append(number)
            return model(number)[1]

        return read


@pytest.fixture(params=["memory", "folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    if request.param == "memory":
        return MemoryCache
    return lambda max_bytes: FolderCache(tmp_path / "models", max_bytes)


def get(cache: ModelCache, source: Source, number: int) -> None:
    ref, blob = model(number)
    assert bytes(cache.get(ref, source.of(number))) == blob


def test_a_model_is_read_once(make: Maker) -> None:
    cache, source = make(10_000), Source()
    for number in (1, 2, 1, 2, 1):
        get(cache, source, number)
    assert source.reads == [1, 2]


def test_those_longest_unused_go_beyond_the_limit(make: Maker) -> None:
    cache, source = make(2_500), Source()
    for number in (1, 2, 1, 3):  # 2 goes
        get(cache, source, number)
    assert source.reads == [1, 2, 3]
    for number in (1, 3):
        get(cache, source, number)
    assert source.reads == [1, 2, 3]
    get(cache, source, 2)
    assert source.reads == [1, 2, 3, 2]


def test_one_that_is_larger_than_the_limit_is_kept_alone(make: Maker) -> None:
    cache, source = make(10), Source()
    for number in (1, 1, 2, 2, 1):
        get(cache, source, number)
    assert source.reads == [1, 2, 1]


def test_threads_that_want_the_same_model_read_it_once(make: Maker) -> None:
    cache, source = make(10_000), Source()
    together = threading.Barrier(8)

    def want() -> None:
        together.wait(PATIENCE)
        get(cache, source, 1)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(want) for _ in range(8)]:
            done.result(PATIENCE)
    assert source.reads == [1]


def test_a_reading_that_fails_is_tried_again_by_the_next(make: Maker) -> None:
    cache, source = make(10_000), Source()

    def fails() -> memoryview:
        raise OSError("cable cut")

    for _ in range(2):
        with pytest.raises(OSError, match="cable cut"):
            cache.get(model(1)[0], fails)
    get(cache, source, 1)
    assert source.reads == [1]


def test_no_more_models_are_kept_in_memory_than_are_of_use() -> None:
    """What is let go makes room before the next is read, whose memory it then is."""
    cache, source = MemoryCache(10_000, 2), Source()
    for number in (1, 2, 1, 3, 1, 2):
        get(cache, source, number)
    assert source.reads == [1, 2, 3, 2]


# -- a folder


def test_a_model_outlives_the_process(tmp_path: Path) -> None:
    source = Source()
    for _ in range(2):
        get(FolderCache(tmp_path), source, 1)
    assert source.reads == [1]


def _read_in_process(folder: Path, start: threading.Barrier, log: Path) -> None:
    ref, blob = model(1, 3_000_000)

    def read() -> memoryview:
        with log.open("a") as file:
            file.write("read\n")
        return blob

    start.wait(PATIENCE)
    assert bytes(FolderCache(folder).get(ref, read)) == blob


def test_processes_that_want_the_same_model_read_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    arguments = (tmp_path / "models", start, tmp_path / "log")
    processes = [context.Process(target=_read_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "read\n"


@pytest.mark.parametrize("damage", ["content", "shorter", "longer", "empty"])
def test_a_damaged_file_is_read_anew(tmp_path: Path, damage: str) -> None:
    source = Source()
    get(FolderCache(tmp_path), source, 1)
    (path,) = tmp_path.glob("*.blob")
    right = path.read_bytes()
    wrong = {"content": b"?" + right[1:], "shorter": right[:-1], "longer": right + b"!"}
    path.write_bytes(wrong.get(damage, b""))
    get(FolderCache(tmp_path), source, 1)
    get(FolderCache(tmp_path), source, 1)
    assert source.reads == [1, 1]


def test_a_file_is_hashed_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, source, hashed = FolderCache(tmp_path), Source(), []
    progress = "flmq.client.models.cache.BlobProgress.finish"
    monkeypatch.setattr(progress, lambda self, blob: hashed.append(len(blob)))
    for _ in range(3):
        get(cache, source, 1)
    assert hashed == [1000]


def test_a_model_that_was_removed_meanwhile_is_read_anew(tmp_path: Path) -> None:
    cache, source = FolderCache(tmp_path), Source()
    ref, blob = model(1)
    kept = cache.get(ref, source.of(1))
    next(tmp_path.glob("*.blob")).unlink()
    assert bytes(kept) == blob  # who has it mapped keeps it
    get(cache, source, 1)
    assert source.reads == [1, 1]


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    """Also where an earlier process was killed while it wrote."""
    tmp_path.joinpath(f"{'a' * 64}.tmp").write_bytes(b"half of it")
    cache, source = FolderCache(tmp_path, 2_500), Source()
    for number in range(6):
        get(cache, source, number)
    digests = {model(number)[0].digest for number in (4, 5)}
    assert {path.name for path in tmp_path.iterdir()} == {
        name for digest in digests for name in (f"{digest}.blob", f"{digest}.lock")
    }


def test_a_model_in_use_by_another_process_is_not_evicted(tmp_path: Path) -> None:
    cache, source = FolderCache(tmp_path, 1), Source()
    inside, go = threading.Event(), threading.Event()

    def slow() -> memoryview:
        inside.set()
        assert go.wait(PATIENCE)
        return model(1)[1]

    get(FolderCache(tmp_path, 1), source, 1)
    next(tmp_path.glob("*.blob")).write_bytes(b"damaged, so that it is read again")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(FolderCache(tmp_path, 1).get, model(1)[0], slow)
        assert inside.wait(PATIENCE)
        get(cache, source, 2)  # would remove 1, its lock with it
        go.set()
        assert bytes(other.result(PATIENCE)) == model(1)[1]
    get(cache, source, 1)
    assert source.reads == [1, 2]


def test_without_room_on_disk_the_model_is_used_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache, source = FolderCache(tmp_path), Source()

    def full(path: Path) -> BinaryIO:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flmq.client.models.cache.create_private", full)
    for _ in range(2):
        get(cache, source, 1)
    assert source.reads == [1, 1]
    assert "No space left on device" in caplog.text
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_process_that_may_open_no_file_reads_the_model_without_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, source = FolderCache(tmp_path), Source()
    get(cache, source, 1)
    with no_more_files():
        get(cache, source, 1)
    assert "ulimit -n" in caplog.text
    get(cache, source, 1)
    assert source.reads == [1, 1], "what is kept is as good as before"


class Enough(Exception):
    """The task's deadline, or the worker's end."""


def test_who_waits_for_anothers_reading_may_be_called_off(make: Maker) -> None:
    cache, source = make(10_000), Source()
    inside, go = threading.Event(), threading.Event()

    def slow() -> memoryview:
        inside.set()
        assert go.wait(PATIENCE)
        return model(1)[1]

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get, model(1)[0], slow)
        assert inside.wait(PATIENCE)
        with pytest.raises(Enough):
            cache.get(model(1)[0], source.of(1), _raise_enough)
        go.set()
        assert bytes(first.result(PATIENCE)) == model(1)[1]
    get(cache, source, 1)  # what was called off holds nothing
    assert source.reads == []


_SHARER = """
import sys
from pathlib import Path
from flmq.common.locks import process_lock
lock = process_lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_sharer_that_is_stopped_keeps_others_from_the_cache_and_not_from_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ref, blob = model(1)
    command = [sys.executable, "-c", _SHARER, str(tmp_path / f"{ref.digest}.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sharer:
        assert sharer.stdout is not None
        assert sharer.stdout.readline() == b"held\n"
        sharer.send_signal(signal.SIGSTOP)
        try:
            cache, source = FolderCache(tmp_path, patience=0.5), Source()
            get(cache, source, 1)
            assert "is it stopped?" in caplog.text
            with pytest.raises(Enough):  # a deadline that comes first
                FolderCache(tmp_path).get(ref, source.of(1), _raise_enough)
        finally:
            sharer.kill()
    get(cache, source, 1)
    get(cache, source, 1)
    assert source.reads == [1, 1]
    assert bytes(blob) == (tmp_path / f"{ref.digest}.blob").read_bytes()


def _raise_enough() -> None:
    raise Enough
