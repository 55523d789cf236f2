"""How fast chunks are encrypted and decrypted, on one core: `python -m benchmarks.chunks`."""

from __future__ import annotations

import time
from dataclasses import replace

from flmq.common.typing import Parameters
from flmq.wire import BlobProgress, iter_chunks, refer

MIB = 64
RUNS = 5


def seconds_of(key: bytes) -> tuple[float, float]:
    """CPU seconds to cut a blob of `MIB` MiB into chunks, and to put it together again."""
    tensors = [bytes(MIB << 20)]
    ref = replace(refer(Parameters(tensors, "x")), key=key)
    begun = time.process_time()
    for _ in iter_chunks(ref, tensors):
        pass  # let go of at once, as when it is sent
    cut = time.process_time()
    chunks = list(iter_chunks(ref, tensors))
    blob, progress = bytearray(b"\1") * ref.total, BlobProgress(ref)
    ready = time.process_time()
    for index, data in chunks:
        progress.take(index, data, memoryview(blob))
    progress.finish(blob)
    return cut - begun, time.process_time() - ready


def main() -> None:
    """Print GB/s, each the best of some runs, with and without a key, in turns."""
    turns = [(key, *seconds_of(key)) for _ in range(RUNS) for key in (b"", b"k" * 32)]
    for key, name in ((b"", "plain"), (b"k" * 32, "encrypted")):
        cut = min(cut for used, cut, _ in turns if used == key)
        taken = min(taken for used, _, taken in turns if used == key)
        sent = "a view" if cut < 1e-3 else f"{MIB / 1024 * 1.073741824 / cut:.2f} GB/s"
        print(
            f"{name}: cut {sent}, taken {MIB / 1024 * 1.073741824 / taken:.2f} GB/s (with BLAKE3)"
        )


if __name__ == "__main__":
    main()
