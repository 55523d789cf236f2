"""A new model in a file of its own: the same as in memory, gone with the last reference."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import Parameters, ndarray_to_bytes, parameters_to_ndarrays
from flmq.common.parameter import named_like
from flmq.wire import FileParameters, each_tensor, kept_parameters, refer

TENSORS = [ndarray_to_bytes(np.arange(n, dtype=np.float32)) for n in (5, 0, 300, 2)]
IN_MEMORY = Parameters(TENSORS, "numpy.ndarray")


def test_a_small_model_stays_in_memory() -> None:
    kept = kept_parameters(iter(TENSORS))
    assert type(kept) is Parameters
    assert kept == IN_MEMORY


@pytest.mark.parametrize("large", [0, 200, 1500])
def test_a_large_one_is_the_same_in_a_file(large: int) -> None:
    kept = kept_parameters(iter(TENSORS), large)
    assert isinstance(kept, FileParameters)
    assert kept == IN_MEMORY
    assert kept.ref == refer(IN_MEMORY) == refer(kept)
    assert [bytes(tensor) for tensor in each_tensor(kept)] == TENSORS
    assert pickle.loads(pickle.dumps(kept)) == IN_MEMORY
    assert kept.path.stat().st_mode & 0o077 == 0


def test_the_file_goes_with_the_last_reference_and_views_stay() -> None:
    kept = kept_parameters(iter(TENSORS), 1)
    assert isinstance(kept, FileParameters)
    path = kept.path
    named = named_like(kept, Parameters([b""] * 4, "", tuple("abcd")))
    assert isinstance(named, FileParameters)
    del kept
    gc.collect()
    assert path.exists()
    assert (named.names, named.ref.names) == (tuple("abcd"), tuple("abcd"))
    arrays = parameters_to_ndarrays(named, copy=False)
    del named
    gc.collect()
    assert not path.exists()
    assert arrays[2].sum() == np.arange(300).sum()


@pytest.mark.parametrize("writes", range(6))
def test_a_disk_that_is_full_is_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writes: int, caplog: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    real, left = os.fdopen, [writes]

    def failing(*arguments: Any, **named: Any) -> Any:
        file: Any = real(*arguments, **named)

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def write(self, data: memoryview) -> int:
                if not left[0]:
                    raise OSError(28, "No space left on device")
                left[0] -= 1
                return int(file.write(data[: max(1, len(data) // 2)]))

        return Full()

    monkeypatch.setattr(os, "fdopen", failing)
    kept = kept_parameters(iter(TENSORS), 1000)
    assert kept == IN_MEMORY
    assert type(kept) is Parameters
    assert "kept in memory" in caplog.text
    gc.collect()
    assert list(tmp_path.iterdir()) == []
