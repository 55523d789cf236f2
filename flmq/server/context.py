"""What a server factory may know about the job that it makes a server for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from flmq.common.typing import Scalar

__all__ = ["ServerContext"]


@dataclass(frozen=True, slots=True)
class ServerContext:
    """For which job, and with which settings, a server is made."""

    job: str
    """The job's name."""
    run_config: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    """What the command line's ``--config key=value`` say."""
