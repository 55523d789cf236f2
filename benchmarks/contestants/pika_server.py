"""Bare pika moving a round's bytes: the model out to every client, and back from each.

No training, no aggregation, no checks: the floor. The model is published once a round in 1 MiB
chunks, persistent and confirmed, through a fanout exchange to a durable classic queue a client; the
clients publish theirs the same way to one durable queue. Only ``--tuned`` is not pika as it comes.
"""

from __future__ import annotations

import argparse
import os

import pika

from benchmarks.contestants.pika_client import (
    CHUNK,
    PERSISTENT,
    chunk_sizes,
    models,
    replies,
    tune,
)
from benchmarks.contestants.stage import Stage, address

_PREFETCH = 32


class Floor:
    """The server's ends of the exchange and the queues."""

    def __init__(self, prefix: str, clients: int, model_bytes: int) -> None:
        """Declare everything, and open both channels."""
        parameters = pika.URLParameters(address())
        # It waits for its turn without a word; the broker would take it for dead.
        parameters.heartbeat = 0
        connection = pika.BlockingConnection(parameters)
        self._sizes = chunk_sizes(model_bytes)
        self._body = os.urandom(min(CHUNK, model_bytes))
        self._out, self._back = connection.channel(), connection.channel()
        self._models, back = models(prefix), replies(prefix)
        self._out.exchange_declare(self._models, "fanout", durable=True)
        copies = [f"{self._models}.{number}" for number in range(clients)]
        self._queues = [*copies, back]
        for queue in self._queues:
            self._out.queue_declare(queue, durable=True)
        for queue in copies:
            self._out.queue_bind(queue, self._models)
        self._out.confirm_delivery()
        self._back.basic_qos(prefetch_count=_PREFETCH)
        self._back.basic_consume(back, self._receive)
        self._missing = 0

    def publish(self) -> None:
        """Send the model once; returns when all of it is confirmed."""
        for size in self._sizes:
            body = self._body if size == len(self._body) else self._body[:size]
            self._out.basic_publish(self._models, "", body, PERSISTENT)

    def gather(self, num_bytes: int) -> None:
        """Consume ``num_bytes`` of replies, and acknowledge each message."""
        self._missing = num_bytes
        while self._missing > 0:
            self._back.connection.process_data_events(None)

    def clear(self) -> None:
        """Delete everything from the broker."""
        for queue in self._queues:
            self._out.queue_delete(queue)
        self._out.exchange_delete(self._models)

    def _receive(
        self,
        channel: pika.channel.Channel,
        method: pika.spec.Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        self._missing -= len(body)
        channel.basic_ack(method.delivery_tag)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--model-bytes", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--tuned", action="store_true")
    options = parser.parse_args()
    if options.tuned:
        tune()
    stage = Stage()
    floor = Floor(options.prefix, options.clients, options.model_bytes)
    try:
        stage.up()
        # Each client sends one byte when it is there.
        floor.gather(options.clients)
        for _ in range(options.rounds):
            stage.begin()
            floor.publish()
            floor.gather(options.clients * options.model_bytes)
            stage.end(answers=options.clients)
    finally:
        floor.clear()


if __name__ == "__main__":
    main()
