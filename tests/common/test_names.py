"""Names of clients and jobs: usable ones pass, and those we make are usable."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import FlmqError, InvalidClientId, InvalidJobName
from flmq.common.names import (
    MAX_NAME_LENGTH,
    check_client_id,
    check_job_name,
    make_client_id,
    make_job_name,
)

both = pytest.mark.parametrize(
    ("check", "error"), [(check_client_id, InvalidClientId), (check_job_name, InvalidJobName)]
)


class TestChecks:
    @both
    @pytest.mark.parametrize("name", ["a", "Z", "0", "_", "-", "site-1_Alice", "x" * 64])
    def test_usable_names_are_returned(
        self, check: Callable[[str], str], error: type[FlmqError], name: str
    ) -> None:
        assert check(name) == name

    @both
    @pytest.mark.parametrize(
        "name",
        [
            *("a..b", ".a", "a.", ".", ".."),
            *("", "x" * 65, "a b", "a/b", "a#", "*", "a\n", "\n", "é", "a\x00", "٣", "!all"),
            *(None, 3, b"a"),
        ],
    )
    def test_others_are_refused_with_what_is_allowed(
        self, check: Callable[[Any], str], error: type[FlmqError], name: Any
    ) -> None:
        with pytest.raises(error, match="choose 1 to 64 characters"):
            check(name)

    @pytest.mark.parametrize(
        "client_id", ["lab7.example.org", "a.b", "-._", f"{'x' * 31}.{'y' * 32}"]
    )
    def test_client_ids_may_be_host_names(self, client_id: str) -> None:
        assert check_client_id(client_id) == client_id
        with pytest.raises(InvalidJobName):
            check_job_name(client_id)

    @given(st.text("aZ0_-./\\~ ", max_size=8))
    def test_a_client_id_that_passes_is_a_folder_of_its_own(self, text: str) -> None:
        root = Path("/state")
        try:
            check_client_id(text)
        except InvalidClientId:
            return
        assert os.path.normpath(root / text) == f"/state/{text}"
        assert (root / text).parent == root


class TestMakeClientId:
    def test_is_of_host_and_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: "lab-7")
        assert make_client_id().startswith(f"lab-7-{os.getpid()}-")

    def test_differs_each_time(self) -> None:
        assert len({make_client_id() for _ in range(50)}) == 50

    @pytest.mark.parametrize(
        ("host", "begin"),
        [
            ("lab.example.org", "lab-example-org-"),
            ("x" * 300, "x" * 20),
            ("", "host-"),
            ("...", "host-"),
            ("böse", "b-se-"),
        ],
    )
    def test_is_usable_whatever_the_host_is_called(
        self, monkeypatch: pytest.MonkeyPatch, host: str, begin: str
    ) -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        made = make_client_id()
        assert check_client_id(made).startswith(begin)
        assert made.split("-")[-2] == str(os.getpid())
        assert len(made) <= MAX_NAME_LENGTH


class TestMakeJobName:
    def test_is_date_time_and_two_words(self) -> None:
        made = make_job_name(datetime(2031, 2, 3, 4, 5, 6), random.Random(1))
        date, time, adjective, noun = made.split("-")
        assert (date, time) == ("20310203", "040506")
        assert adjective.isalpha()
        assert noun.isalpha()

    def test_is_usable_whichever_words(self) -> None:
        rng = random.Random(1)
        now = datetime(2031, 2, 3)
        names = {check_job_name(make_job_name(now, rng)) for _ in range(1000)}
        # The words alone tell most apart: 1000 draws out of some 4000 pairs.
        assert len(names) > 800

    def test_needs_nothing(self) -> None:
        made = make_job_name()
        assert check_job_name(made) == made
