"""Deterministic ids: the same task has the same id, whoever computes it and when.

So publishing a task again after a crash is harmless, and a reply names its task (DESIGN.md, section
3). Hashes are BLAKE2b (RFC 7693) of 16 bytes, personalised by use.
"""

from __future__ import annotations

from hashlib import blake2b

from flmq.common.phase import Phase

__all__ = ["derive_nonce", "task_id"]

_SIZE = 16


def task_id(job: str, server_round: int, phase: Phase, client_id: str) -> str:
    """Return the id, 32 hexadecimal digits, of one client's task in one phase of one round.

    Raises:
        OverflowError: ``server_round`` does not fit unsigned 64 bits.
    """
    digest = blake2b(digest_size=_SIZE, person=b"flmq.task")
    digest.update(server_round.to_bytes(8, "big"))
    # Each text is prefixed with its length, so no two different tasks have the same bytes.
    for text in (job, phase.value, client_id):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def derive_nonce(secret: bytes, task_id: str) -> bytes:
    """Return a task's nonce: 16 bytes, unguessable without ``secret``, the same after a restart.

    Raises:
        ValueError: ``secret`` is empty or longer than 64 bytes.
    """
    if not 1 <= len(secret) <= 64:
        raise ValueError(f"a nonce's secret has 1 to 64 bytes, not {len(secret)}")
    return blake2b(task_id.encode(), digest_size=_SIZE, key=secret, person=b"flmq.nonce").digest()
