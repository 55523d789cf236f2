"""A client whose user writes `train` and `test` of a PyTorch module, and nothing about bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flmq.client.client import Client
from flmq.common.errors import InvalidReturnValue
from flmq.common.scalars import as_count, as_real
from flmq.common.typing import (
    Code,
    Config,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    Metrics,
    Status,
)
from flmq.torch.adapters import BASE_DIGEST, BaseDiffers, base_digest
from flmq.torch.state import Names, get_state, set_state

__all__ = ["TorchClient"]


class TorchClient(Client):
    """Train and test a module on the client's own data. Override `train`, and `test`.

    The global model is set in the module before each, and taken from it after training. Draw what
    training needs (batches, dropout) from a generator seeded by the round, so that a task that is
    trained again, after a kill, gives the same bits.
    """

    def __init__(self, model: nn.Module, *, names: Names = None, num_examples: int = 1) -> None:
        """Train ``model``.

        Args:
            model: built alike by all clients, and by whoever makes the initial parameters.
            names: exchange only these entries of its state, for instance `adapter_names`; the
                others stay the client's own.
            num_examples: the reply's weight, unless `train` returns one; with 1, the default, all
                clients weigh the same.
        """
        self.model = model
        self.names = names
        self.num_examples = num_examples
        self._base: str | None = None

    def train(self, model: nn.Module, config: Config) -> Any:
        """Train ``model``, which is in training mode, in place.

        Returns:
            A dict of metrics, the number of examples, both as ``(num_examples, metrics)``, or None.
        """
        raise NotImplementedError

    def test(self, model: nn.Module, config: Config) -> Any:
        """Measure ``model``, which is in evaluation mode, without gradients.

        Returns:
            The loss; ``(loss, metrics)``; or ``(loss, num_examples, metrics)``.
        """
        raise NotImplementedError

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        """Return the module's state."""
        return GetParametersRes(_success(), get_state(self.model, self.names))

    def fit(self, ins: FitIns) -> FitRes:
        """Set the global model, train, and return the module's state."""
        if type(self).train is TorchClient.train:
            return super().fit(ins)
        self._check_base(ins.config)
        set_state(self.model, ins.parameters, self.names)
        self.model.train()
        returned = self.train(self.model, ins.config)
        num_examples, metrics = self._trained(returned)
        return FitRes(_success(), get_state(self.model, self.names), num_examples, metrics)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Set the global model, and measure it."""
        if type(self).test is TorchClient.test:
            return super().evaluate(ins)
        self._check_base(ins.config)
        set_state(self.model, ins.parameters, self.names)
        self.model.eval()
        with torch.no_grad():
            returned = self.test(self.model, ins.config)
        loss, num_examples, metrics = self._tested(returned)
        return EvaluateRes(_success(), loss, num_examples, metrics)

    def _check_base(self, config: Config) -> None:
        """Refuse a task whose adapters belong to another base model, before training."""
        wanted = config.get(BASE_DIGEST)
        if wanted is None:
            return
        if self._base is None:
            self._base = base_digest(self.model, self.names)
        if self._base != wanted:
            raise BaseDiffers(self._base, str(wanted))

    def _trained(self, returned: Any) -> tuple[int, Metrics]:
        given: Any = self.num_examples
        metrics: Metrics = {}
        match returned:
            case None:
                pass
            case dict():
                metrics = returned
            case (given, dict() as metrics):
                pass
            case given:
                pass
        if (num_examples := as_count(given)) is None:
            raise self._wrong("train", returned, "len(dataset), {'loss': 0.5}")
        return num_examples, metrics

    def _tested(self, returned: Any) -> tuple[float, int, Metrics]:
        given: Any = self.num_examples
        metrics: Metrics = {}
        measured = returned
        match returned:
            case (measured, given, dict() as metrics):
                pass
            case (measured, dict() as metrics):
                pass
        loss, num_examples = as_real(measured), as_count(given)
        if loss is None or num_examples is None:
            raise self._wrong("test", returned, "loss, len(dataset), {'accuracy': 0.95}")
        return loss, num_examples, metrics

    def _wrong(self, method: str, returned: object, example: str) -> InvalidReturnValue:
        got = (
            f"({', '.join(type(each).__name__ for each in returned)})"
            if isinstance(returned, tuple)
            else f"a {type(returned).__name__}"
        )
        return InvalidReturnValue(
            f"{type(self).__name__}.{method} returned {got}. Example:\n\n    return {example}\n"
        )


def _success() -> Status:
    return Status(Code.OK, "Success")
