from __future__ import annotations

import pytest
import torch
from torch import nn

from flmq.common import Parameters, parameters_to_ndarrays
from flmq.torch import StateMismatch, UnsupportedTensor, get_state, set_state
from tests.torch.nets import batch_normed


def equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[name], theirs[name]) for name in mine
    )


def changed(net: nn.Module) -> nn.Module:
    """The same module after some training."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.randn(5, 3, dtype=next(net.parameters()).dtype)).sum().backward()
    optimizer.step()
    return net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_state_goes_out_and_in(dtype: torch.dtype) -> None:
    trained, fresh = changed(batch_normed().to(dtype)), batch_normed().to(dtype)
    assert not equal(trained, fresh)
    state = get_state(trained)
    assert state.names == tuple(trained.state_dict())
    set_state(fresh, state)
    assert equal(trained, fresh)
    assert int(fresh.state_dict()["1.num_batches_tracked"]) == 1
    assert fresh.state_dict()["1.num_batches_tracked"].shape == ()


def test_what_was_taken_does_not_change_with_the_module() -> None:
    net = batch_normed()
    state = get_state(net)
    before = [bytes(tensor) for tensor in state.tensors]
    changed(net)
    assert [bytes(tensor) for tensor in state.tensors] == before


def test_by_order_where_there_are_no_names() -> None:
    trained, fresh = changed(batch_normed()), batch_normed()
    state = get_state(trained)
    set_state(fresh, Parameters(state.tensors, state.tensor_type))
    assert equal(trained, fresh)


def test_by_name_in_whichever_order() -> None:
    trained, fresh = changed(batch_normed()), batch_normed()
    state = get_state(trained)
    turned = Parameters(state.tensors[::-1], state.tensor_type, state.names[::-1])
    set_state(fresh, turned)
    assert equal(trained, fresh)


def test_some_names_only() -> None:
    trained, fresh = changed(batch_normed()), batch_normed()
    untouched = {name: each.clone() for name, each in fresh.state_dict().items()}
    some = get_state(trained, names="0.*")
    assert some.names == ("0.weight", "0.bias")
    set_state(fresh, some, names=["0.weight", "0.bias"])
    for name, tensor in fresh.state_dict().items():
        expected = trained.state_dict()[name] if name.startswith("0.") else untouched[name]
        assert torch.equal(tensor, expected)


def test_a_job_in_bfloat16_and_a_module_in_float32() -> None:
    fresh = batch_normed()
    set_state(fresh, get_state(changed(batch_normed().bfloat16())))
    assert fresh.state_dict()["0.weight"].dtype is torch.float32


def test_memory_order_does_not_matter() -> None:
    net = nn.Linear(2, 3)
    net.weight.data = torch.arange(6.0).reshape(2, 3).T
    fresh = nn.Linear(2, 3)
    set_state(fresh, get_state(net))
    assert torch.equal(net.weight, fresh.weight)
    assert parameters_to_ndarrays(get_state(net))[0].tolist() == net.weight.tolist()


class TestMismatches:
    """Nothing of the module changes, and the error names the tensor."""

    def refused(self, parameters: Parameters, says: str) -> None:
        net = batch_normed()
        with pytest.raises(StateMismatch, match=says):
            set_state(net, parameters)
        assert equal(net, batch_normed())

    def test_another_module(self) -> None:
        self.refused(get_state(nn.Linear(3, 4)), "'0.bias' is one of 9 names which the parameters")

    def test_a_module_that_has_more(self) -> None:
        more = nn.Sequential(*batch_normed(), nn.Linear(2, 2))
        self.refused(get_state(more), "'3.bias' is one of 2 names which it has not")

    def test_a_tensor_too_few(self) -> None:
        state = get_state(batch_normed())
        self.refused(Parameters(state.tensors[:-1], state.tensor_type), "8 tensors for the 9 of")

    def test_another_shape(self) -> None:
        wider = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 9))
        self.refused(get_state(wider), r"2.weight has shape \(2, 4\), what came \(9, 4\)")

    def test_integers_for_floats(self) -> None:
        net = batch_normed()
        net.register_buffer("extra", torch.zeros(1))
        state = get_state(batch_normed())
        whole = Parameters([state.tensors[6], *state.tensors[1:]], state.tensor_type, state.names)
        self.refused(whole, "0.weight has shape")

    def test_a_pattern_that_matches_nothing(self) -> None:
        with pytest.raises(StateMismatch, match="match nothing"):
            get_state(batch_normed(), names="encoder.*")

    def test_a_state_that_is_no_tensor(self) -> None:
        class Extra(nn.Linear):  # type: ignore[misc]
            def get_extra_state(self) -> object:
                return {"version": 3}

            def set_extra_state(self, state: object) -> None:
                pass

        with pytest.raises(UnsupportedTensor, match="_extra_state of Extra is a dict"):
            get_state(Extra(1, 1))
        assert get_state(Extra(1, 1), names=["weight", "bias"]).names == ("weight", "bias")
