"""One strategy's `aggregate_fit`, timed, of flmq or of Flower: the same program for both.

Prints a line of JSON: CPU seconds of each round after a warm-up, those of them after the last
reply, and bytes of memory at the peak above those of before the replies were there. Where these
are is part of what is compared: Flower's server has all in memory; flmq's has them in files, and
hands each to the strategy's ``combine`` as it comes, which counts here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contestants.model import make_model
from benchmarks.contestants.stage import end_with_parent, forget_peak, memory

_EXAMPLES = 100


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=("flmq", "flwr"), required=True)
    parser.add_argument("--strategy", required=True)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--around", default="", help="the strategy that this one wraps")
    parser.add_argument("--replies", type=int, required=True)
    parser.add_argument("--model-bytes", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--on-disk", action="store_true", help="replies are files (flmq)")
    options = parser.parse_args()
    end_with_parent()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="flmq-bench-") as folder:
        print(json.dumps(_measured(options, Path(folder))))


def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    fl = importlib.import_module(options.library)
    importlib.import_module(f"{options.library}.server.strategy")
    strategy = _strategy(fl, options)
    clients = _clients(fl, options.replies)
    model = fl.common.ndarrays_to_parameters(make_model(options.model_bytes))
    idle = memory("VmRSS")
    replies = [
        _reply(fl, options, number, folder if options.on_disk else None)
        for number in range(options.replies)
    ]
    forget_peak()
    seconds, last = [], []
    for server_round in range(1, options.rounds + 2):
        take, finish = _steps(options.library, strategy, server_round, model, clients, replies)
        started = time.process_time()
        results = take()
        taken = time.process_time()
        made, _ = finish(results)
        seconds.append(time.process_time() - started)
        last.append(time.process_time() - taken)
        if made is None or len(made.tensors) != len(model.tensors):
            sys.exit(f"{options.strategy} made no model")
    return {"seconds": seconds[1:], "last": last[1:], "peak": memory("VmHWM") - idle}


def _strategy(fl: Any, options: argparse.Namespace) -> Any:
    """Make the strategy, with what all of a family need."""
    kinds = fl.server.strategy
    common: dict[str, Any] = {
        "fraction_evaluate": 0.0,
        "min_fit_clients": options.replies,
        "min_available_clients": options.replies,
        "evaluate_fn": lambda server_round, arrays, config: (1.0, {}),
        "initial_parameters": fl.common.ndarrays_to_parameters(make_model(options.model_bytes)),
    }
    if options.around:
        inner = getattr(kinds, options.around)(**common)
        return getattr(kinds, options.strategy)(inner, **options.options)
    return getattr(kinds, options.strategy)(**common, **options.options)


def _clients(fl: Any, count: int) -> Any:
    """A manager of clients that are only names."""
    proxy = importlib.import_module(f"{fl.__name__}.server.client_proxy").ClientProxy
    calls = dict.fromkeys(proxy.__abstractmethods__)
    manager = importlib.import_module(f"{fl.__name__}.server.client_manager").SimpleClientManager()
    for number in range(count):
        manager.register(type("Idle", (proxy,), calls)(f"c{number:03}"))
    return manager


def _reply(fl: Any, options: argparse.Namespace, number: int, folder: Path | None) -> Any:
    """A client's reply: the model, moved a little, each client in its own direction."""
    arrays = [_moved(tensor, number) for tensor in make_model(options.model_bytes)]
    common = fl.common
    parameters = common.ndarrays_to_parameters(arrays)
    if folder is not None:
        parameters = _filed(parameters, folder)
    status = common.Status(common.Code.OK, "")
    return common.FitRes(status, parameters, _EXAMPLES, {"dpfedavg_norm_bit": True, "loss": 1.0})


def _moved(tensor: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(number + 1)
    return tensor + np.float32(0.001) * rng.standard_normal(tensor.shape, dtype=np.float32)


def _filed(parameters: Any, folder: Path) -> Any:
    """Put parameters into a file, as the journal has them."""
    from flmq.wire import FileParameters, refer

    ref = refer(parameters)
    path = folder / ref.digest
    path.write_bytes(b"".join(parameters.tensors))
    return FileParameters(path, ref)


def _steps(
    library: str, strategy: Any, server_round: int, model: Any, clients: Any, replies: list[Any]
) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Do what comes before replies; return what is done as they come, and what once all have."""
    if library == "flmq":
        strategy.global_parameters = model
    asked = strategy.configure_fit(server_round, model, clients)
    proxies = sorted((client for client, _ in asked), key=lambda client: client.cid)
    results = list(zip(proxies, replies, strict=True))

    def take() -> Any:
        return _combined(strategy, server_round, model, results) if library == "flmq" else results

    return take, lambda results: strategy.aggregate_fit(server_round, results, [])


def _combined(strategy: Any, server_round: int, model: Any, results: list[Any]) -> list[Any]:
    """Combine replies one by one, as `flmq.server.Server.fit_round` has it done, if it can be."""
    from flmq.common.parameter import without_parameters
    from flmq.server.strategy.streaming import StreamedResults, says_it_streams

    combine = strategy.combine(server_round, model) if says_it_streams(strategy) else None
    if combine is None:
        return results
    for client, res in results:
        combine.add(client.cid, res)
    return StreamedResults([(client, without_parameters(res)) for client, res in results], combine)


if __name__ == "__main__":
    main()
