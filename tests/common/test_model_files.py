"""Models in files: written, read back, read by other tools, and files that are no models."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from flmq.common import (
    NDArrays,
    Parameters,
    load_parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
    save_parameters,
)
from flmq.common.model_files import ModelNotWritable, UnreadableModelFile

ARRAYS: NDArrays = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(7),
    np.zeros((0, 3), np.float16),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([True, False]),
    np.arange(4, dtype=np.complex64),
    np.array([0.1, -0.0], ml_dtypes.bfloat16),
    np.array([0.1, 448], ml_dtypes.float8_e4m3fn),
]
NAMES = ("z.weight", "bn.num_batches_tracked", "a/b", "größe", "bn.mask", "fft", "bf16", "f8")
every_format = pytest.mark.parametrize("ending", [".npz", ".safetensors"])


@every_format
@pytest.mark.parametrize("names", [(), NAMES])
def test_a_model_comes_back_as_it_went(tmp_path: Path, ending: str, names: tuple[str, ...]) -> None:
    model, path = ndarrays_to_parameters(ARRAYS, names), tmp_path / f"model{ending}"
    save_parameters(model, path)
    got = load_parameters(path)
    assert got.names == names
    for ours, theirs in zip(parameters_to_ndarrays(got), ARRAYS, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours, theirs)
    assert list(tmp_path.iterdir()) == [path]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(max_examples=15)
@given(order=st.permutations(range(30)))
def test_tensors_keep_their_order(order: list[int], tmp_path_factory: Any) -> None:
    """Safetensors sorts tensors by dtype and name; a model's order is another."""
    path = tmp_path_factory.mktemp("order") / "model.safetensors"
    dtypes = (np.float64, np.int8, np.float16)
    arrays: NDArrays = [np.full(2, place, dtypes[place % 3]) for place in order]
    names = [f"layer{place}" for place in order]
    for model in (ndarrays_to_parameters(arrays, names), ndarrays_to_parameters(arrays)):
        save_parameters(model, path)
        assert load_parameters(path) == model


def test_other_tools_read_it(tmp_path: Path) -> None:
    model, path = ndarrays_to_parameters(ARRAYS, NAMES), tmp_path / "model.safetensors"
    save_parameters(model, path, {"flmq.job": "digits"})
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == set(NAMES)
        # Its reader for numpy has no float8; that for torch has.
        theirs = {name: file.get_tensor(name) for name in NAMES if name != "f8"}
    for name, array in zip(NAMES[:-1], ARRAYS, strict=False):
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array)
    with safe_open(path, framework="np") as file:
        assert file.metadata()["flmq.job"] == "digits"
    save_parameters(model, tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as zipped:
        assert list(zipped) == list(NAMES)
        np.testing.assert_array_equal(zipped["größe"], ARRAYS[3])


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez_compressed(path, *ARRAYS[:6])  # it loses the type of narrow floats
    assert load_parameters(path) == ndarrays_to_parameters(ARRAYS[:6])
    np.savez(path, weight=ARRAYS[0], bias=ARRAYS[1])
    assert load_parameters(path) == ndarrays_to_parameters(ARRAYS[:2], ["weight", "bias"])


def test_what_others_write_is_read_in_the_files_order(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"b": ARRAYS[0], "a": np.ones(2, np.float32)}, path)
    got = load_parameters(path)
    assert got.names == tuple(load_file(path))
    save_file({"b": ARRAYS[0]}, path, metadata={"flmq.tensors": "no list"})
    assert load_parameters(path).names == ("b",)


def test_a_big_endian_tensor_is_turned_around(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_parameters(ndarrays_to_parameters([np.arange(3, dtype=">f8")]), path)
    np.testing.assert_array_equal(load_file(path)["tensor_0"], np.arange(3.0))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ndarrays_to_parameters([np.ones(2, complex)], ["w"]), "tensor w is complex128"),
        (ndarrays_to_parameters([np.ones(2)], ["__metadata__"]), "tensor __metadata__ is"),
        (Parameters([b"tree"], "xgboost"), "its tensors are of type 'xgboost'"),
    ],
)
def test_what_safetensors_has_no_place_for(tmp_path: Path, model: Parameters, words: str) -> None:
    with pytest.raises(ModelNotWritable, match=words):
        save_parameters(model, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
    save_parameters(model, tmp_path / "model.npz")  # numpy has


def test_tensors_of_another_type_are_bytes_in_an_npz(tmp_path: Path) -> None:
    save_parameters(Parameters([b"tree"], "xgboost"), tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        assert file["arr_0"].tobytes() == b"tree"


@every_format
def test_no_model_is_an_error_of_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    save_parameters(ndarrays_to_parameters(ARRAYS, NAMES), path)
    whole = path.read_bytes()
    header = json.dumps({"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    wrong = [b"", b"\x80\x04.", whole[:-9], whole[: len(whole) // 2], b"PK\x05\x06" + b"\0" * 18]
    wrong += [(2**62).to_bytes(8, "little") + b"{}", len(header).to_bytes(8, "little") + header]
    for data in wrong:
        path.write_bytes(data)
        if data.startswith(b"PK\x05\x06") and ending == ".npz":
            assert load_parameters(path).tensors == []  # an empty archive
            continue
        with pytest.raises(UnreadableModelFile) as caught:
            load_parameters(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@every_format
@settings(max_examples=50)
@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_file_raises_nothing_else(
    tmp_path_factory: Any, ending: str, place: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"model{ending}"
    save_parameters(ndarrays_to_parameters(ARRAYS[:2], NAMES[:2]), path)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    with contextlib.suppress(UnreadableModelFile):
        load_parameters(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, np.array([{}], object))
    with pytest.raises(UnreadableModelFile, match=r"tensor 0: not a \.npy header of"):
        load_parameters(path)


def test_hostile_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\x1b[2J.npy", ndarrays_to_parameters([np.ones(1)]).tensors[0])
    with pytest.raises(UnreadableModelFile, match="printable"):
        load_parameters(path)


@pytest.mark.parametrize("name", ["none.npz", "none.safetensors", "model.pt", "folder.npz"])
def test_there_is_no_such_file_or_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UnreadableModelFile):
        load_parameters(tmp_path / name)
    with pytest.raises(ModelNotWritable, match=r"give a file that ends in \.npz or \.safetensors"):
        save_parameters(ndarrays_to_parameters([]), tmp_path / "model.pt")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"x")
    data = path.read_bytes()
    entry = data.rindex(b"PK\x01\x02")  # the central directory; there, the size at 24
    path.write_bytes(data[: entry + 24] + b"\xfe\xff\xff\xff" + data[entry + 28 :])
    few = "flmq.common.model_files.available_memory"
    said = pytest.raises(UnreadableModelFile, match="4294967294")
    with mock.patch(few, return_value=1 << 30), said:
        load_parameters(path)
