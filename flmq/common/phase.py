"""Which of its calls a task asks a client for."""

from __future__ import annotations

from enum import Enum

__all__ = ["Phase"]


class Phase(Enum):
    """Which of its calls a task asks a client for."""

    FIT = "fit"
    EVALUATE = "evaluate"
    GET_PARAMETERS = "get_parameters"
    GET_PROPERTIES = "get_properties"
    RECONNECT = "reconnect"
