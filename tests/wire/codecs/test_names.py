"""Codecs by name, and what is said when there is none."""

from __future__ import annotations

import sys

import pytest

from flmq.common.errors import MalformedMessage, UsageError
from flmq.wire.codecs import CODECS, CodecUnavailable, UnknownCodec, get_codec


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_knows_its_name(name: str) -> None:
    assert get_codec(name).name == name


def test_which_are_lossless() -> None:
    assert [name for name in CODECS if get_codec(name).lossless] == ["none", "zstd"]


@pytest.mark.parametrize("name", ["", "gzip", "ZSTD", "x" * 500])
def test_an_unknown_name(name: str) -> None:
    with pytest.raises(UnknownCodec, match="choose one of none, zstd, fp16, bf16, int8") as caught:
        get_codec(name)
    assert isinstance(caught.value, UsageError)
    assert caught.value.name == name
    assert caught.value.known == CODECS
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", CODECS[1:])
def test_a_missing_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(CodecUnavailable, match=r"pip install 'flmq\[compression\]'") as caught:
        get_codec(name)
    assert isinstance(caught.value, UsageError)
    assert (caught.value.name, caught.value.library) == (name, "zstandard")


def test_none_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert get_codec("none").encode([b"as it is"]) == [b"as it is"]


def test_none_copies_nothing_and_bounds_what_it_takes() -> None:
    codec, tensor = get_codec("none"), b"1234"
    assert codec.encode([tensor])[0] is tensor
    assert codec.decode([tensor], max_bytes=4)[0] is tensor
    with pytest.raises(MalformedMessage, match="8 bytes, 7 are allowed"):
        codec.decode([tensor, tensor], max_bytes=7)
