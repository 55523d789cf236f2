"""Running out of descriptors or memory is told as that, and condemns no file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flmq.common.errors import RunError
from flmq.common.exhausted import SystemExhausted, cause_of, unless_exhausted

PATH = Path("model.blob")


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOMEM, "vm.max_map_count"),
    ],
)
def test_what_ran_out_is_named_with_what_to_do(code: int, advice: str) -> None:
    with pytest.raises(SystemExhausted) as info, unless_exhausted(PATH):
        raise OSError(code, os.strerror(code))
    assert isinstance(info.value, RunError)
    assert (info.value.path, info.value.errno) == (PATH, code)
    for said in ("model.blob", os.strerror(code), advice, "Nothing is wrong with the file"):
        assert said in str(info.value)


def test_what_is_about_the_file_passes() -> None:
    with pytest.raises(FileNotFoundError), unless_exhausted(PATH):
        PATH.with_name("not here").read_bytes()
    assert cause_of(OSError(errno.EIO, "Input/output error")) == "Input/output error"
