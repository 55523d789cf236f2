"""Types of what may be given as a client, and of functions that create one."""

from __future__ import annotations

from collections.abc import Callable

from flmq.client.client import Client
from flmq.client.context import ClientContext
from flmq.client.numpy_client import NumPyClient
from flmq.common.errors import InvalidReturnValue

__all__ = ["ClientFn", "ClientLike", "to_client"]

ClientLike = Client | NumPyClient
"""What users pass as a client: with or without ``to_client()`` called on it."""

ClientFn = (
    Callable[[ClientContext], ClientLike] | Callable[[str], ClientLike] | Callable[[], ClientLike]
)
"""Creates a job's client, given its context, its client id (as in older Flower), or nothing."""


def to_client(thing: object) -> Client:
    """Return the `Client` of ``thing``, a `Client` or `NumPyClient`.

    Raises:
        InvalidReturnValue: it is neither.
    """
    if isinstance(thing, ClientLike):
        return thing.to_client()
    got = f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"
    raise InvalidReturnValue(
        f"a client is expected, not {got}. Example:\n\n"
        "    def client(context: ClientContext) -> Client:\n"
        "        return MyNumPyClient(context.client_id).to_client()\n"
    )
