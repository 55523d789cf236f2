"""What is signed and sealed opens where it was sent, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.e2e.errors import Forged
from flmq.e2e.keys import Identity
from flmq.e2e.letters import LETTER_OVERHEAD, Heading, close_letter, open_letter
from flmq.e2e.primitives import Ed25519PrivateKey, framed, seal, sign

ALICE = Identity("alice", b"\1" * 32, b"\2" * 32)
BOB = Identity("bob", b"\3" * 32, b"\4" * 32)
HEADING = Heading("Task", "!server", "bob", "digits", "r1", "id-1", "id-0")


def closed(sealed: bool, message: bytes = b"train!", heading: Heading = HEADING) -> bytes:
    return close_letter(heading, message, ALICE.signer, BOB.public.sealer if sealed else None)


def opened(sealed: bool, letter: bytes, heading: Heading = HEADING) -> bytes:
    return open_letter(heading, letter, ALICE.public.verifier, BOB.opener if sealed else None)


@pytest.mark.parametrize("sealed", [True, False])
@given(message=st.binary(max_size=300))
def test_a_letter_opens_to_what_was_written(sealed: bool, message: bytes) -> None:
    letter = closed(sealed, message)
    assert opened(sealed, letter) == message
    assert len(letter) <= len(message) + LETTER_OVERHEAD
    assert len(message) < 9 or (message in letter) is not sealed


@pytest.mark.parametrize("sealed", [True, False])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(sealed: bool, data: st.DataObject) -> None:
    letter = bytearray(closed(sealed))
    at = data.draw(st.integers(0, len(letter) * 8 - 1))
    letter[at // 8] ^= 1 << at % 8
    with pytest.raises(Forged):
        opened(sealed, bytes(letter))


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("cut", [0, 1, 16, 40, 63, 64])
def test_a_cut_letter_is_refused(sealed: bool, cut: int) -> None:
    letter = closed(sealed)
    for part in (letter[:cut], letter[: len(letter) - 1], letter + b"\0", letter[1:]):
        with pytest.raises(Forged):
            opened(sealed, part)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("field", Heading.__dataclass_fields__)
def test_a_letter_of_another_heading_is_refused(sealed: bool, field: str) -> None:
    """Another kind, sender, recipient, job, run or AMQP id: it was not sent there."""
    with pytest.raises(Forged):
        opened(sealed, closed(sealed), replace(HEADING, **{field: "other"}))


def test_fields_of_a_heading_do_not_run_into_each_other() -> None:
    moved = replace(HEADING, sender="!serverb", recipient="ob")
    with pytest.raises(Forged):
        opened(False, closed(False), moved)


def test_another_recipient_and_another_signer_are_refused() -> None:
    with pytest.raises(Forged):
        open_letter(HEADING, closed(True), ALICE.public.verifier, ALICE.opener)
    with pytest.raises(Forged):
        open_letter(HEADING, closed(True), BOB.public.verifier, BOB.opener)


def test_a_signature_of_one_domain_is_worth_nothing_in_another() -> None:
    for domain in ("manifest", "public key", "seal"):
        letter = sign(ALICE.signer, HEADING.framed(domain, b"train!")) + b"train!"
        with pytest.raises(Forged):
            opened(False, letter)


def test_a_recipient_cannot_pass_a_letter_on() -> None:
    """Bob opens what alice signed for him, and seals it to carol: her name is not in it."""
    carol = Identity("carol", b"\5" * 32, b"\6" * 32)
    inner = sign(ALICE.signer, HEADING.framed("message", b"train!")) + b"train!"
    to_carol = replace(HEADING, recipient="carol")
    passed_on = seal(carol.public.sealer, inner, to_carol.framed("seal"))
    with pytest.raises(Forged):
        open_letter(to_carol, passed_on, ALICE.public.verifier, carol.opener)


def test_a_key_of_low_order_in_a_sealed_letter_is_refused() -> None:
    letter = bytes(32) + closed(True)[32:]
    with pytest.raises(Forged):
        opened(True, letter)


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_different_parts_have_different_bytes(one: list[bytes], other: list[bytes]) -> None:
    assert (framed("x", *one) == framed("x", *other)) is (one == other)


def test_signatures_are_those_of_rfc_8032() -> None:
    """Section 7.1, test 2."""
    key = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    assert sign(key, b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_seal_is_that_of_rfc_9180() -> None:
    """Opened by the RFC's own words: sections 4, 4.1, 5.1 and 5.2, in base mode."""
    heading = replace(HEADING, kind="Reply")
    sealed = seal(BOB.public.sealer, b"secret", heading.framed("seal"))
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"

    def extract(salt: bytes, of: bytes, label: bytes, key: bytes) -> bytes:
        return HKDF.extract(SHA256(), salt or None, b"HPKE-v1" + of + label + key)

    def expand(key: bytes, of: bytes, label: bytes, info: bytes, size: int) -> bytes:
        labelled = size.to_bytes(2, "big") + b"HPKE-v1" + of + label + info
        return HKDFExpand(SHA256(), size, labelled).derive(key)

    sent = sealed[:32]
    private = X25519PrivateKey.from_private_bytes(BOB.sealing)
    dh = private.exchange(X25519PublicKey.from_public_bytes(sent))
    eae = extract(b"", kem, b"eae_prk", dh)
    shared = expand(eae, kem, b"shared_secret", sent + BOB.public.sealing, 32)
    context = (
        b"\0"
        + extract(b"", suite, b"psk_id_hash", b"")
        + extract(b"", suite, b"info_hash", heading.framed("seal"))
    )
    secret = extract(shared, suite, b"secret", b"")
    key = expand(secret, suite, b"key", context, 32)
    nonce = expand(secret, suite, b"base_nonce", context, 12)
    assert AESGCM(key).decrypt(nonce, sealed[32:], b"") == b"secret"


def test_a_letter_of_today_opens_for_ever() -> None:
    """A vector: who changes what is signed, or how, breaks every peer."""
    letter = bytes.fromhex(
        "df459a61ebc165c2055a8781a356ceda9eabeb768f1aa8753c75b1971332c204308bd5218fd4"
        "e1e60360d4d46c2dd4500caf260aaf0156ce2058b612d2762a22c3656b082788bffc06090b8d"
        "2e47e86a5ecc93e639173dd0c7d6da3e63153f2781bba8c4ad1dc1705df619dd40cbec986a55"
        "8e8f6604"
    )
    assert opened(True, letter) == b"train!"
    assert closed(False).hex() == (
        "b3782a3386b3759c0d63b4f687d0922df6738b463c6fa15ebd7c9e06afb43d86146c3b306692"
        "aa58559130d5a2f27dc8854e92218174ca7498995ef0f49b300d747261696e21"
    )
