"""End-to-end protection: keys, signatures, sealing, and encrypted chunks; no socket and no clock.

A broker stores and forwards what it cannot read, and cannot change unnoticed. Every client and
every job's server has an `identity <flmq.e2e.keys.Identity>`: a key to sign with and a key to be
sealed to. A server signs a `manifest <flmq.e2e.manifest.Manifest>` for its job with it: the keys of
the job's *session*, which sign and open from then on. Models and large replies travel in
`chunks <flmq.e2e.chunks.ChunkCipher>` under keys that are sealed with the message that names them.

Nothing here is of our own making but the framing: Ed25519 (RFC 8032), HPKE in base mode with
X25519, HKDF-SHA256 and AES-256-GCM (RFC 9180), HKDF (RFC 5869), and AES-256-GCM in numbered chunks,
as STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) numbers them. All of it is from the package
`cryptography`, the extra ``flmq[secure]``; only `flmq.e2e.errors` and `flmq.e2e.names` can be
imported without it.
"""

from __future__ import annotations

__all__: list[str] = []
