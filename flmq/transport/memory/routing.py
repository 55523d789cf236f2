"""To which queues a message is routed: exchanges and bindings as AMQP 0-9-1 defines them.

Direct, fanout and topic exchanges, exchange-to-exchange bindings (RabbitMQ) and the default
exchange. The route of an (exchange, routing key) is cached until a binding changes.
"""

from __future__ import annotations

from functools import lru_cache

from flmq.common.errors import BrokerAccessRefused, BrokerRefusal
from flmq.transport.topology import Binding, Exchange, ExchangeType

__all__ = ["Router", "topic_matches"]

_CACHE_LIMIT = 65536


class Router:
    """Exchanges and bindings of one virtual host. Not thread-safe: the broker locks."""

    def __init__(self) -> None:
        """Start with the default exchange only."""
        self._exchanges: dict[str, ExchangeType] = {}
        self._internal: set[str] = set()
        self._bindings: dict[str, dict[str, dict[Binding, int]]] = {}
        """Source exchange -> routing key -> bindings, with the number of each in order."""
        self._patterns: dict[str, dict[str, None]] = {}
        """Source exchange -> its routing keys with wildcards: all that need to be tried."""
        self._made = 0
        self._by_queue: dict[str, dict[Binding, None]] = {}
        self._queues: set[str] = set()
        self._cache: dict[tuple[str, str], tuple[str, ...]] = {}

    def declare(self, exchange: Exchange) -> None:
        """Add an exchange, or check that the existing one is of the same type."""
        if exchange.internal and exchange.name not in self._exchanges:
            self._internal.add(exchange.name)
        there = self._exchanges.setdefault(exchange.name, exchange.type)
        if exchange.internal is not (exchange.name in self._internal):
            raise BrokerRefusal(
                f"exchange {exchange.name!r} exists, and may {'' if exchange.internal else 'not '}"
                "be published to: delete it, or use another virtual host"
            )
        if there is not exchange.type:
            raise BrokerRefusal(
                f"exchange {exchange.name!r} exists and is of type {there.value}, not "
                f"{exchange.type.value}: delete it, or use another virtual host"
            )
        self._bindings.setdefault(exchange.name, {})
        self._patterns.setdefault(exchange.name, {})

    def has_exchange(self, name: str) -> bool:
        """Return whether an exchange was declared."""
        return name in self._exchanges

    def add_queue(self, name: str) -> None:
        """Make a queue known to the default exchange."""
        self._queues.add(name)
        self._cache.pop(("", name), None)

    def remove_queue(self, name: str) -> None:
        """Forget a queue and its bindings."""
        self._queues.discard(name)
        for binding in self._by_queue.pop(name, {}):
            by_key = self._bindings[binding.source]
            del by_key[binding.routing_key][binding]
            if not by_key[binding.routing_key]:
                del by_key[binding.routing_key]
                self._patterns[binding.source].pop(binding.routing_key, None)
        self._cache.clear()

    def bind(self, binding: Binding) -> None:
        """Add a binding; repeating it is no error."""
        known = self._exchanges if binding.to_exchange else self._queues
        if binding.source not in self._exchanges:
            raise no_exchange(binding.source)
        if binding.destination not in known:
            kind = "exchange" if binding.to_exchange else "queue"
            raise BrokerRefusal(f"no {kind} {binding.destination!r} to bind: declare it first")
        bindings = self._bindings[binding.source].setdefault(binding.routing_key, {})
        if binding in bindings:
            return
        self._made += 1
        bindings[binding] = self._made
        if _has_wildcards(binding.routing_key):
            self._patterns[binding.source][binding.routing_key] = None
        if not binding.to_exchange:
            self._by_queue.setdefault(binding.destination, {})[binding] = None
        self._cache.clear()

    def route(self, exchange: str, routing_key: str) -> tuple[str, ...]:
        """Return the queues, each once, in the order of their bindings."""
        way = self._cache.get((exchange, routing_key))
        if way is None:
            way = self._find(exchange, routing_key)
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            self._cache[exchange, routing_key] = way
        return way

    def _find(self, exchange: str, routing_key: str) -> tuple[str, ...]:
        if exchange == "":
            return (routing_key,) if routing_key in self._queues else ()
        if exchange not in self._exchanges:
            raise no_exchange(exchange)
        if exchange in self._internal:
            raise BrokerAccessRefused(f"nobody may publish to the internal exchange {exchange!r}")
        queues: dict[str, None] = {}
        seen: set[str] = set()
        ahead = [exchange]
        while ahead:
            source = ahead.pop()
            if source in seen:
                continue
            seen.add(source)
            for binding in self._matching(source, routing_key):
                if binding.to_exchange:
                    ahead.append(binding.destination)
                else:
                    queues[binding.destination] = None
        return tuple(queues)

    def _matching(self, source: str, routing_key: str) -> list[Binding]:
        by_key = self._bindings[source]
        match self._exchanges[source]:
            case ExchangeType.DIRECT:
                return list(by_key.get(routing_key, ()))
            case ExchangeType.FANOUT:
                return [binding for bindings in by_key.values() for binding in bindings]
            case ExchangeType.TOPIC:
                return self._of_topic(source, routing_key)

    def _of_topic(self, source: str, routing_key: str) -> list[Binding]:
        """Look a key without wildcards up, however many there are, and try the others."""
        by_key = self._bindings[source]
        matching = {} if _has_wildcards(routing_key) else dict(by_key.get(routing_key, {}))
        for pattern in self._patterns[source]:
            if topic_matches(pattern, routing_key):
                matching |= by_key[pattern]
        return sorted(matching, key=matching.__getitem__)


def _has_wildcards(pattern: str) -> bool:
    return "*" in pattern or "#" in pattern


def no_exchange(name: str) -> BrokerRefusal:
    """Return the error for an exchange that does not exist."""
    return BrokerRefusal(f"no exchange {name!r}: declare the topology before publishing to it")


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Return whether a topic binding matches: ``*`` is one word, ``#`` any number of words."""
    words = tuple(routing_key.split(".")) if routing_key else ()
    return _match(tuple(pattern.split(".")) if pattern else (), words)


@lru_cache(maxsize=4096)
def _match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return _match(rest, words) or (bool(words) and _match(pattern, words[1:]))
    return bool(words) and first in ("*", words[0]) and _match(rest, words[1:])
