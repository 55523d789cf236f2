"""Mods: what is done to tasks and replies around a client, under Flower's names.

::

    def client(context: ClientContext) -> Client:
        return with_mods(MyClient(context.client_id), [fixedclipping_mod])
"""

from __future__ import annotations

from flmq.client.mod.clipping import (
    NoClippingNorm,
    adaptiveclipping_mod,
    fixedclipping_mod,
)
from flmq.client.mod.local_dp import InvalidModOption, LocalDpMod
from flmq.client.mod.modded import CallNext, Mod, with_mods

__all__ = [
    "CallNext",
    "InvalidModOption",
    "LocalDpMod",
    "Mod",
    "NoClippingNorm",
    "adaptiveclipping_mod",
    "fixedclipping_mod",
    "with_mods",
]
