"""A client of flmq or of Flower whose training returns what it was given, but for 64 numbers.

Those change in every round: a model that stayed the same would not have to be sent again where
models have names by content, and a round would be measured that no training has.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from benchmarks.contestants.stage import address, end_with_parent

_MAX_MESSAGE = 2**31 - 1


def echo(numpy_client: Any) -> Any:
    """Make a subclass of ``numpy_client`` that trains next to nothing."""

    class Echo(numpy_client):  # type: ignore[misc]
        def fit(self, parameters: Any, config: Any) -> tuple[Any, int, dict[str, Any]]:
            return [*parameters[:-1], parameters[-1] + 1], 10, {}

    return Echo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=("flmq", "flwr"), required=True)
    parser.add_argument("--keys", type=Path, help="folder of keys: protect all from end to end")
    parser.add_argument("--name", help="the client's, where it has a key or a certificate")
    options = parser.parse_args()
    end_with_parent()
    client = importlib.import_module(options.library).client
    protected: dict[str, Any] = {} if options.name is None else {"client_id": options.name}
    if options.keys is not None:
        protected |= {
            "e2e": True,
            "key": options.keys / "clients" / f"{options.name}.key",
            "server_key": options.keys / "server.pub",
        }
    client.start_client(
        server_address=address(options.name or ""),
        client=echo(client.NumPyClient)().to_client(),
        grpc_max_message_length=_MAX_MESSAGE,
        **protected,
    )


if __name__ == "__main__":
    main()
