"""Server-side optimizers: the mean of replies is a direction, and the server takes the step.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, arXiv:2003.00295. With x the model that
clients trained from, each strategy takes ``delta = mean - x`` for a gradient's opposite.
"""

from __future__ import annotations

from flmq.server.strategy.adaptive.fedadagrad import FedAdagrad
from flmq.server.strategy.adaptive.fedadam import FedAdam
from flmq.server.strategy.adaptive.fedavgm import FedAvgM
from flmq.server.strategy.adaptive.fedopt import FedOpt
from flmq.server.strategy.adaptive.fedyogi import FedYogi

__all__ = ["FedAdagrad", "FedAdam", "FedAvgM", "FedOpt", "FedYogi"]
