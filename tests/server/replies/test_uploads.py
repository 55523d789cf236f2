"""Uploads: many at once, each by its task; what comes to nothing says why and leaves nothing."""

from __future__ import annotations

import errno
import gc
import random
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flmq.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters
from flmq.common.phase import Phase
from flmq.server.replies.spool import SpoolFailed
from flmq.server.replies.uploads import Spoiled, Uploaded, Uploads
from flmq.wire import BlobRef, Reply, iter_chunks, refer, upload_name

NONE = Parameters([], "numpy.ndarray")
MAX = 10_000


def model(number: int, size: int = 300) -> Parameters:
    return ndarrays_to_parameters([np.full(size, number, np.float32)])


def reply(task_id: str, client_id: str = "") -> Reply:
    res = FitRes(Status(Code.OK, ""), NONE, 1, {})
    return Reply(task_id, "job", 1, Phase.FIT, client_id or f"of-{task_id}", 1, b"n", 0.0, res)


def ref_of(parameters: Parameters) -> BlobRef:
    return refer(parameters, chunk_bytes=100)


Chunks = list[tuple[str, int, bytes | memoryview]]
"""By the name of their upload."""


def chunks_of(task_id: str, parameters: Parameters) -> Chunks:
    ref = ref_of(parameters)
    name = upload_name(task_id, ref)
    return [(name, index, data) for index, data in iter_chunks(ref, parameters.tensors)]


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path, MAX)


def begin(uploads: Uploads, task_id: str, parameters: Parameters) -> Chunks:
    assert uploads.begin(reply(task_id), ref_of(parameters), 50) is None
    return chunks_of(task_id, parameters)


def add_all(uploads: Uploads, chunks: Chunks) -> list[Uploaded | Spoiled | None]:
    return [uploads.add(*chunk) for chunk in chunks]


def parameters_of(uploaded: Uploaded | Spoiled | None) -> Parameters:
    assert isinstance(uploaded, Uploaded), uploaded
    assert isinstance(uploaded.reply, Reply)
    assert uploaded.reply.blob is None
    assert isinstance(uploaded.reply.res, FitRes)
    return uploaded.reply.res.parameters


def test_many_at_once_their_chunks_in_any_order_and_twice(uploads: Uploads) -> None:
    rng = random.Random(3)
    models = {f"t{number}": model(number) for number in range(20)}
    arrivals = [
        chunk
        for task_id, parameters in models.items()
        for chunk in begin(uploads, task_id, parameters)
    ]
    arrivals += arrivals[::2]
    rng.shuffle(arrivals)
    whole: dict[str, Parameters] = {}
    for done in add_all(uploads, arrivals):
        if done is not None:
            assert isinstance(done, Uploaded)
            whole[done.reply.task_id] = parameters_of(done)
    assert whole == models
    assert uploads.incomplete == 0


def test_one_that_is_announced_again_in_other_chunks_begins_anew(uploads: Uploads) -> None:
    """Its client was started again, or its broker has another max_message_size since."""
    parameters = model(1)
    uploads.add(*begin(uploads, "t", parameters)[0])
    ref = refer(parameters, chunk_bytes=70)
    assert uploads.begin(reply("t"), ref, 50) is None
    assert uploads.incomplete == 1
    name = upload_name("t", ref)
    *_, last = [uploads.add(name, *chunk) for chunk in iter_chunks(ref, parameters.tensors)]
    assert parameters_of(last) == parameters


def test_the_bytes_that_came_are_counted(uploads: Uploads) -> None:
    chunks = begin(uploads, "t", model(1))
    *_, last = add_all(uploads, [chunks[0], *chunks])
    assert isinstance(last, Uploaded)
    assert last.bytes == 50 + ref_of(model(1)).total + 100


def test_chunks_of_nothing_in_progress_are_counted(uploads: Uploads) -> None:
    chunks = begin(uploads, "t", model(1))
    add_all(uploads, chunks)
    add_all(uploads, chunks[:2])  # come again after the last
    uploads.add("another.0123456789abcdef", 0, b"x")
    assert uploads.stray_chunks == 3


def test_a_reply_that_is_announced_again_goes_on_where_it_was(uploads: Uploads) -> None:
    chunks = begin(uploads, "t", model(1))
    add_all(uploads, chunks[:-1])
    begin(uploads, "t", model(1))
    assert parameters_of(uploads.add(*chunks[-1])) == model(1)
    assert uploads.incomplete == 0


def test_an_answer_that_is_complete_is_safe_from_one_that_comes_again(uploads: Uploads) -> None:
    """It may wait for others, to be taken in with them."""
    first = add_all(uploads, begin(uploads, "t", model(1)))[-1]
    again = begin(uploads, "t", model(1))
    assert parameters_of(first) == model(1)
    second = add_all(uploads, again)[-1]
    del second
    assert parameters_of(first) == model(1)


def test_another_answer_to_the_task_begins_anew(uploads: Uploads, tmp_path: Path) -> None:
    """The client was killed in mid-upload and trained again, with other random numbers."""
    former = begin(uploads, "t", model(1))
    add_all(uploads, former[:3])
    chunks = begin(uploads, "t", model(2))
    add_all(uploads, former[3:])  # they come by another queue, and later
    assert parameters_of(add_all(uploads, chunks)[-1]) == model(2)
    assert (uploads.incomplete, uploads.stray_chunks) == (1, len(former) - 3)


def test_chunks_may_come_before_what_announces_them(uploads: Uploads) -> None:
    chunks = chunks_of("t", model(1))
    for chunk in [*chunks_of("t", model(2))[:2], *chunks]:
        assert not uploads.is_open(chunk[0])
        uploads.hold(*chunk)
    assert parameters_of(uploads.begin(reply("t"), ref_of(model(1)), 50)) == model(1)


def test_only_a_few_chunks_are_held_before_their_announcement(uploads: Uploads) -> None:
    for number in range(20):
        for chunk in chunks_of(f"t{number}", model(number)):
            uploads.hold(*chunk)
    assert uploads.stray_chunks == 20 * 14 - 64
    uploads.discard_if(lambda task_id: True)
    uploads.hold(*chunks_of("t", model(1))[0])
    assert uploads.stray_chunks == 20 * 14 - 64


@pytest.mark.parametrize(
    ("index", "data", "reason"),
    [
        (99, b"x" * 100, "chunk 99 of a blob of 14 chunks"),
        (-1, b"x" * 100, "chunk -1"),
        (0, b"x" * 99, "chunk 0 has 99 bytes, not 100"),
        (13, b"", "chunk 13 has 0 bytes"),
    ],
)
def test_a_chunk_that_contradicts_its_announcement_spoils_the_reply(
    uploads: Uploads, tmp_path: Path, index: int, data: bytes, reason: str
) -> None:
    chunks = begin(uploads, "t", model(1))
    add_all(uploads, chunks[:3])
    spoiled = uploads.add(chunks[0][0], index, data)
    assert isinstance(spoiled, Spoiled)
    assert spoiled.reply.task_id == "t"
    assert reason in spoiled.reason
    assert list(tmp_path.glob("*/*")) == []
    assert add_all(uploads, chunks[3:]) == [None] * 11  # the others are strays
    assert uploads.stray_chunks == 11


def test_another_models_chunk_spoils_the_reply(uploads: Uploads, tmp_path: Path) -> None:
    chunks = begin(uploads, "t", model(1))
    chunks[1] = (chunks[1][0], 1, chunks_of("t", model(2))[1][2])
    spoiled = add_all(uploads, chunks)[-1]
    assert isinstance(spoiled, Spoiled)
    assert "as stated" in spoiled.reason
    assert list(tmp_path.glob("*/*")) == []


def test_one_that_is_too_large_is_refused_before_it_takes_space(
    uploads: Uploads, tmp_path: Path
) -> None:
    ref = replace(ref_of(model(1)), lengths=(MAX + 1,))
    spoiled = uploads.begin(reply("t"), ref, 50)
    assert isinstance(spoiled, Spoiled)
    assert f"{MAX + 1} bytes and the server takes {MAX}: raise max_reply_bytes" in spoiled.reason
    assert list(tmp_path.glob("*/*")) == []
    assert uploads.add(upload_name("t", ref), 0, b"x" * 100) is None


@pytest.mark.parametrize(("sent", "limit"), [(1000, 4000 + (64 << 20)), (None, 4 << 30)])
def test_by_default_a_reply_may_be_some_times_what_was_sent(
    tmp_path: Path, sent: int | None, limit: int
) -> None:
    uploads = Uploads(tmp_path, None)
    ref = replace(ref_of(model(1)), lengths=(limit + 1,))
    spoiled = uploads.begin(reply("t"), ref, 50, sent)
    assert isinstance(spoiled, Spoiled)
    assert f"the server takes {limit}: raise max_reply_bytes" in spoiled.reason
    assert list(tmp_path.glob("*/*")) == []
    assert uploads.begin(reply("t"), ref_of(model(1)), 50, sent) is None


def test_a_full_disk_is_not_the_reply_s_fault(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    first = begin(uploads, "first", model(1))
    with monkeypatch.context() as patched:
        patched.setattr("os.posix_fallocate", full)
        with pytest.raises(SpoolFailed, match="No space left on device"):
            uploads.begin(reply("second"), ref_of(model(2)), 50, sent=1000)
    begin(uploads, "third", model(3))
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(SpoolFailed, match="No space left on device"):
            uploads.add(*chunks_of("third", model(3))[0])
    assert parameters_of(add_all(uploads, first)[-1]) == model(1)


def test_what_is_announced_on_nobodys_word_takes_no_disk_and_leaves_none(
    uploads: Uploads, tmp_path: Path
) -> None:
    """A first model: nothing was sent that says how large it may be."""
    uploads = Uploads(tmp_path, None)
    ref = replace(ref_of(model(1)), lengths=(1 << 30,), chunk_bytes=1 << 20)
    assert uploads.begin(reply("t"), ref, 50, None) is None
    (file,) = tmp_path.glob("*/t-*")
    assert file.stat().st_blocks * 512 < 1 << 20
    assert uploads.add(upload_name("t", ref), 7, bytes(1 << 20)) is None
    assert file.stat().st_blocks * 512 < 4 << 20
    uploads.discard("t")
    assert list(tmp_path.glob("*/t-*")) == []


def test_one_client_has_so_many_on_their_way_at_once(
    uploads: Uploads, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(9):
        assert uploads.begin(reply(f"t{number}", "a"), ref_of(model(number)), 50) is None
    sent = [chunks_of(f"t{number}", model(number)) for number in range(9)]
    assert "client a has 9 replies on their way here at once" in caplog.text
    assert len(list(tmp_path.glob("*/*"))) == 8
    assert add_all(uploads, sent[0])[-1] is None
    assert parameters_of(add_all(uploads, sent[8])[-1]) == model(8)


def test_early_chunks_are_held_by_their_bytes_for_each_and_for_all(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, None)
    mebibyte = bytes(1 << 20)
    for number in range(100):
        for index in range(30):
            uploads.hold(f"t{number}.x", index, mebibyte)
    held = {name: len(chunks) for name, chunks in uploads._early.items()}
    assert held == {"t0.x": 24, "t1.x": 24, "t2.x": 16}
    assert uploads.stray_chunks == 100 * 30 - 64
    uploads = Uploads(tmp_path, None)
    uploads.hold("t.x", 0, bytes(100 << 20))
    for index in range(100):
        uploads.hold("t.x", index, b"1")
    assert len(uploads._early["t.x"]) == 32


def test_any_number_of_replies_may_be_on_their_way(tmp_path: Path) -> None:
    """More than a process may have files open."""
    uploads = Uploads(tmp_path, MAX)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        for number in range(200):
            assert uploads.begin(reply(f"t{number}"), ref_of(model(number)), 50) is None
        for number in range(200):
            (*_, last) = add_all(uploads, chunks_of(f"t{number}", model(number)))
            assert parameters_of(last) == model(number)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_those_of_tasks_that_are_over_are_given_up(uploads: Uploads, tmp_path: Path) -> None:
    for task_id in "abc":
        add_all(uploads, begin(uploads, task_id, model(1))[:2])
    uploads.discard_if(lambda task_id: task_id in "ac")
    assert [path.name.partition("-")[0] for path in tmp_path.glob("*/*")] == ["b"]
    assert uploads.incomplete == 2
    assert parameters_of(add_all(uploads, chunks_of("b", model(1)))[-1]) == model(1)


def test_the_end_leaves_only_what_somebody_holds(uploads: Uploads, tmp_path: Path) -> None:
    kept = parameters_of(add_all(uploads, begin(uploads, "kept", model(1)))[-1])
    add_all(uploads, begin(uploads, "half", model(2))[:2])
    uploads.close()
    uploads.close()
    gc.collect()
    assert [path.name.partition("-")[0] for path in tmp_path.glob("*/*")] == ["kept"]
    assert kept == model(1)
    del kept
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_what_is_remembered_of_a_client_goes_with_its_last_upload(uploads: Uploads) -> None:
    """The oldest of one client is found by it, not among the thousands of all clients."""
    for number in range(4):
        begin(uploads, f"t{number}", model(number))
    assert len(uploads._of_client) == 4
    add_all(uploads, chunks_of("t0", model(0)))
    uploads.discard("t1")
    begin(uploads, "t2", model(7))  # another answer to the task
    uploads.discard_if(lambda task_id: task_id == "t3")
    assert uploads._of_client == {"of-t2": {"t2": None}}


def test_what_is_announced_and_never_sent_takes_no_space(tmp_path: Path) -> None:
    """A hundred clients announce all that they may: no byte of disk is reserved for that."""
    uploads = Uploads(tmp_path, None)
    sent = 1000
    for number in range(100):
        lied = BlobRef("a" * 64, "numpy.ndarray", ((64 << 20) + sent,))
        assert uploads.begin(reply(f"t{number}"), lied, 50, sent) is None
    taken = sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("t*"))
    assert taken < 1 << 20
    uploads.close()


def test_early_chunks_of_one_task_take_no_room_from_the_others(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, None)
    for number in range(1000):  # as many names as it likes
        uploads.hold(f"flood.{number:016x}", 0, bytes(100))
    honest = model(1, 10)
    for number in range(10):
        for name, index, data in chunks_of(f"t{number}", honest):
            uploads.hold(name, index, data)
    for number in range(10):
        done = uploads.begin(reply(f"t{number}"), ref_of(honest), 50)
        assert isinstance(done, Uploaded), number
    uploads.close()
