"""What a client factory knows about the client that it creates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from flmq.common.typing import Scalar

__all__ = ["ClientContext"]


@dataclass(frozen=True, slots=True)
class ClientContext:
    """For which job, and under which id, a client is created."""

    job: str
    """The job whose tasks the client will serve."""
    client_id: str
    """The same over restarts: may be used to choose the client's data or partition."""
    site: str
    """The datacenter; "main" if there is only one."""
    properties: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    """The properties that this client sends in its hello."""
    state_dir: Path | None = None
    """A folder for this client and job that outlives the process; None if not configured."""

    @property
    def node_config(self) -> Mapping[str, Scalar]:
        """The properties, under the name that Flower's client functions use."""
        return self.properties
