"""Bare pika at the client's end: takes the whole model from its queue, publishes it back."""

from __future__ import annotations

import argparse

import pika

from benchmarks.contestants.stage import address, end_with_parent

__all__ = ["CHUNK", "PERSISTENT", "chunk_sizes", "models", "replies", "tune"]

CHUNK = 1 << 20
PERSISTENT = pika.BasicProperties(delivery_mode=2)
_PREFETCH = 32


def models(prefix: str) -> str:
    """Return the name of the exchange for models; a client's queue has its name after that."""
    return f"{prefix}.models"


def replies(prefix: str) -> str:
    """Return the name of the queue for what comes back."""
    return f"{prefix}.replies"


def chunk_sizes(num_bytes: int) -> list[int]:
    """Return the sizes of the messages that ``num_bytes`` are cut into."""
    whole, rest = divmod(num_bytes, CHUNK)
    return [CHUNK] * whole + [rest] * (rest > 0)


def tune() -> None:
    """Have pika receive as in flmq's transport (see `flmq.transport.rabbitmq.tuning`)."""
    from flmq.transport.rabbitmq import tuning

    if not tuning.tune():
        raise SystemExit("this pika has no receive size to raise")


def serve(prefix: str, name: str, model_bytes: int) -> None:
    """Answer every round with the model, until the broker or the harness ends this."""
    connection = pika.BlockingConnection(pika.URLParameters(address()))
    back = connection.channel()
    back.confirm_delivery()
    inwards = connection.channel()
    inwards.basic_qos(prefetch_count=_PREFETCH)
    back.basic_publish("", replies(prefix), b"!", PERSISTENT)
    chunks: list[bytes] = []
    missing = model_bytes
    for method, _, body in inwards.consume(f"{models(prefix)}.{name}"):
        chunks.append(body)
        missing -= len(body)
        inwards.basic_ack(method.delivery_tag)
        if missing == 0:
            for chunk in chunks:
                back.basic_publish("", replies(prefix), chunk, PERSISTENT)
            chunks, missing = [], model_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model-bytes", type=int, required=True)
    parser.add_argument("--tuned", action="store_true")
    options = parser.parse_args()
    end_with_parent()
    if options.tuned:
        tune()
    serve(options.prefix, options.name, options.model_bytes)


if __name__ == "__main__":
    main()
