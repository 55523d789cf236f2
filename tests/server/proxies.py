"""Clients that stand for none, their managers, replies as they would give, and timely arrivals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import numpy as np

from flmq.common import (
    Code,
    EvaluateRes,
    FitRes,
    Metrics,
    NDArray,
    Parameters,
    Status,
    ndarrays_to_parameters,
)
from flmq.server.client_manager import SimpleClientManager
from flmq.server.client_proxy import ClientProxy

OK = Status(Code.OK, "Success")


class IdleProxy(ClientProxy):
    """Has an id and properties; a call is a mistake of the test."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(f"nobody should call {self.cid}")

    get_properties = _refuse
    get_parameters = _refuse
    fit = _refuse
    evaluate = _refuse
    reconnect = _refuse


def manager_of(*cids: str, seed: int | None = 1, wait_timeout: float = 0.0) -> SimpleClientManager:
    manager = SimpleClientManager(seed=seed, wait_timeout=wait_timeout)
    for cid in cids:
        assert manager.register(IdleProxy(cid))
    return manager


def model(*tensors: Sequence[float] | NDArray | float) -> Parameters:
    return ndarrays_to_parameters([np.asarray(tensor) for tensor in tensors])


def fit_res(parameters: Parameters, num_examples: int, metrics: Metrics | None = None) -> FitRes:
    return FitRes(OK, parameters, num_examples, metrics or {})


def evaluate_res(loss: float, num_examples: int, metrics: Metrics | None = None) -> EvaluateRes:
    return EvaluateRes(OK, loss, num_examples, metrics or {})


@contextmanager
def once_it_waits(action: Callable[[], object]) -> Iterator[None]:
    """Run ``action`` on another thread once a client manager says that it waits for clients."""
    waits = threading.Event()

    class WhenWaiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waits.set()

    def act() -> None:
        if waits.wait(60):
            action()

    logger = logging.getLogger("flmq.server.client_manager")
    handler, level = WhenWaiting(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        logger.removeHandler(handler)
        logger.setLevel(level)
