"""A RabbitMQ in a container, from a Docker-compatible daemon, through testcontainers.

Needs the extra ``docker`` (``pip install 'flmq[docker]'``), which is imported only when a container
is requested. It uses testcontainers' generic container, not its RabbitMqContainer: that one has
moved between modules from release to release, and its wait has no timeout of our choosing and does
not say why a login fails. testcontainers' reaper removes the container when this process dies.
"""

from __future__ import annotations

import os
import secrets
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flmq.broker.layout import PORTABLE_SETTINGS
from flmq.broker.management import Management
from flmq.broker.polling import poll_until
from flmq.broker.probe import ask_broker
from flmq.common.errors import BrokerError, BrokerNotFound, BrokerRefusal
from flmq.common.failure_text import error_text
from flmq.common.urls import BrokerUrl

__all__ = ["DEFAULT_IMAGE", "ContainerBroker", "daemon_objection"]

DEFAULT_IMAGE = "rabbitmq:4.2-management"
"""The image to run unless ``FLMQ_RABBITMQ_IMAGE`` names another."""

_AMQP, _MANAGEMENT = 5672, 15672
_SOCKET = "unix:///var/run/docker.sock"


class ContainerBroker:
    """A RabbitMQ in a container of its own. A context manager; not thread-safe."""

    def __init__(
        self,
        image: str | None = None,
        *,
        management: bool = False,
        start_timeout: float = 120.0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a container of ``image``; nothing is started before `start`.

        ``start_timeout`` is in seconds.
        """
        environ = os.environ if environ is None else environ
        self.image = image or environ.get("FLMQ_RABBITMQ_IMAGE") or DEFAULT_IMAGE
        self._management = management
        self._start_timeout = start_timeout
        self._password = secrets.token_urlsafe(24)
        self._container: Any = None
        self._address: BrokerUrl | None = None

    @property
    def url(self) -> str:
        """AMQP URL of the broker, including its random password: do not log it."""
        return self._running_address().full

    @property
    def shown_url(self) -> str:
        """The URL without the password."""
        return str(self._running_address())

    @property
    def management(self) -> Management:
        """The management API; raises `BrokerRefusal` unless made with ``management=True``."""
        if not self._management:
            raise BrokerRefusal("this container runs without its management port: management=True")
        address = self._running_address()
        port = int(self._container.get_exposed_port(_MANAGEMENT))
        return Management(address.host, port, address.user, address.password)

    def start(self) -> Self:
        """Start the container and return when the broker accepts logins.

        Takes seconds, or minutes if the image must be pulled first.

        Raises:
            BrokerNotFound: testcontainers, the daemon or the image is missing, or the broker does
                not come up in time.
        """
        if self._container is not None:
            return self
        objection = daemon_objection()
        if objection:
            raise BrokerNotFound(f"no RabbitMQ container: {objection}")
        try:
            with _docker_errors_translated(self.image):
                self._container = self._make()
                self._container.start()
                self._address = self._find_address()
            self._await_logins(self._address)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Remove the container with its data. Idempotent."""
        container, self._container, self._address = self._container, None, None
        if container is not None:
            container.stop()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _make(self) -> Any:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(self.image)
        container.with_exposed_ports(_AMQP, *([_MANAGEMENT] if self._management else []))
        for name, value in self._environment().items():
            container.with_env(name, value)
        return container

    def _environment(self) -> dict[str, str]:
        # Set as server arguments: a file would have to be on the daemon's machine.
        limits = " ".join(f"-rabbit {key} {value}" for key, value in PORTABLE_SETTINGS.items())
        return {
            "RABBITMQ_DEFAULT_USER": "flmq",
            "RABBITMQ_DEFAULT_PASS": self._password,
            "RABBITMQ_DEFAULT_VHOST": "flmq",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": limits,
        }

    def _find_address(self) -> BrokerUrl:
        host = str(self._container.get_container_host_ip())
        port = int(self._container.get_exposed_port(_AMQP))
        return BrokerUrl(host, port, "flmq", "flmq", self._password)

    def _await_logins(self, address: BrokerUrl) -> None:
        refusal: BrokerError | None = None

        def takes_login() -> bool:
            nonlocal refusal
            try:
                ask_broker(address)
            except BrokerError as error:
                refusal = error
                return False
            return True

        if not poll_until(takes_login, self._start_timeout, every=0.2):
            raise BrokerNotFound(
                f"the container of {self.image} took no login within {self._start_timeout:g} s "
                f"({refusal}); its log ends in:\n{self._said()}"
            ) from refusal

    def _said(self) -> str:
        with suppress(Exception):
            text = b"\n".join(self._container.get_logs()).decode("utf-8", "replace")
            return "\n".join(text.splitlines()[-20:]).replace(self._password, "***")
        return "(it has no log any more)"

    def _running_address(self) -> BrokerUrl:
        if self._address is None:
            raise BrokerRefusal("this container is not running: start() comes first")
        return self._address


def daemon_objection() -> str | None:
    """Return why no container can be started here; None if a Docker-compatible daemon answers."""
    try:
        # Importing testcontainers warns about its own deprecations, which do not concern the user.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from testcontainers.core.docker_client import get_docker_host

            docker = _docker()
    except ImportError as error:
        return f"{error.name or 'testcontainers'} is not installed (pip install 'flmq[docker]')"
    host = get_docker_host() or _SOCKET
    objection = _socket_objection(host)
    if objection:
        return objection
    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except docker.errors.DockerException as error:
        return f"the Docker daemon at {host} does not answer ({_first_line(error)})"
    return None


def _socket_objection(host: str) -> str | None:
    """Try a plain connection to the daemon's socket first: docker's client leaks one on failure."""
    scheme, _, path = host.partition("://")
    if scheme not in ("unix", "http+unix"):
        return None
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5.0)
            probe.connect(str(Path("/") / path))
    except OSError as error:
        return f"no Docker-compatible daemon answers at {host} ({error.strerror or error})"
    return None


@contextmanager
def _docker_errors_translated(image: str) -> Iterator[None]:
    docker = _docker()
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise BrokerNotFound(
            f"there is no container image {image}: FLMQ_RABBITMQ_IMAGE names the one to use"
        ) from error
    except docker.errors.DockerException as error:
        raise BrokerNotFound(
            f"the container of {image} could not be started: {_first_line(error)}"
        ) from error
    except (KeyError, OSError, RuntimeError) as error:
        # Raised by testcontainers if a container exits at once, or if it guesses the wrong address.
        raise BrokerNotFound(
            f"the container of {image} started but is not to be reached ({error!r}); perhaps "
            "TESTCONTAINERS_CONNECTION_MODE=docker_host helps"
        ) from error


def _docker() -> Any:
    import docker  # type: ignore[import-untyped]

    return docker


def _first_line(error: BaseException) -> str:
    return error_text(error).splitlines()[0]
