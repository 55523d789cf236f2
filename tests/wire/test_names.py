"""Names of tensors in messages: there and back, to and from older peers, and hostile ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flmq.common.errors import InvalidReturnValue, MalformedMessage
from flmq.common.tensor_names import MAX_TENSOR_NAME
from flmq.common.typing import FitIns, FitRes, Parameters
from flmq.wire import BlobRef, refer
from flmq.wire.codec import decode, encode
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.serde.fields import dataclass_codec
from tests.wire.cases import NOTHING, OK, reply, task

NAMED = Parameters([b"one", b"two"], "raw", ("layer4.0.bn1.weight", "größe"))
TASK = task(FitIns(NAMED, {}))
BLOB_TASK = dataclasses.replace(task(FitIns(NOTHING, {})), model=refer(NAMED))

HOSTILE = {
    "one is missing": ["a"],
    "one too many": ["a", "b", "c"],
    "repeated": ["a", "a"],
    "empty": ["a", ""],
    "line feed": ["a", "b\nclient bob online"],
    "escape": ["a", "\x1b[2J"],
    "turned around": ["a", "\u202egnp.exe"],
    "too long": ["a", "b" * (MAX_TENSOR_NAME + 1)],
}
every_hostile = pytest.mark.parametrize("names", HOSTILE.values(), ids=HOSTILE.keys())


def envelope(body: Any) -> pb.Envelope:
    return pb.Envelope.FromString(encode(body))


def test_they_come_with_inline_parameters_and_with_references() -> None:
    assert decode(encode(TASK)) == TASK
    got = decode(encode(BLOB_TASK))
    assert got == BLOB_TASK
    assert got.model.names == NAMED.names  # type: ignore[union-attr]


def test_a_message_without_names_is_as_an_older_peer_sends_and_reads_it() -> None:
    """The fields are absent, not empty: an older reader does not even see an unknown field."""
    bare = Parameters(NAMED.tensors, NAMED.tensor_type)
    inline, blob = task(FitIns(bare, {})), dataclasses.replace(BLOB_TASK, model=refer(bare))
    for holder in (envelope(inline).task.fit.parameters, envelope(blob).task.model):
        assert "names" not in {field.name for field, _ in holder.ListFields()}
    for body in (inline, blob):
        assert decode(encode(body)) == body


@dataclasses.dataclass
class Masked:
    mask: Parameters


def test_they_come_in_the_fields_of_a_kind_of_ones_own() -> None:
    codec = dataclass_codec(Masked)
    assert codec.decode(codec.encode(Masked(NAMED))) == Masked(NAMED)


def test_the_digest_is_of_the_bytes_alone_so_that_older_peers_find_the_model() -> None:
    bare = refer(Parameters(NAMED.tensors, NAMED.tensor_type))
    assert refer(NAMED) == dataclasses.replace(bare, names=NAMED.names)


@every_hostile
def test_hostile_names_are_malformed(names: list[str]) -> None:
    inline, blob = envelope(TASK), envelope(BLOB_TASK)
    del inline.task.fit.parameters.names[:], blob.task.model.names[:]
    inline.task.fit.parameters.names.extend(names)
    blob.task.model.names.extend(names)
    for each in (inline, blob):
        with pytest.raises(MalformedMessage, match=r"names for|printable|same name"):
            decode(each.SerializeToString())


@every_hostile
def test_they_are_not_sent_either(names: list[str]) -> None:
    parameters = Parameters(list(NAMED.tensors), "raw")
    parameters.names = tuple(names)
    with pytest.raises(InvalidReturnValue):
        encode(reply(FitRes(OK, parameters, 1, {})))
    ref = dataclasses.replace(refer(NAMED), names=tuple(names))
    with pytest.raises(ValueError, match="a blob with"):
        encode(dataclasses.replace(BLOB_TASK, model=ref))


def test_more_names_than_a_message_may_hold_values_are_not_read() -> None:
    many = tuple(f"n{i}" for i in range(100_001))
    ref = BlobRef("a" * 64, "raw", (1,) * len(many), names=many)
    with pytest.raises(InvalidReturnValue, match="100000 values"):
        encode(dataclasses.replace(BLOB_TASK, model=ref))
