"""The server side: the training loop, the choice of clients, the aggregation of replies."""

from __future__ import annotations

from flmq.server import strategy
from flmq.server.app import start_server
from flmq.server.client_manager import ClientManager, SimpleClientManager
from flmq.server.components import ServerAppComponents
from flmq.server.history import History
from flmq.server.rhythm.callbacks import Callback
from flmq.server.rhythm.deadlines import RoundPolicy
from flmq.server.rhythm.early_stopping import EarlyStopping
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.stream_server import StreamServer

__all__ = [
    "Callback",
    "ClientManager",
    "EarlyStopping",
    "History",
    "RoundPolicy",
    "Server",
    "ServerAppComponents",
    "ServerConfig",
    "SimpleClientManager",
    "StreamServer",
    "start_server",
    "strategy",
]
