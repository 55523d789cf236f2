"""Ids made of what they name."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.phase import Phase
from flmq.wire.ids import derive_nonce, task_id

names = st.text("ab-", min_size=1, max_size=3)
PHASES = [
    Phase.FIT,
    Phase.EVALUATE,
    Phase.GET_PARAMETERS,
    Phase.GET_PROPERTIES,
    Phase.RECONNECT,
    Phase("mean_of_ages"),
]
tasks = st.tuples(names, st.integers(0, 300), st.sampled_from(PHASES), names)


class TestTaskId:
    def test_is_the_same_for_ever(self) -> None:
        # Journals and spools of earlier versions hold such ids.
        assert task_id("mnist", 1, Phase.FIT, "alice") == "c8342bcd5589600986869ff6442cedc2"

    def test_differs_by_each_part(self) -> None:
        ids = [
            task_id(job, server_round, phase, client)
            for job, server_round, phase, client in itertools.product(
                ("a", "ab", "b"), (0, 1, 256), PHASES, ("a", "ba", "b")
            )
        ]
        assert len(set(ids)) == len(ids) == 162

    @given(tasks, tasks)
    def test_is_equal_only_for_the_same_task(
        self, one: tuple[str, int, Phase, str], other: tuple[str, int, Phase, str]
    ) -> None:
        assert (task_id(*one) == task_id(*other)) == (one == other)

    @pytest.mark.parametrize("server_round", [-1, 2**64])
    def test_of_a_round_that_cannot_be_is_refused(self, server_round: int) -> None:
        with pytest.raises(OverflowError):
            task_id("a", server_round, Phase.FIT, "b")


class TestNonce:
    def test_is_the_same_for_ever(self) -> None:
        assert derive_nonce(b"secret", "t1").hex() == "c17b2a4d79b886d71b12f1d6f272ccac"

    def test_differs_by_secret_and_task(self) -> None:
        nonces = {derive_nonce(secret, task) for secret in (b"a", b"b") for task in ("a", "b")}
        assert len(nonces) == 4
        assert {len(nonce) for nonce in nonces} == {16}

    @pytest.mark.parametrize("secret", [b"", bytes(65)])
    def test_needs_a_secret_that_is_one(self, secret: bytes) -> None:
        with pytest.raises(ValueError, match="1 to 64 bytes"):
            derive_nonce(secret, "t1")
