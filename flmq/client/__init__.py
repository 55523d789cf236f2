"""The client side: the classes that users subclass, and the worker that runs them."""

from __future__ import annotations

from flmq.client.app import start_client, start_numpy_client
from flmq.client.client import Client
from flmq.client.context import ClientContext
from flmq.client.dpfedavg_numpy_client import DPFedAvgNumPyClient
from flmq.client.numpy_client import NumPyClient
from flmq.client.typing import ClientFn

__all__ = [
    "Client",
    "ClientContext",
    "ClientFn",
    "DPFedAvgNumPyClient",
    "NumPyClient",
    "start_client",
    "start_numpy_client",
]
