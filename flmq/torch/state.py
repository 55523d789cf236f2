"""A module's state as named `Parameters`, and back: parameters and buffers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

import torch
from torch import nn

from flmq.common.errors import UsageError
from flmq.common.parameter import bytes_to_ndarray
from flmq.common.typing import Parameters
from flmq.torch.tensors import UnsupportedTensor, to_ndarray, to_tensor
from flmq.wire import parameters_to_send

__all__ = ["Names", "StateMismatch", "get_state", "set_state", "state_of"]

Names = Callable[[str], bool] | Iterable[str] | None
"""Which entries of a state dict: names, or patterns such as ``"*lora_*"``; or a function of the
name; None for all."""


class StateMismatch(UsageError):
    """Parameters do not fit the module that they are to be set in."""


def get_state(model: nn.Module, names: Names = None) -> Parameters:
    """Return the state of ``model`` as `Parameters` with its tensors' names, in its order.

    Args:
        model: parameters and buffers of any shape, dtype and device; 0-d counters too.
        names: only those.

    Raises:
        UnsupportedTensor: an entry cannot be exchanged; names it.
        StateMismatch: ``names`` match nothing.
    """
    state = state_of(model, names)
    arrays = []
    for name, tensor in state.items():
        try:
            arrays.append(to_ndarray(tensor))
        except UnsupportedTensor as error:
            raise UnsupportedTensor(f"{name}: {error}") from error
    return parameters_to_send(arrays, tuple(state))


def set_state(model: nn.Module, parameters: Parameters, names: Names = None) -> None:
    """Copy ``parameters`` into ``model``, in its own dtypes and on its own devices.

    By name if they have names, else in the order of the state dict. Floats are rounded to the
    module's dtype where that differs (a job in bfloat16, a module in float32).

    Args:
        model: changed in place, only if everything fits.
        parameters: one tensor for each entry that ``names`` match.
        names: set only those; the others stay as they are.

    Raises:
        StateMismatch: names, number, shapes or kinds of dtype do not fit; names the first.
        MalformedMessage: a tensor is not one whole ``.npy`` byte string.
    """
    state = state_of(model, names)
    given = parameters.names or tuple(state)
    if len(given) != len(parameters.tensors):
        raise StateMismatch(
            f"{len(parameters.tensors)} tensors for the {len(given)} of {_kind(model)}: give all "
            "that names= match, in the order of the state dict"
        )
    _check_names(model, given, state)
    new = {}
    for name, tensor in zip(given, parameters.tensors, strict=True):
        value = to_tensor(bytes_to_ndarray(tensor, copy=False))
        _check_fit(name, state[name], value)
        new[name] = value
    # Whatever a module does on loading (hooks, parametrizations) is done here as well.
    model.load_state_dict(new, strict=False)


def state_of(model: nn.Module, names: Names = None) -> dict[str, torch.Tensor]:
    """Return the entries of the state dict that ``names`` match, in its order.

    Raises:
        UnsupportedTensor: an entry is not a tensor; names it.
        StateMismatch: there is none.
    """
    matches = _matcher(names)
    state = {name: value for name, value in model.state_dict().items() if matches(name)}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UnsupportedTensor(
                f"{name} of {_kind(model)} is a {type(value).__name__}, not a tensor: leave it out "
                "with names="
            )
    if not state:
        raise StateMismatch(f"names= match nothing of the state of {_kind(model)}")
    return state


def _matcher(names: Names) -> Callable[[str], bool]:
    if names is None:
        return lambda name: True
    if callable(names):
        return names
    patterns = [names] if isinstance(names, str) else list(names)
    plain = frozenset(patterns)
    return lambda name: name in plain or any(fnmatchcase(name, each) for each in patterns)


def _check_names(model: nn.Module, given: tuple[str, ...], state: dict[str, torch.Tensor]) -> None:
    for what, missing in (
        ("which the parameters lack", state.keys() - set(given)),
        ("which it has not", set(given) - state.keys()),
    ):
        if missing:
            raise StateMismatch(
                f"the state of {_kind(model)} does not fit: {min(missing)!r} is one of "
                f"{len(missing)} names {what}: build the same module on server and clients, and "
                "give both the same names="
            )
    if len(set(given)) != len(given):
        raise StateMismatch("two of the parameters' tensors have the same name")


def _check_fit(name: str, old: torch.Tensor, new: torch.Tensor) -> None:
    if old.shape != new.shape:
        raise StateMismatch(f"{name} has shape {tuple(old.shape)}, what came {tuple(new.shape)}")
    same = old.dtype == new.dtype
    if not same and not (old.is_floating_point() and new.is_floating_point()):
        raise StateMismatch(f"{name} is {old.dtype}, what came {new.dtype}")


def _kind(model: nn.Module) -> str:
    return type(model).__name__
