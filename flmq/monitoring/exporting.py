"""Send spans where the standard environment variables say, if OpenTelemetry is installed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from flmq import __version__
from flmq.common.failure_text import named_error
from flmq.common.logger import logger
from flmq.monitoring.tracing import DerivedIds

__all__ = ["Tracing", "exporters"]

_GROUP = "opentelemetry_traces_exporter"
_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_LAST_WORDS = 5.0
"""Seconds in which spans that wait are still sent at the end."""


def exporters(environ: Mapping[str, str]) -> list[SpanExporter]:
    """Return the exporters that ``OTEL_TRACES_EXPORTER`` names; OTLP if only an endpoint is set.

    One that is not installed is named in the log.
    """
    made: list[SpanExporter] = []
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if name.strip() in ("", "none"):
            continue
        exporter = _exporter(name.strip(), environ)
        if exporter is None:
            logger.warning(
                "no spans are sent: OpenTelemetry's exporter %r is not installed: "
                "pip install opentelemetry-exporter-otlp",
                name.strip(),
            )
            continue
        try:
            made.append(exporter())
        except Exception as error:  # spans are no reason not to run
            logger.warning(
                "no spans are sent: OpenTelemetry's exporter %r cannot be made (%s): correct the "
                "variables OTEL_EXPORTER_...",
                name.strip(),
                named_error(error),
            )
    return made


def _exporter(name: str, environ: Mapping[str, str]) -> Callable[[], SpanExporter] | None:
    names = [name]
    if name == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", ""
        )
        if protocol and protocol not in _PROTOCOLS:
            logger.warning(
                "OpenTelemetry's protocol %r is none that flmq can send spans by: one of %s",
                protocol,
                ", ".join(_PROTOCOLS),
            )
        names = [_PROTOCOLS[protocol]] if protocol in _PROTOCOLS else [name, *_PROTOCOLS.values()]
    for each in names:
        for found in entry_points(group=_GROUP, name=each):
            loaded: Callable[[], SpanExporter] = found.load()
            return loaded
    return None


class Tracing:
    """A provider of spans for one process."""

    def __init__(
        self, role: str, made: list[SpanExporter], environ: Mapping[str, str] | None = None
    ) -> None:
        """Send the spans of a process in ``role`` to the exporters ``made``, in batches."""
        environ = os.environ if environ is None else environ
        about = {"service.version": __version__}
        named = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in named:
            about["service.name"] = f"flmq-{role}"
        self.ids = DerivedIds()
        self.provider = TracerProvider(
            resource=Resource.create(about), id_generator=self.ids, shutdown_on_exit=False
        )
        for exporter in made:
            self.provider.add_span_processor(BatchSpanProcessor(exporter))

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        ending = threading.Thread(target=self.provider.shutdown, name="flmq-spans", daemon=True)
        ending.start()
        ending.join(_LAST_WORDS)
