"""Run ``rabbitmqctl`` on one private node."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from flmq.broker.identity import NodeIdentity
from flmq.common.errors import BrokerRefusal

__all__ = ["run_rabbitmqctl"]

_LONGEST = 600
"""Characters at the end of the output that an error shows."""


def run_rabbitmqctl(
    program: Path,
    identity: NodeIdentity,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float,
) -> str:
    """Run ``rabbitmqctl`` on the node of ``identity`` and return its output.

    ``timeout`` is in seconds.

    Raises:
        BrokerRefusal: it fails (with the end of its output), or does not end in time.
    """
    command = [str(program), "-q", "-n", identity.name, *arguments]
    what = f"rabbitmqctl {arguments[0] if arguments else ''}".strip()
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise BrokerRefusal(f"{what} did not end within {timeout:g} s") from None
    if done.returncode != 0:
        said = identity.without_secrets((done.stderr or done.stdout).strip()[-_LONGEST:])
        raise BrokerRefusal(f"{what} failed with status {done.returncode}: {said}")
    return done.stdout
