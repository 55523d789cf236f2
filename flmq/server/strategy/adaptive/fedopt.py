"""FedOpt: what FedAdagrad, FedAdam and FedYogi share. Reddi et al., 2021, arXiv:2003.00295."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flmq.common.typing import NDArrays, Parameters
from flmq.journal.state import StateValue
from flmq.server.strategy.adaptive.stepping import Rule, stepped
from flmq.server.strategy.combine import Combined
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number

__all__ = ["FedOpt"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedOpt(FedAvg):
    """The options and moments of an adaptive optimizer; alone, as in Flower, it averages.

    A subclass overrides `update` and takes a `step` by its formula. The moments are two arrays for
    each tensor, of float32 (float64 for float64 models). Integers and booleans, for instance
    counters such as ``num_batches_tracked``, become their mean, without a step.

    Other than in Flower: a model keeps its dtypes (Flower's float32 becomes float64); the step goes
    out from the model that clients trained from, and so ``initial_parameters`` may be left out;
    moments are saved with the run.
    """

    eta: float = 1e-1
    """The server's learning rate."""
    eta_l: float = 1e-1
    """The clients' learning rate; as in Flower, neither used nor sent: see ``on_fit_config_fn``."""
    beta_1: float = 0.0
    """Decay of the first moment, 0 or more and below 1."""
    beta_2: float = 0.0
    """Decay of the second moment, 0 or more and below 1."""
    tau: float = 1e-9
    """Added to the root of the second moment; the larger, the less adaptive."""
    initial_accumulator_value: float = 0.0
    """Second moment before the first round: 0 in Flower, at least ``tau**2`` in the paper."""

    def __post_init__(self) -> None:
        """Check ranges; begin without moments."""
        super().__post_init__()
        for name in ("eta", "eta_l", "initial_accumulator_value"):
            check_number(self, name, least=0)
        for name in ("beta_1", "beta_2"):
            check_number(self, name, least=0, below=1)
        check_number(self, "tau", above=0)
        self.m_t: NDArrays = []
        """First moment of each tensor; empty before the first round."""
        self.v_t: NDArrays = []
        """Second moment of each tensor."""

    def step(self, parameters: Parameters, combined: Combined, rule: Rule) -> Parameters:
        """Return the model after ``rule(x, delta, m, v)``, which assigns to m and v in place."""
        initial = (0.0, self.initial_accumulator_value)
        return stepped(parameters, combined, (self.m_t, self.v_t), rule, initial)

    def state_dict(self) -> Mapping[str, StateValue]:
        """Return the moments themselves: the next round changes these arrays."""
        return {"m_t": self.m_t, "v_t": self.v_t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the moments; a run that another strategy began has none yet."""
        self.m_t, self.v_t = state.get("m_t", []), state.get("v_t", [])
