"""What clients add to their training for strategies that need a part done there; with numpy.

`proximal_gradient` for FedProx, `ScaffoldClient` for SCAFFOLD, `accumulated_steps` for FedNova.
"""

from __future__ import annotations

from flmq.client.learning.accumulated_steps import accumulated_steps
from flmq.client.learning.proximal import proximal_gradient
from flmq.client.learning.scaffold import ScaffoldClient
from flmq.client.learning.variates import LostVariate, NoStateFolder

__all__ = [
    "LostVariate",
    "NoStateFolder",
    "ScaffoldClient",
    "accumulated_steps",
    "proximal_gradient",
]
