"""What a client factory may know about the client that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from flmq.common.typing import Scalar

__all__ = ["ClientContext"]


@dataclass(frozen=True, slots=True)
class ClientContext:
    """For which job, and as whom, a client is made."""

    job: str
    """The job whose tasks the client will serve."""
    client_id: str
    """Stable over restarts: what the client's data or partition may be chosen by."""
    site: str
    """The datacenter; "main" where there is only one."""
    properties: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    """What this client tells of itself when it says hello."""
    state_dir: Path | None = None
    """A folder of this client and job that outlives the process; None: there is none."""

    @property
    def node_config(self) -> Mapping[str, Scalar]:
        """The properties, under the name that client functions of Flower look for."""
        return self.properties
