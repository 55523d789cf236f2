"""FedXgbCyclic: one client after the other boosts the model and hands it on."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.typing import EvaluateIns, FitIns, FitRes, Parameters
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.combine import AllReplies, Combine, Combined
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.reply_check import ReplyCheck

__all__ = ["FedXgbCyclic"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedXgbCyclic(FedAvg):
    """In round t, client t modulo their number trains, and its reply is the model.

    Clients take turns in the order of their ids (in Flower, in the order in which they happen to be
    sampled, so that one may come twice and another never). The model is bytes of any form,
    usually ``Booster.save_raw("json")``; they are not looked at.
    """

    reply_check = ReplyCheck.NONE

    def check_fit_res(self, res: FitRes) -> str | None:
        """Refuse a reply without a model."""
        if any(res.parameters.tensors):
            return None
        return 'no model came: return Parameters([booster.save_raw("json")], "")'

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Choose the one whose turn it is, among those that FedAvg samples."""
        chosen = super().configure_fit(server_round, parameters, client_manager)
        chosen.sort(key=lambda pair: pair[0].cid)
        return [chosen[(server_round - 1) % len(chosen)]] if chosen else []

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Choose the one whose turn it is, among those that FedAvg samples."""
        chosen = super().configure_evaluate(server_round, parameters, client_manager)
        chosen.sort(key=lambda pair: pair[0].cid)
        return [chosen[(server_round - 1) % len(chosen)]] if chosen else []

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Keep the reply as it is."""
        return AllReplies()

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Make the reply the model; of several, the last one's in the order of client ids."""
        tensors = [data for _, res in combined.replies or () for data in res.parameters.tensors]
        return Parameters([next(data for data in reversed(tensors) if data)], "")
