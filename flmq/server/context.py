"""What a server factory knows about the job for which it creates a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from flmq.common.typing import Scalar

__all__ = ["ServerContext"]


@dataclass(frozen=True, slots=True)
class ServerContext:
    """The job, and the settings, for which a server is created."""

    job: str
    """The job's name."""
    run_config: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    """The values of ``--config key=value`` on the command line."""
