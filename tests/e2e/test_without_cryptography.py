"""Without the package, everything else goes on, and who asks for keys is told what to install."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["cryptography"] = None
import flmq.messaging, flmq.client, flmq.server, flmq.cli.main, flmq.e2e.errors
from flmq.e2e.errors import SecureExtraMissing
try:
    import flmq.e2e.keys
except SecureExtraMissing as error:
    print(error)
"""


def test_the_extra_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert "pip install 'flmq[secure]'" in done.stdout
