"""What an order's clients were sent: in the order, or in the stream of models of the site."""

from __future__ import annotations

from collections.abc import Callable

from flmq.client.models.reader import ModelNotFound, ModelReader
from flmq.common.errors import MalformedMessage, ModelTooLarge
from flmq.common.logger import about, logger
from flmq.common.typing import Parameters
from flmq.messaging import Sender
from flmq.region.work import OrderInWork
from flmq.server.strategy.reply_check import spec_of
from flmq.transport import AGGREGATOR, REPLIES, Address, reply_key
from flmq.wire import ModelRequest, aggregator_name

__all__ = ["OrderModels"]


class OrderModels:
    """Reads what is needed to judge replies. For one thread."""

    def __init__(
        self, site: str, sender: Sender, reader: ModelReader, give_up: Callable[[OrderInWork], None]
    ) -> None:
        """Read by ``reader``; an order whose model cannot be had is handed to ``give_up``."""
        self._site = site
        self._sender = sender
        self._reader = reader
        self._give_up = give_up

    def get(self, work: OrderInWork) -> Parameters | None:
        """Return what an order's clients were sent; None: it cannot be had. May block.

        Raises:
            TransportClosed: the aggregator is stopping.
        """
        if work.model is not None:
            return work.model
        order = work.order
        try:
            model = order.parameters
            if order.model is not None:
                model = self._reader.get(order.model, None, lambda: self._ask(work))
            work.spec = spec_of(model)
        except (ModelNotFound, ModelTooLarge, MalformedMessage) as error:
            logger.warning(
                "replies are passed on one by one, as they cannot be compared with what was "
                "sent: %s",
                error,
                extra=about(order),
            )
            self._give_up(work)
            return None
        work.model = model
        return model

    def _ask(self, work: OrderInWork) -> None:
        order = work.order
        assert order.model is not None
        request = ModelRequest(order.job, aggregator_name(self._site), order.model.digest)
        key = reply_key(self._site, AGGREGATOR, order.job)
        self._sender.send(Address(REPLIES, key), request).outcome.result()
