"""The initial model of a run: the strategy's, or one requested from a client."""

from __future__ import annotations

from typing import cast

from flmq.common.errors import NoInitialParameters
from flmq.common.logger import logger
from flmq.common.phase import Phase
from flmq.common.typing import GetParametersIns, GetParametersRes, Parameters
from flmq.server.asks.failure_summary import why
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.request import accept_anything
from flmq.server.rounds.phases import Phases
from flmq.server.strategy import validation as returned
from flmq.server.strategy.strategy import Strategy
from flmq.wire import Ins

__all__ = ["initial_parameters"]


def initial_parameters(
    strategy: Strategy,
    client_manager: ClientManager,
    phases: Phases,
    timeout: float | None,
    max_workers: int | None,
) -> Parameters:
    """Return the initial model; if a client is asked for it, it has ``timeout`` seconds.

    Raises:
        InvalidReturnValue: the strategy gave something else.
        NoInitialParameters: neither strategy nor client gave any.
    """
    phases.begin(0, Phase.GET_PARAMETERS)
    parameters = strategy.initialize_parameters(client_manager)
    if parameters is not None:
        method = returned.method_name(strategy, "initialize_parameters")
        return returned.checked_parameters(method, parameters)
    logger.info("asking one client for the initial parameters")
    while True:
        planned = phases.planned(strategy, Phase.GET_PARAMETERS, 0)
        instructions = planned or _choose(strategy, client_manager)
        result = phases.run(
            strategy,
            Phase.GET_PARAMETERS,
            0,
            instructions,
            timeout,
            accept_anything,
            max_workers=max_workers,
        )
        if result.replies:
            break
        # What failed under an earlier server may be fixed by now: then a client is asked again.
        if planned is None:
            raise NoInitialParameters(
                f"client {instructions[0][0].cid} gave no initial parameters "
                f"({why(result)}): implement get_parameters, or give the strategy "
                "initial_parameters"
            )
    (res,) = result.replies.values()
    given = cast(GetParametersRes, res).parameters
    # Copy to memory: the reply's file is deleted with its round.
    tensors = [bytes(tensor) for tensor in given.tensors]
    return Parameters(tensors, given.tensor_type, given.names)


def _choose(strategy: Strategy, client_manager: ClientManager) -> list[tuple[ClientProxy, Ins]]:
    """Choose one of the clients that the strategy waits for, by seed rather than by arrival."""
    needed = max(1, int(getattr(strategy, "min_available_clients", 1)))
    chosen = client_manager.sample(1, needed)
    if not chosen:
        raise NoInitialParameters(
            "the strategy has no initial_parameters and no client is there to ask: give the "
            "strategy initial_parameters, or start a client"
        )
    return [(chosen[0], GetParametersIns(config={}))]
