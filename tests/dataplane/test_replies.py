"""Replies in chunks: interleaved, broken off, lying; whatever comes, the round's model is right."""

from __future__ import annotations

import errno
import os
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client.options import WorkerOptions
from flmq.common import Parameters, ndarray_to_bytes
from flmq.observe.events import ClientOutcome, Outcome, RoundCounts, RunEnded
from flmq.server.replies.spool import SpoolFailed
from flmq.wire import (
    Receipt,
    ReceiptOutcome,
    Task,
    blob_chunk_headers,
    decode,
    iter_chunks,
    parameters_to_send,
)
from tests.dataplane.looks import mean_of, trained
from tests.dataplane.uploading import CHUNK, NUMBERS, Chunks, Upload
from tests.end_to_end.federation import Federation, RunningServer, fed_avg, initial
from tests.transport.rigs import eventually


@pytest.fixture(autouse=True)
def spool(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Where the servers of a test spool; empty again at its end.

    After ``federation``, whose broker may have its folder where temporary files are.
    """
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    eventually(lambda: list(folder.iterdir()) == [])


def test_uploads_of_many_clients_come_interleaved_out_of_order_and_twice(
    federation: Federation,
) -> None:
    names = ["p1", "p2", "p3", "p4"]
    peers = [federation.peer(name) for name in names]
    server = federation.run(fed_avg(4, initial_parameters=initial(NUMBERS)), timeout=None)
    uploads = [Upload.of(peer, peer.task()) for peer in peers]
    for upload in uploads:
        upload.announce()
    arrivals = [(upload, *chunk) for upload in uploads for chunk in upload.chunks]
    arrivals += arrivals[::3]
    random.Random(2).shuffle(arrivals)
    for number, (upload, index, data) in enumerate(arrivals):
        upload.chunk(index, data)
        if number % 5 == 0:
            upload.announce()
    for peer in peers:
        assert peer.next(Receipt).outcome is ReceiptOutcome.ACCEPTED
    assert server.model() == mean_of(names, initial(NUMBERS))
    assert server.watch.rounds()[0].fit.accepted == 4


def test_large_replies_that_clients_make_in_files_have_the_same_bits(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them keeps its tasks in a folder, the other in memory."""
    in_files = partial(parameters_to_send, large=1)
    monkeypatch.setattr("flmq.client.numpy_client.parameters_to_send", in_files)
    federation.serve("a", options=WorkerOptions(state_dir=tmp_path))
    federation.serve("b")
    server = federation.run(fed_avg(2, initial_parameters=initial(NUMBERS)), rounds=2)
    server.history()
    assert server.model() == mean_of(["a", "b"], initial(NUMBERS), rounds=2)


def test_whose_reply_is_coming_is_asked_again_only_when_it_stops_coming(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is asked again would send the whole of it once more."""
    monkeypatch.setattr("flmq.server.asks.waiting._ASK_AGAIN_EVERY", 1.0)
    monkeypatch.setattr("flmq.server.asks.waiting._LOOK_EVERY", 0.1)
    peer = federation.peer("peer")
    server = federation.run(fed_avg(1, initial_parameters=initial(NUMBERS)), timeout=None)
    upload = Upload.of(peer, peer.task())
    upload.announce()
    *most, last = upload.chunks
    for index, data in most:
        upload.chunk(index, data)
        came = peer.consumer.receive(0.3)
        assert came is None or not isinstance(decode(came.message.body), Task)
    assert peer.task() == upload.task
    upload.chunk(*last)
    assert peer.next(Receipt).outcome is ReceiptOutcome.ACCEPTED
    assert server.model() == mean_of(["peer"], initial(NUMBERS))


def test_an_upload_that_breaks_off_is_given_up_at_the_deadline(
    federation: Federation, spool: Path
) -> None:
    federation.serve("good")
    peer = federation.peer("peer")
    server = federation.run(fed_avg(2, initial_parameters=initial(NUMBERS)), rounds=2, timeout=2.0)
    upload = Upload.of(peer, peer.task())
    upload.send(upload.chunks[:2])
    eventually(lambda: len(list(spool.glob("*/*"))) >= 1)
    task = peer.task()  # of the second round: the first is closed
    assert task.server_round == 2
    eventually(lambda: not list(spool.glob(f"*/{upload.task.task_id}-*")))
    for index, data in upload.chunks[2:]:
        upload.chunk(index, data)  # nobody waits for them any more, and its client is told so
    receipt = peer.receipt()
    assert receipt.outcome is ReceiptOutcome.LATE
    assert "its round closed before all of it had come" in receipt.reason
    upload.announce()
    assert peer.receipt().outcome is ReceiptOutcome.DUPLICATE
    server.history()
    assert sum(closed.incomplete_uploads for closed in server.watch.rounds()) == 1
    ended = server.watch.wait_for(RunEnded)
    assert (ended.incomplete_uploads, ended.stray_chunks) == (1, len(upload.chunks) - 2)
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, silent=1, late=0)
    assert server.watch.words(1)["peer"] == [Outcome.SILENT, Outcome.LATE, Outcome.DUPLICATE]
    assert server.model() == mean_of(["good"], initial(NUMBERS), rounds=2)


# -- one round a kind of reply, all in one run


Send = Callable[[Upload], None]


def _other_chunk(upload: Upload) -> Chunks:
    foreign = list(iter_chunks(upload.ref, trained("zzz", initial(NUMBERS)).parameters.tensors))
    return [upload.chunks[0], foreign[1], *upload.chunks[2:]]


def _of_bytes(tensor: bytes) -> Send:
    """Send this in the place of the first tensor."""

    def send(upload: Upload) -> None:
        parameters = Parameters([tensor, upload.res.parameters.tensors[1]], "numpy.ndarray")
        Upload.of(upload.peer, upload.task, parameters).send()

    return send


class _Bomb:
    """Would run if somebody unpickled it."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def _padded(head: bytes) -> bytes:
    return head + bytes(4 * NUMBERS + 128 - len(head))


def _header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


BAD_BYTES: dict[str, bytes] = {
    "not .npy bytes": _padded(b"GIF89a"),
    "a pickle is never loaded": _padded(pickle.dumps(_Bomb())),
    "not a .npy header of": _padded(_header("'|O'", "(1,)")),
    "promises 32000000000000 bytes": _padded(_header("'<f8'", "(4000000000000,)")),
    "promises 400000 bytes": _padded(_header("'<f4'", "(100000,)")),
    "is float64": ndarray_to_bytes(np.zeros(NUMBERS)),
    "has shape": ndarray_to_bytes(np.zeros((NUMBERS, 1), np.float32)),
    "holds NaN": ndarray_to_bytes(np.full(NUMBERS, np.nan, np.float32)),
}

BAD_UPLOADS: dict[str, Send] = {
    "chunk 9 of a blob of 5": lambda u: u.send([*u.chunks[:2], (9, b"x" * CHUNK)]),
    "chunk 1 has 7 bytes, not 50000": lambda u: u.send([u.chunks[0], (1, b"1234567")]),
    "as stated": lambda u: u.send(_other_chunk(u)),
    "as  stated": lambda u: replace(u, ref=replace(u.ref, digest="0" * 64)).send(),
    "as   stated": lambda u: replace(
        u, ref=replace(u.ref, lengths=(u.ref.lengths[0] - 1, u.ref.lengths[1] + 1))
    ).send(),
    "raise max_reply_bytes": lambda u: replace(u, ref=replace(u.ref, lengths=(2**31,))).send(),
    **{words: _of_bytes(tensor) for words, tensor in BAD_BYTES.items()},
}
"""By the words of the rejection; blanks do not count."""


def test_what_is_no_reply_is_rejected_and_its_client_is_told(federation: Federation) -> None:
    federation.serve("good")
    peer = federation.peer("peer")
    server = federation.run(
        fed_avg(2, initial_parameters=initial(NUMBERS)), rounds=len(BAD_UPLOADS), timeout=None
    )
    for words, send in BAD_UPLOADS.items():
        upload = Upload.of(peer, peer.task())
        send(upload)
        receipt = peer.receipt()
        assert receipt.outcome is ReceiptOutcome.REJECTED
        assert receipt.task_id == upload.task.task_id
        assert " ".join(words.split()) in receipt.reason
    server.history()
    for round_ in server.watch.rounds():
        assert round_.fit == RoundCounts(asked=2, accepted=1, rejected=1)
    assert server.model() == mean_of(["good"], initial(NUMBERS), rounds=len(BAD_UPLOADS))


def test_chunks_that_nobody_waits_for_do_no_harm(federation: Federation) -> None:
    peer = federation.peer("peer")
    server = federation.run(fed_avg(1, initial_parameters=initial(NUMBERS)), timeout=None)
    upload = Upload.of(peer, peer.task())
    for index, data in upload.chunks:
        upload.chunk(index, data)  # before they were announced
        upload.chunk(index, data, task_id="somebody-elses")
    wrong: list[dict[str, str | int]] = [{"x-flmq-blob": "t"}, blob_chunk_headers("t", -1)]
    for headers in wrong:
        peer.raw(peer.reply_address(), b"no chunk", headers)
    upload.send()
    assert server.model() == mean_of(["peer"], initial(NUMBERS))
    reasons = {bytes(incoming.message.body) for incoming in federation.dead(2)}
    assert reasons == {b"no chunk"}


def test_a_server_without_room_stops_and_goes_on_with_the_same_bits(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fallocate, left = os.posix_fallocate, [1]

    def small_disk(file: int, offset: int, length: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fallocate(file, offset, length)

    federation.serve("a")
    peer = federation.peer("peer")

    def run() -> RunningServer:
        strategy = fed_avg(2, initial_parameters=initial(NUMBERS))
        return federation.run(strategy, timeout=None, runs_dir=tmp_path)

    server = run()
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", small_disk)
        server.watch.wait_for(ClientOutcome, lambda o: o.outcome is Outcome.ACCEPTED)
        upload = Upload.of(peer, peer.task())
        upload.send()
        with pytest.raises(SpoolFailed, match="No space left on device"):
            server.history()
    assert "peer" not in server.watch.words()
    again = run()
    # The broker brings again what announced it, and who is asked again sends it again.
    upload.send()
    assert again.model() == mean_of(["a", "peer"], initial(NUMBERS))
    assert again.watch.words()["peer"][0] is Outcome.ACCEPTED
    assert peer.next(Receipt).outcome is ReceiptOutcome.ACCEPTED


def test_a_reply_that_is_too_large_is_refused_before_it_comes(federation: Federation) -> None:
    federation.serve("a")
    peer = federation.peer("peer")
    limit = 4 * NUMBERS + 1000
    server = federation.run(
        fed_avg(2, initial_parameters=initial(NUMBERS)), timeout=None, max_reply_bytes=limit
    )
    large = Parameters([b"x" * (limit + 1)], "numpy.ndarray")
    Upload.of(peer, peer.task(), large).send()
    receipt = peer.receipt()
    assert receipt.outcome is ReceiptOutcome.REJECTED
    assert f"{limit + 1} bytes and the server takes {limit}" in receipt.reason
    assert server.model() == mean_of(["a"], initial(NUMBERS))
