"""What a worker makes on its virtual host, and whom it believes there.

Where nothing is provisioned, it makes its queues itself, and believes all who can reach them. On a
provisioned virtual host (`flmq.transport.provisioned`) it makes nothing: its queues stand, its name
is on all that it sends, and what comes is believed by the way that it came. Servers alone may
publish to the exchange of tasks. Through the site's own exchange, up to RabbitMQ 3.13, a client's
CC header leads to others' queues: so all that counts from there is what we sent to ourselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flmq.client.models.own import OwnModels
from flmq.common.errors import BrokerAccessRefused, BrokerRefusal
from flmq.messaging import PLAIN, Inbox, Incoming, Protection, Sender
from flmq.transport import (
    REGIONAL,
    TASKS,
    Address,
    Consumer,
    Publisher,
    Transport,
    begun_key,
    client_of_key,
    client_queue,
    client_topology,
    federation_topology,
    task_key,
    union,
)
from flmq.transport.provisioned import NotProvisioned, is_provisioned
from flmq.wire import Begun

__all__ = ["Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """The virtual host as one worker at a site finds it."""

    transport: Transport
    site: str
    provisioned: bool

    @classmethod
    def found(cls, transport: Transport, site: str) -> Standing:
        """Look whether the virtual host of ``transport`` is provisioned.

        Raises:
            BrokerError: the broker refuses or cannot be reached.
        """
        return cls(transport, site, is_provisioned(transport))

    def prepare(self, client_ids: Iterable[str]) -> None:
        """Declare what the clients need, unless it stands."""
        if self.provisioned:
            return
        own = (client_topology(client_id, self.site) for client_id in client_ids)
        self.transport.declare(union((federation_topology(self.site), *own)))

    @contextmanager
    def asking_for(self, what: str) -> Iterator[None]:
        """Say of ``what`` the broker does not let us read that it is not provisioned for us.

        Raises:
            NotProvisioned: it is not there, or another user's.
        """
        try:
            yield
        except (BrokerAccessRefused, BrokerRefusal) as error:
            if not self.provisioned:
                raise
            raise NotProvisioned(what, self.transport.user, str(error)) from error

    def sender(self, publisher: Publisher, protection: Protection = PLAIN) -> Sender:
        """Return what sends through ``publisher``, with our name where it is asked for."""
        user = self.transport.user if self.provisioned else None
        return Sender(publisher, user_id=user, protection=protection)

    def inbox(self, consumer: Consumer, sender: Sender, protection: Protection = PLAIN) -> Inbox:
        """Return what reads from ``consumer``, and believes what is to be believed there."""
        return Inbox(
            consumer,
            sender,
            rejects=self.provisioned,
            check=self.problem,
            protection=protection,
        )

    def own_models(self, consumer: Consumer) -> OwnModels | None:
        """Return what hears clients' own models if they come by their queues of tasks."""
        return OwnModels(consumer) if self.provisioned else None

    def notes_of(self, client_id: str) -> Address:
        """Return where a client's notes to itself are sent."""
        if self.provisioned:
            return Address(REGIONAL, begun_key(self.site, client_id))
        return Address(TASKS, task_key(self.site, client_id))

    def problem(self, incoming: Incoming) -> str:
        """Return why a message in a client's queue is not believed; empty if it is."""
        if not self.provisioned:
            return ""
        delivery, body = incoming.delivery, incoming.body
        if not isinstance(body, Begun):
            if delivery.exchange == TASKS:
                return ""
            return f"a {type(body).__name__} came by {delivery.exchange}, where no server is"
        user = delivery.message.user_id
        key = client_of_key(delivery.routing_key)
        if user != self.transport.user or key != body.client_id:
            return f"a note of {body.client_id} was sent by user {user}, as {key}"
        if delivery.queue != client_queue(body.client_id):
            return f"a note of {body.client_id} is in another client's queue"
        return ""
