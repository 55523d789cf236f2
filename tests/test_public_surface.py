"""What may be imported: every ``__all__`` is true and sorted, Flower's module paths are there."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType

import pytest

import flmq

WITHOUT_ALL = {
    # Programs.
    "flmq.__main__",
    "flmq.broker.watchdog",
    # Packages whose modules one imports by name.
    "flmq.broker",
    "flmq.certs",
    "flmq.cli",
    "flmq.cli.demo",
    "flmq.cli.view",
    "flmq.client.models",
    "flmq.client.pool",
    "flmq.client.secure",
    "flmq.client.serving",
    "flmq.client.tasks",
    "flmq.datasets",
    "flmq.monitoring",
    "flmq.observe",
    "flmq.provision",
    "flmq.server.asks",
    "flmq.server.job",
    "flmq.server.lifecycle",
    "flmq.server.models",
    "flmq.server.presence",
    "flmq.server.replies",
    "flmq.server.resumption",
    "flmq.server.rhythm",
    "flmq.server.strategy.partial",
    "flmq.server.strategy.robust",
    "flmq.server.rounds",
    "flmq.server.secure",
    "flmq.server.streams",
    "flmq.sites",
    "flmq.ui",
    # The wire's own tables, behind flmq.wire.
    "flmq.wire.serde",
    "flmq.wire.serde.contract",
    "flmq.wire.serde.envelopes",
}

FLOWER_NAMES = {
    "flmq.client": ["Client", "ClientFn", "NumPyClient", "start_client", "start_numpy_client"],
    "flmq.client.client": ["Client"],
    "flmq.client.numpy_client": ["NumPyClient"],
    "flmq.common": [
        "Code",
        "Config",
        "DisconnectRes",
        "EvaluateIns",
        "EvaluateRes",
        "FitIns",
        "FitRes",
        "GetParametersIns",
        "GetParametersRes",
        "GetPropertiesIns",
        "GetPropertiesRes",
        "Metrics",
        "MetricsAggregationFn",
        "NDArray",
        "NDArrays",
        "Parameters",
        "Properties",
        "ReconnectIns",
        "Scalar",
        "Status",
        "bytes_to_ndarray",
        "log",
        "ndarray_to_bytes",
        "ndarrays_to_parameters",
        "parameters_to_ndarrays",
    ],
    "flmq.common.logger": ["configure", "log", "logger"],
    "flmq.common.parameter": [
        "bytes_to_ndarray",
        "ndarray_to_bytes",
        "ndarrays_to_parameters",
        "parameters_to_ndarrays",
    ],
    "flmq.common.typing": ["FitIns", "FitRes", "Metrics", "NDArrays", "Parameters", "Scalar"],
    "flmq.server": [
        "ClientManager",
        "History",
        "Server",
        "ServerConfig",
        "SimpleClientManager",
        "start_server",
        "strategy",
    ],
    "flmq.server.app": ["start_server"],
    "flmq.server.client_manager": ["ClientManager", "SimpleClientManager"],
    "flmq.server.client_proxy": ["ClientProxy"],
    "flmq.server.criterion": ["Criterion"],
    "flmq.server.history": ["History"],
    "flmq.server.server": [
        "EvaluateResultsAndFailures",
        "FitResultsAndFailures",
        "Server",
        "evaluate_client",
        "evaluate_clients",
        "fit_client",
        "fit_clients",
    ],
    "flmq.server.server_config": ["ServerConfig"],
    "flmq.server.strategy": [
        "FaultTolerantFedAvg",
        "FedAdagrad",
        "FedAdam",
        "FedAvg",
        "FedAvgM",
        "FedOpt",
        "FedProx",
        "FedXgbBagging",
        "FedXgbCyclic",
        "FedXgbNnAvg",
        "FedYogi",
        "QFedAvg",
        "Strategy",
    ],
    "flmq.server.strategy.aggregate": [
        "aggregate",
        "aggregate_inplace",
        "aggregate_qffl",
        "weighted_loss_avg",
    ],
    "flmq.server.strategy.fedavg": ["FedAvg"],
    "flmq.server.strategy.strategy": ["Strategy"],
    "flmq.simulation": ["start_simulation"],
}


def modules() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(flmq.__path__, "flmq.")]
    absent = [".wire.proto"] if find_spec("torch") else [".wire.proto", "flmq.torch"]
    return ["flmq", *sorted(name for name in names if not any(no in name for no in absent))]


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", [name for name in modules() if name not in WITHOUT_ALL])
def test_all_is_true_and_sorted(name: str) -> None:
    module = load(name)
    assert hasattr(module, "__all__"), f"{name} does not say what is public in it"
    names = list(module.__all__)
    # Constants first, then classes, then functions: the order of ruff's RUF022.
    assert names == sorted(names, key=isort_key), f"__all__ of {name} is not sorted"
    assert len(set(names)) == len(names)
    for public in names:
        assert not public.startswith("_") or public == "__version__"
        getattr(module, public)


def isort_key(name: str) -> tuple[int, str]:
    if name.isupper():
        return 0, name
    return (1 if name[:1].isupper() else 2), name


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is(name: str) -> None:
    assert (load(name).__doc__ or "").strip()


@pytest.mark.parametrize("name", sorted(FLOWER_NAMES))
def test_flowers_module_path_is_there(name: str) -> None:
    module = load(name)
    missing = [public for public in FLOWER_NAMES[name] if not hasattr(module, public)]
    assert not missing, f"{name} lacks {missing}"


def test_one_import_reaches_everything_as_with_flower() -> None:
    assert callable(flmq.server.start_server)
    assert callable(flmq.client.start_client)
    assert callable(flmq.simulation.start_simulation)
    assert flmq.server.strategy.FedAvg.__name__ == "FedAvg"
    assert flmq.common.Parameters.__name__ == "Parameters"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sever'"):
        flmq.sever  # noqa: B018
