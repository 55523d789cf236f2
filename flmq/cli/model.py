"""A run's final model, as a file that numpy reads, and its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from flmq.common.files import replacing
from flmq.common.parameter import parameters_to_ndarrays
from flmq.common.typing import Parameters
from flmq.observe.events import RunEnded, RunEvent

__all__ = ["ModelSaver", "model_digest"]


def model_digest(parameters: Parameters) -> str:
    """Return the SHA-256 (hex) of the tensors' bytes in order: equal for bit-identical models."""
    digest = hashlib.sha256()
    for tensor in parameters.tensors:
        digest.update(len(tensor).to_bytes(8, "big"))
        digest.update(tensor)
    return digest.hexdigest()


class ModelSaver:
    """An observer that writes ``<folder>/model.npz`` at the end of a run.

    ``numpy.load`` returns the tensors as ``arr_0``, ``arr_1``, ...; a model that is not numpy
    arrays is written as the raw bytes of each tensor.
    """

    def __init__(self, folder: Path) -> None:
        """Write below ``folder``."""
        self._folder = folder

    def __call__(self, event: RunEvent) -> None:
        """Write the model if ``event`` is the run's end and there is a model."""
        if not isinstance(event, RunEnded) or event.parameters is None:
            return
        parameters = event.parameters
        if parameters.tensor_type == "numpy.ndarray":
            tensors = parameters_to_ndarrays(parameters, copy=False)
        else:
            tensors = [np.frombuffer(tensor, np.uint8) for tensor in parameters.tensors]
        with replacing(self._folder / "model.npz", tidy=True) as file:
            np.savez(file, *tensors)
