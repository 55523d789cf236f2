"""Numbers, texts and bytes at the edges of what types can hold, and changes of any bytes."""

from __future__ import annotations

import math
import random
import struct

__all__ = ["BYTES", "DOUBLES", "INTEGERS", "TEXTS", "mutated_bytes", "mutated_text"]

INTEGERS = (
    *(0, 1, 2, 7, 8, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 100_000, 10**6),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
    *(2**64, 2**69, 60 << 30, 4_102_444_800_001, 253_402_300_800_000),
)
DOUBLES = (
    *(0.0, -0.0, 1.0, -1.0, 0.1, 1e-9, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308),
    *(1e300, -1e300, 9e9, 9.1e9, 2**53 + 0.0, math.nan, math.inf, -math.inf),
)
TEXTS = (
    *(b"", b" ", b"\0", b"\n", b"a" * 65, b"a" * 255, b"a" * 256, b"b" * 100_000, b"!all", b"!eu"),
    *(b"..", b"../../etc/passwd", b"a/b", b"*", b"#", b".a", b"a.", b"a..b", b"\xff\xfe", b"\xc0"),
    *(b"\xed\xa0\x80", b"\x1b[2J\x1b[31m", b"%s%n", b"{0}", b"nan", b"numpy.ndarray", b"int8"),
    *("\u202eevil".encode(), "\uff41lice".encode(), "😀".encode() * 50, b"a" * 64, b"A" * 64),
)
BYTES = (
    b"",
    b"\0",
    b"\xff" * 8,
    b"\x80\x04}.",
    b"\x93NUMPY",
    b"PK\x03\x04",
    b"(\xb5/\xfd",
    bytes(64),
)


_NUMBERS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return ``data`` cut, lengthened, overwritten, repeated, or with some bits the other way."""
    place = rng.randrange(len(data) + 1)
    match rng.randrange(8):
        case 0:
            return data[:place]
        case 1:
            return data[place:]
        case 2:
            return data + rng.randbytes(rng.choice((1, 4, 40)))
        case 3:
            return data[:place] + rng.choice(BYTES) + data[place:]
        case 4:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(INTEGERS) & ((1 << (8 * size)) - 1)
            packed = struct.pack(f"{rng.choice('<>')}{_NUMBERS[size]}", number)
            return data[:place] + packed + data[place + size :]
        case 5:
            end = rng.randrange(place, len(data) + 1)
            return data[:place] + data[place:end] * rng.choice((2, 3)) + data[end:]
        case 6:
            end = rng.randrange(place, len(data) + 1)
            return data[:place] + data[end:]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutated_text(rng: random.Random, text: bytes) -> bytes:
    """Return a text with a number, a word or a bracket of it changed; or as any bytes."""
    way = rng.random()
    if way < 0.5:
        return mutated_bytes(rng, text)
    place = rng.randrange(len(text) + 1)
    end = min(len(text), place + rng.choice((0, 1, 4, 12)))
    if way < 0.65:
        put = str(rng.choice((*INTEGERS, *DOUBLES, -1))).encode()
    elif way < 0.85:
        put = rng.choice((b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b"null", b"true", b"\\"))
        put *= rng.choice((1, 1, 2, 5000))
    else:
        put = rng.choice(TEXTS)
    return text[:place] + put + text[end:]
