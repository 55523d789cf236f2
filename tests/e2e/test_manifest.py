"""Manifests: only the pinned authority's count, in their time, and unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.e2e.errors import Forged, ManifestExpired, Mismatch, UnknownKey
from flmq.e2e.keys import Identity, roster_digest
from flmq.e2e.manifest import LIFETIME, SKEW, Manifest, Session
from flmq.e2e.names import MAX_MANIFEST_BYTES
from flmq.e2e.primitives import framed, sign

AUTHORITY = Identity("hospital", b"\1" * 32, b"\2" * 32)
SESSION = Session(b"\3" * 32, b"\4" * 32, b"\5" * 32)
ROSTER = roster_digest([Identity("alice", b"\6" * 32, b"\7" * 32).public])
NOW = 1_800_000_000.0
MANIFEST = Manifest.issue(AUTHORITY, "digits", "r1", SESSION, ROSTER, NOW)


def test_a_manifest_says_what_was_signed() -> None:
    read = Manifest.read(MANIFEST.encoded, [AUTHORITY.public])
    assert read == MANIFEST
    assert (read.job, read.run, read.authority, read.roster) == ("digits", "r1", "hospital", ROSTER)
    assert read.signing == SESSION.signer.public_key().public_bytes_raw()
    assert len(read.encoded) < 400


@given(st.integers(0, len(MANIFEST.encoded) * 8 - 1))
def test_a_flipped_bit_is_refused(at: int) -> None:
    changed = bytearray(MANIFEST.encoded)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises((Forged, UnknownKey)):
        Manifest.read(bytes(changed), [AUTHORITY.public])


@given(st.binary(max_size=400))
def test_anything_else_is_refused(garbage: bytes) -> None:
    for encoded in (garbage, MANIFEST.encoded[: len(garbage)], MANIFEST.encoded + garbage + b"\0"):
        with pytest.raises(Forged):
            Manifest.read(encoded, [AUTHORITY.public])


def test_a_large_manifest_is_not_even_read() -> None:
    with pytest.raises(Forged, match=str(MAX_MANIFEST_BYTES)):
        Manifest.read(MANIFEST.encoded + bytes(1 << 20), [AUTHORITY.public])


def test_an_authority_that_is_not_pinned_is_named() -> None:
    with pytest.raises(UnknownKey, match=r"'hospital'.*--server-key") as caught:
        Manifest.read(MANIFEST.encoded, [Identity.new("clinic").public])
    assert caught.value.subject == "digits"
    with pytest.raises(Forged):
        Manifest.read(MANIFEST.encoded, [Identity.new("hospital").public])


def test_a_key_signs_no_manifest_by_signing_something_else() -> None:
    body = MANIFEST.encoded[64:].replace(b"flmq e2e 1 manifest", b"flmq e2e 1 mani_est")
    with pytest.raises(Forged):
        Manifest.read(sign(AUTHORITY.signer, body) + body, [AUTHORITY.public])


def test_a_manifest_with_a_sealing_key_without_a_secret_is_refused() -> None:
    times = (1).to_bytes(8, "big"), (2).to_bytes(8, "big")
    body = framed(
        "manifest", "digits", "r1", "hospital", MANIFEST.signing, bytes(32), ROSTER, *times
    )
    with pytest.raises(Forged, match="seal"):
        Manifest.read(sign(AUTHORITY.signer, body) + body, [AUTHORITY.public])


def test_its_time() -> None:
    for now in (NOW - SKEW, NOW, NOW + LIFETIME + SKEW - 1):
        MANIFEST.check(now)
    for now, word in ((NOW - SKEW - 1, "clocks"), (NOW + LIFETIME + SKEW + 1, "started again")):
        with pytest.raises(ManifestExpired, match=word) as caught:
            MANIFEST.check(now)
        assert isinstance(caught.value, Mismatch)


def test_a_session_shows_none_of_its_secrets_and_each_has_model_keys_of_its_own() -> None:
    assert SESSION.model_key("ab" * 32, 1 << 20) != Session.new().model_key("ab" * 32, 1 << 20)
    assert repr(SESSION) == "Session()"
