"""TLS of a private node: a second listener, and logins by client certificate.

See https://www.rabbitmq.com/docs/ssl and
https://github.com/rabbitmq/rabbitmq-server/tree/main/deps/rabbitmq_auth_mechanism_ssl. Every key is
known to RabbitMQ 3.10 through 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flmq.broker.ports import LOOPBACK

__all__ = ["NodeTls"]

_EXTERNAL_PLUGIN = "rabbitmq_auth_mechanism_ssl"


@dataclass(frozen=True, slots=True)
class NodeTls:
    """The certificates of a node, as PEM files. It takes TLS 1.2 and 1.3."""

    certfile: Path
    keyfile: Path
    cafile: Path
    """Whom it trusts to sign clients' certificates; and whom its own clients are to trust."""
    client_certs: bool = False
    """Refuse clients without a certificate, and let them log in by it (``?auth=external``)."""

    @property
    def plugins(self) -> tuple[str, ...]:
        """The plugins that it needs."""
        return (_EXTERNAL_PLUGIN,) if self.client_certs else ()

    def settings(self, port: int) -> dict[str, str]:
        """Return lines of rabbitmq.conf that listen with TLS on a loopback ``port``."""
        asked = "true" if self.client_certs else "false"
        mechanisms = ("EXTERNAL", "PLAIN", "AMQPLAIN") if self.client_certs else ()
        return {
            "listeners.ssl.1": f"{LOOPBACK}:{port}",
            "ssl_options.cacertfile": str(self.cafile.absolute()),
            "ssl_options.certfile": str(self.certfile.absolute()),
            "ssl_options.keyfile": str(self.keyfile.absolute()),
            "ssl_options.versions.1": "tlsv1.3",
            "ssl_options.versions.2": "tlsv1.2",
            "ssl_options.verify": "verify_peer" if self.client_certs else "verify_none",
            "ssl_options.fail_if_no_peer_cert": asked,
            **({"ssl_cert_login_from": "common_name"} if self.client_certs else {}),
            **{f"auth_mechanisms.{i}": each for i, each in enumerate(mechanisms, 1)},
        }
