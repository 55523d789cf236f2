"""The list of clients that may take part."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.server.presence.allow_list import InvalidAllowList, read_allow_list


def test_has_one_id_a_line_and_remarks(tmp_path: Path) -> None:
    file = tmp_path / "clients"
    file.write_text("# the hospitals\nalice\n\n  bob  # since May\r\nalice\n")
    assert read_allow_list(file) == {"alice", "bob"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "names no client"),
        (b"# nobody yet\n", "names no client"),
        (b"alice\nb..ob\n", "line 2: .*b..ob"),
        (b"alice, bob\n", "line 1: "),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_what_is_no_such_list_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "clients"
    file.write_bytes(content)
    with pytest.raises(InvalidAllowList, match=why):
        read_allow_list(file)


def test_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAllowList, match="cannot be read"):
        read_allow_list(tmp_path / "nowhere")
