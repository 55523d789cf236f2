"""Start an aggregator: become the one of its site, and serve it until stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from flmq import __version__
from flmq.client.models.cache import MemoryCache
from flmq.client.models.reader import ModelReader
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerRefusal,
    PeerError,
    ResourceLocked,
    TransportClosed,
)
from flmq.common.files import folder_bytes
from flmq.common.logger import logger
from flmq.common.urls import redact_url
from flmq.messaging import Inbox, Plain, Sender
from flmq.messaging.speakers import Speakers
from flmq.observe.vitals import Vitals
from flmq.region.answers import Answers
from flmq.region.below import Below
from flmq.region.book import OrderBook
from flmq.region.clocks import Clocks
from flmq.region.desk import Desk
from flmq.region.errors import AggregatorInUse
from flmq.region.intake import Intake
from flmq.region.ledger import Ledger, MemoryLedger, StoredLedger
from flmq.region.models import OrderModels
from flmq.region.options import AggregatorOptions
from flmq.region.orders import Orders
from flmq.region.parts import Parts
from flmq.region.senders import Senders
from flmq.region.strays import Strays
from flmq.transport import (
    PRESENCE,
    Address,
    Binding,
    ConnectionEvent,
    ConnectionState,
    Publisher,
    Queue,
    StateListener,
    Topology,
    Transport,
    aggregator_key,
    aggregator_lock,
    aggregator_lock_topology,
    aggregator_queue,
    aggregator_topology,
    federation_topology,
    open_transport,
    partials_queue,
    regional_queue,
    regional_uploads_queue,
)
from flmq.transport.outages import OutageReporter
from flmq.transport.provisioned import NotProvisioned, is_provisioned
from flmq.transport.standby import stand_by
from flmq.wire import AggregatorReport, Sealed, decode
from flmq.wire.regional import OrderInHand

__all__ = ["Aggregator", "run_aggregator"]

_PREFETCH = 128
"""A chunk has 1 MiB."""
_STRAYS = 64
"""Messages that may wait for their order: half of what is let in."""
_CACHE_BYTES = 128 << 20
_MODEL_PATIENCE = 60.0
_REPORT_LIVES = 60.0
"""Seconds after which a report that nobody has read is of no use."""
_STUCK = 300.0
"""Seconds at one message after which an aggregator says no more that it is there."""
_LISTEN_FOR = 3.0
"""Seconds to wait for a word of the aggregator that is there, to name it."""


def run_aggregator(url: str, options: AggregatorOptions) -> None:
    """Serve ``options.site`` over the RabbitMQ at ``url`` until stopped. Blocks.

    Raises:
        AggregatorInUse: another live aggregator serves the site, and we are not a standby.
        LedgerInUse: another live aggregator uses the folder.
        LedgerDamaged: the folder does not hold what was written there.
        LedgerNotWritable: the folder cannot be written.
        BrokerError: the broker refuses, or cannot be reached at the start.
    """
    name = f"flmq aggregator {options.site}"
    options.vitals.needs("site", lambda: f"{options.site} is not ours yet")
    told = OutageReporter(_said_to(options.vitals))
    with open_transport(url, name=name, listener=told) as transport:
        Aggregator(transport, options).run(
            lambda: logger.info(
                "the replies of site %s are added up at %s", options.site, redact_url(url)
            )
        )
    logger.info("aggregator of site %s: done", options.site)


def _said_to(vitals: Vitals) -> StateListener:
    def tell(event: ConnectionEvent) -> None:
        vitals.connection_changed(event)
        well = event.state in (ConnectionState.CONNECTED, ConnectionState.CLOSED)
        level = logging.INFO if well else logging.WARNING
        logger.log(level, "connection %s %s", event.state.value, event.detail)

    return tell


class Aggregator:
    """One aggregator on one transport, which it does not close."""

    def __init__(
        self,
        transport: Transport,
        options: AggregatorOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve by ``options``; the clocks give seconds, ``unix_clock`` those since 1970."""
        self._transport = transport
        self._options = options
        self._clock = clock
        self._unix_clock = unix_clock
        self._stopping = threading.Event()
        self.instance = f"{socket.gethostname()[:100]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.covers: tuple[str, ...] = (options.site,)
        """The sites whose replies reach it, as it reports."""
        self._in_hand: tuple[OrderInHand, ...] = ()
        self._report_now = threading.Event()
        self._turned = clock()
        """When the desk last came round: it reads disks and streams, which may hang."""

    def stop(self) -> None:
        """End `run`, in order. Any thread may call it."""
        self._stopping.set()
        self._report_now.set()

    def run(self, begun: Callable[[], None] = lambda: None) -> None:
        """Become the site's aggregator and serve it until stopped. Blocks.

        ``begun`` is called once it is.

        Raises:
            AggregatorInUse: another live aggregator serves the site, and we are not a standby.
            LedgerInUse: another live aggregator uses the folder.
            LedgerDamaged: the folder does not hold what was written there.
            LedgerNotWritable: the folder cannot be written.
            BrokerError: the broker refuses.
        """
        options = self._options
        options.vitals.needs("site", lambda: f"another live aggregator has {options.site}")
        self._stands = is_provisioned(self._transport)
        if not self._stands:
            self._transport.declare(federation_topology(options.site))
        self._take_site()
        if self._stopping.is_set():
            return
        if not self._stands:
            self._transport.declare(aggregator_topology(options.site, options.below))
        folder = options.state_dir
        ledger = MemoryLedger() if folder is None else StoredLedger(folder / options.site)
        publisher = self._transport.publisher()
        reporter = threading.Thread(
            target=self._report_all,
            args=(self._sender(publisher),),
            name="flmq-report",
            daemon=True,
        )
        try:
            self._turned = self._clock()
            self._show()
            reporter.start()
            begun()
            self._serve(ledger, publisher)
        finally:
            self.stop()
            reporter.join()
            publisher.close()
            ledger.close()

    def _serve(self, ledger: Ledger, publisher: Publisher) -> None:
        """Deal with what comes until stopped."""
        options, site, clock = self._options, self._options.site, self._clock
        sender = self._sender(publisher)
        queues = [aggregator_queue(site), regional_uploads_queue(site), regional_queue(site)]
        if options.below:
            queues.append(partials_queue(site))
        try:
            consumer = self._transport.consumer(queues, prefetch=_PREFETCH, patient=self._stands)
        except (BrokerAccessRefused, BrokerRefusal) as error:
            if not self._stands:
                raise
            what = f"the queues of the aggregator of site {site}"
            raise NotProvisioned(what, self._transport.user, str(error)) from error
        book = OrderBook(ledger.orders())
        speakers = Speakers(required=self._stands, users=options.speakers)
        inbox = Inbox(
            consumer,
            sender,
            protection=Plain(_passed_by),
            check=Senders(site, book, speakers).problem,
        )
        options.vitals.measure("flmq_messages_mismatched_total", lambda: inbox.mismatched)
        below = Below(
            site,
            options.below,
            sender,
            patience=options.region_patience,
            clock=clock,
        )
        strays = Strays(publisher, inbox.ack, clock, _STRAYS, sender.user_id)
        reader = ModelReader(
            self._transport,
            MemoryCache(_CACHE_BYTES),
            patience=_MODEL_PATIENCE,
            stopping=self._stopping,
            clock=clock,
            unix_clock=self._unix_clock,
        )
        models = OrderModels(site, sender, reader, lambda work: orders.pass_on(work))
        intake = Intake(book, ledger, inbox, strays, models.get)
        parts = Parts(book, below, inbox, intake.spool, models.get)
        orders = Orders(
            site,
            book,
            ledger,
            intake,
            Answers(site, sender, ledger, clock),
            below,
            Clocks(clock, self._unix_clock),
        )
        desk = Desk(site, inbox, orders, intake, parts, below, strays)
        next_look = clock()
        try:
            while not self._stopping.is_set():
                self._turned = clock()
                desk.turn()
                if clock() >= next_look:  # which takes a while, of thousands of clients
                    next_look = clock() + options.report_every / 4
                    self.covers, self._in_hand = below.covers(), orders.in_hand()
                    reader.look()
                if desk.roll_called:
                    desk.roll_called = False
                    self._report_now.set()
        except TransportClosed:
            if not self._stopping.is_set():
                raise
        finally:
            consumer.close()
            intake.close()
            parts.close()

    def _show(self) -> None:
        """Say what the aggregator has, to whoever asks."""
        vitals, folder = self._options.vitals, self._options.state_dir
        vitals.loop("desk", lambda: self._turned, lambda: _STUCK)
        vitals.measure("flmq_aggregator_orders", lambda: len(self._in_hand))
        vitals.measure("flmq_aggregator_sites", lambda: len(self.covers))
        vitals.needs("site", lambda: "")
        if folder is not None:
            ledger = folder / self._options.site
            vitals.measures(
                "flmq_aggregator_ledger_bytes", lambda: {"": folder_bytes(ledger)}, blocks=True
            )

    def _sender(self, publisher: Publisher) -> Sender:
        return Sender(publisher, user_id=self._transport.user if self._stands else None)

    # -- being the one -----------------------------------------------------------------------

    def _take_site(self) -> None:
        """Become the site's aggregator; as a standby, wait until that is possible."""
        site = self._options.site

        def locked(error: ResourceLocked) -> None:
            other = self._other()
            if not self._options.standby:
                raise AggregatorInUse(site, other) from error
            logger.warning(
                "site %s has another live aggregator%s: standing by", site, other and f", {other}"
            )

        def wait(seconds: float) -> None:
            if self._stopping.wait(seconds):
                raise _Stopped

        with contextlib.suppress(_Stopped):
            stand_by(lambda: self._transport.declare(aggregator_lock_topology(site)), locked, wait)

    def _other(self) -> str:
        """Return which process the site's aggregator is, by its report; empty: it says nothing."""
        site = self._options.site
        name = f"{aggregator_lock(site)}.{self.instance}"
        ears = Queue(name, durable=False, exclusive=True)
        heard = Topology(queues=(ears,), bindings=(Binding(PRESENCE, name, aggregator_key(site)),))
        self._transport.declare(heard)
        consumer = self._transport.consumer([name], prefetch=1)
        try:
            until = self._clock() + _LISTEN_FOR
            while (left := until - self._clock()) > 0 and not self._stopping.is_set():
                delivery = consumer.receive(timeout=min(left, 0.5))
                if delivery is None:
                    continue
                with contextlib.suppress(PeerError):
                    report = decode(delivery.message.body)
                    if isinstance(report, AggregatorReport):
                        return report.instance
                consumer.ack(delivery)
        finally:
            consumer.close()
            self._transport.delete_queue(name)
        return ""

    # -- reports -----------------------------------------------------------------------------

    def _report_all(self, sender: Sender) -> None:
        """Report every few seconds, and at the end that we leave. On a thread of its own."""
        was_stuck = False
        with contextlib.suppress(TransportClosed):
            while not self._stopping.is_set():
                is_stuck = self._clock() - self._turned > _STUCK
                if is_stuck and not was_stuck:
                    logger.error(
                        "nothing goes on here for %.0f s, so others are no longer told that this "
                        "aggregator is there: look at its disk and its broker",
                        _STUCK,
                    )
                was_stuck = is_stuck
                if not is_stuck:
                    self._send_report(sender, self._options.report_every)
                self._report_now.wait(self._options.report_every)
                self._report_now.clear()
            self._send_report(sender, 0.0)

    def _send_report(self, sender: Sender, every: float) -> None:
        report = AggregatorReport(
            self._options.site,
            self.instance,
            self.covers,
            self._in_hand,
            int(self._unix_clock() * 1000),
            every,
            __version__,
        )
        sender.send(
            Address(PRESENCE, aggregator_key(self._options.site)),
            report,
            mandatory=False,
            persistent=False,
            expiration=_REPORT_LIVES,
        )


def _passed_by(sealed: Sealed) -> str:
    return (
        f"job {sealed.job!r} is protected from end to end: its replies pass this aggregator by, "
        "which cannot add up what it cannot read"
    )


class _Stopped(Exception):
    """The aggregator was stopped while it stood by."""
