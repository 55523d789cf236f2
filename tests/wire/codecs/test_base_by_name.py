"""Which tensor of the model is the base of which tensor of a reply that has names."""

from __future__ import annotations

import numpy as np
import pytest

from flmq.common import ndarrays_to_parameters
from flmq.wire.codecs import base_by_name, get_codec

ARRAYS = [np.full(5000, value, np.float32) for value in (1.0, 1000.0)]
BASE = ndarrays_to_parameters(ARRAYS, names=("base", "adapter"))
BARE = ndarrays_to_parameters(ARRAYS)


def test_it_is_the_one_of_its_name_where_both_have_names() -> None:
    one, other = BASE.tensors
    assert base_by_name((), BASE) == base_by_name(BASE.names, BASE) == [one, other]
    assert base_by_name(("adapter", "new", "base"), BASE) == [other, b"", one]
    assert base_by_name(("adapter",), BARE) == [one, other]


@pytest.mark.parametrize("name", ["zstd", "fp16", "bf16", "int8"])
def test_an_adapter_alone_is_as_exact_as_in_the_whole_model(name: str) -> None:
    """Against the tensor in its place, 1.0, half precision would be off by up to 0.25."""
    codec = get_codec(name)
    reply = ndarrays_to_parameters([ARRAYS[1] + np.float32(0.125), ARRAYS[0]], ["adapter", "new"])
    base = base_by_name(reply.names, BASE)
    packed = codec.encode(reply.tensors, base)
    got = codec.decode(packed, base, max_bytes=1 << 20)
    assert [bytes(tensor) for tensor in got] == reply.tensors
