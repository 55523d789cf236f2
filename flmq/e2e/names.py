"""Names and sizes of the end-to-end layer that the wire needs, whether or not keys are used."""

from __future__ import annotations

__all__ = [
    "CHUNK_OVERHEAD",
    "EVERYBODY",
    "KEY_BYTES",
    "MAX_MANIFEST_BYTES",
    "SERVER",
    "SIGNATURE_BYTES",
]

SERVER = "!server"
"""The sender or recipient that is a job's server; no client id begins with ``!``."""
EVERYBODY = "!all"
"""The recipient of what is signed and not sealed, as anybody may read it."""
KEY_BYTES = 32
"""Size of each key, and of a content key."""
CHUNK_OVERHEAD = 16
"""Bytes by which an encrypted chunk is longer: the tag of AES-GCM."""
SIGNATURE_BYTES = 64
"""Bytes of a signature, with which what is signed and not sealed begins."""
MAX_MANIFEST_BYTES = 1024
"""Bytes of an encoded manifest; it has some 300."""
