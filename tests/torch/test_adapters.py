from __future__ import annotations

import torch

from flmq.torch import adapter_names, base_digest, get_state, set_state
from tests.torch.nets import Lora


def test_what_trains_is_exchanged() -> None:
    net = Lora()
    assert adapter_names(net) == ("lora_a", "lora_b")
    assert get_state(net, adapter_names(net)).names == ("lora_a", "lora_b")


def test_the_digest_of_the_base_knows_nothing_of_the_adapters() -> None:
    net = Lora()
    before = base_digest(net)
    with torch.no_grad():
        net.lora_a += 1
    assert base_digest(net) == before == base_digest(Lora())


def test_another_base_has_another_digest() -> None:
    assert base_digest(Lora(base_seed=2)) != base_digest(Lora())
    assert base_digest(Lora().bfloat16()) != base_digest(Lora())


def test_the_base_stays_where_adapters_are_set() -> None:
    one, other = Lora(), Lora()
    with torch.no_grad():
        one.lora_b += 2
    set_state(other, get_state(one, adapter_names(one)), adapter_names(other))
    assert base_digest(other) == base_digest(one)
    assert torch.equal(other.lora_b, one.lora_b)
