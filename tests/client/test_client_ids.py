"""Which clients a process serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.client.client_ids import InvalidClientIds, Share, client_ids_of, clients_of, some_of


def test_a_pattern_names_a_range_and_keeps_its_zeros() -> None:
    assert client_ids_of("a-{8..11}") == ["a-8", "a-9", "a-10", "a-11"]
    assert client_ids_of("{08..11}-b") == ["08-b", "09-b", "10-b", "11-b"]
    assert client_ids_of("a{0..0}") == ["a0"]


def test_a_number_of_clients_is_named_after_the_host_alike_each_time() -> None:
    ids = client_ids_of("12")
    assert ids == client_ids_of(12)
    assert len(set(ids)) == 12
    assert ids[:3] == client_ids_of(3)


def test_a_list_with_commas_is_no_file_however_long_it_is() -> None:
    """The system has names of 255 bytes."""
    with pytest.raises(InvalidClientIds, match=r"client-0,.*: there is no such file of client ids"):
        client_ids_of(",".join(f"client-{number}" for number in range(100)))


def test_a_file_names_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "ids"
    file.write_text("# ours\nb\n\n  a # the second\nc\n", encoding="utf-8")
    assert client_ids_of(str(file)) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a\nb\na\n", r"'a' is given twice \(.*, line 1; .*, line 3\)"),
        ("a\nb/c\n", r"line 2: client id 'b/c' is not usable"),
        ("# nobody\n", "names no client"),
        ("\udcff", "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    tmp_path: Path, text: str, why: str
) -> None:
    file = tmp_path / "ids"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidClientIds, match=why):
        client_ids_of(str(file))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("nothing-here", "no such file"),
        ("a-{1..", "is no pattern"),
        ("a-{1..2}-{3..4}", "is no pattern"),
        ("a-{3..2}", "must rise"),
        ("a-{0..10000000}", "must rise, by less"),
        ("a..{0..2}", r"client id 'a\.\.0' is not usable"),
        ("0", "0 clients"),
        (0, "0 clients"),
        ([], "empty"),
        (["a", "b", "a"], r"'a' is given twice \(number 1; number 3\)"),
        (["a", "b c"], "client id 2 of 2: client id 'b c' is not usable"),
    ],
)
def test_what_names_no_clients_is_refused(given: list[str] | str | int, why: str) -> None:
    with pytest.raises(InvalidClientIds, match=why):
        client_ids_of(given)


def test_each_client_has_its_place_among_all_whatever_its_share() -> None:
    ids = client_ids_of("c{0..9}")
    clients = clients_of(ids, {"gpu": True}, Share.parse("2/4"))
    assert clients == {
        f"c{place}": {"partition-id": place, "num-partitions": 10, "gpu": True}
        for place in (1, 5, 9)
    }
    assert clients_of(["x"], {"partition-id": 7})["x"]["partition-id"] == 7


def test_parts_of_shares_are_all_of_it() -> None:
    ids = client_ids_of("c{0..99}")
    parts = [Share(number, 3).part(inner, 4) for number in (1, 2, 3) for inner in (1, 2, 3, 4)]
    assert sorted(each for part in parts for each in clients_of(ids, {}, part)) == sorted(ids)
    assert {str(part) for part in parts} == {f"{number}/12" for number in range(1, 13)}


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "-1/4", "1/0"])
def test_a_share_is_a_part_of_a_whole(text: str) -> None:
    with pytest.raises(InvalidClientIds, match="write 1/4"):
        Share.parse(text)


def test_an_empty_share_is_refused() -> None:
    with pytest.raises(InvalidClientIds, match="share 3/3 of 2 clients is empty"):
        clients_of(["a", "b"], {}, Share(3, 3))


def test_few_are_named_and_many_counted() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(client_ids_of("c{0..99}")) == "100 clients (c0, c1, ... c99)"
