"""Gaussian noise that is a function of a secret and of what it is added to.

Whoever knows the secret can subtract the noise. The same secret and the same context give the same
bits, so a server that does a round again after a kill adds what it had added. Another context, such
as other replies in the round, gives noise that has nothing to do with the first: two models with
the same noise would differ by the clients' data alone.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

import numpy as np

from flmq.common.typing import NDArray

__all__ = ["SECRET_BYTES", "add_gaussian", "generator", "new_secret"]

SECRET_BYTES = 32
_BLOCK = 1 << 18
"""Numbers drawn at a time; the bits do not depend on it."""


def new_secret(seed: int | None = None) -> bytes:
    """Return a secret of 32 bytes: from ``seed``, or from the operating system's entropy."""
    if seed is None:
        return secrets.token_bytes(SECRET_BYTES)
    return blake2b(
        str(int(seed)).encode(), digest_size=SECRET_BYTES, person=b"flmq noise seed"
    ).digest()


def generator(secret: bytes, *context: object) -> np.random.Generator:
    """Return a generator of its own for ``context``: its key is a keyed hash of that."""
    text = repr(context).encode()
    key = blake2b(text, digest_size=16, key=secret, person=b"flmq noise").digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def add_gaussian(numbers: NDArray, stddev: float, source: np.random.Generator) -> None:
    """Add noise of this standard deviation to each of the float64 ``numbers``, in place."""
    if stddev == 0.0:
        return
    flat = numbers.reshape(-1)
    assert flat.size == 0 or np.shares_memory(flat, numbers), "a copy would be noised instead"
    for start in range(0, flat.size, _BLOCK):
        stretch = flat[start : start + _BLOCK]
        stretch += stddev * source.standard_normal(stretch.size)
