"""Spans to whoever collects them, by OpenTelemetry's own SDK over OTLP/HTTP. The SDK is an extra that may be missing.

What the SDK's variables say holds (`OTEL_EXPORTER_OTLP_ENDPOINT`, `…_HEADERS`, `…_CERTIFICATE`, `OTEL_SERVICE_NAME`);
an endpoint that is given goes before theirs. Everything here blocks, for at most `EXPORT_SECONDS` a batch.
"""

import importlib.util
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mesh.state.model import Run
from mesh.views import spans
from mesh.views.spans import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SPANS_PER_BATCH = 512
EXPORT_SECONDS = 10.0

MISSING = "the OpenTelemetry SDK is not installed: pip install 'mesh-test-runner[otel]'"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PATH = "/v1/traces"


def asked_for(variables: Mapping[str, str]) -> bool:
    """Whether the environment wants traces."""
    off = variables.get("OTEL_SDK_DISABLED", "").lower() == "true" or variables.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(variables.get(name) for name in _ENDPOINTS)


def installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


class OtlpExporter:
    """Sends the traces of runs. `endpoint`: a collector's address; empty: the environment names it."""

    def __init__(self, endpoint: str, peer: str, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource

        bare = urlsplit(endpoint).path in ("", "/")
        where = endpoint.rstrip("/") + _PATH if endpoint and bare else endpoint or None
        self._exporter = OTLPSpanExporter(endpoint=where, timeout=EXPORT_SECONDS)
        self._resource = Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME", "mesh"),
                "service.version": version,
                "service.instance.id": peer,
                "host.name": socket.gethostname(),
            }
        )

    def send(self, mesh: str, run: Run, told: Sequence[Span]) -> bool:
        """Whether all of them arrived."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        made = [self._made(mesh, run, span) for span in told]
        return all(
            self._exporter.export(made[at : at + SPANS_PER_BATCH]) is SpanExportResult.SUCCESS
            for at in range(0, len(made), SPANS_PER_BATCH)
        )

    def stop(self) -> None:
        """What is being sent is given up."""
        self._exporter.shutdown()

    def _made(self, mesh: str, run: Run, span: Span) -> "ReadableSpan":
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace, parent = spans.trace_id(mesh, run), spans.span_id(mesh, run, span.parent)

        def context(identity: int, remote: bool) -> SpanContext:
            return SpanContext(trace, identity, remote, TraceFlags(TraceFlags.SAMPLED))

        events = []
        if span.traceback:
            said = {"exception.message": span.message, "exception.stacktrace": span.traceback}
            events.append(Event("exception", said, _nanoseconds(span.end)))
        return ReadableSpan(
            name=span.name,
            context=context(spans.span_id(mesh, run, span.key), False),
            parent=context(parent, not span.parent) if parent else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            events=events,
            kind=SpanKind.INTERNAL,
            instrumentation_scope=InstrumentationScope("mesh"),
            status=Status(StatusCode.ERROR, span.message or None) if span.bad else Status(StatusCode.UNSET),
            start_time=_nanoseconds(span.start),
            end_time=_nanoseconds(max(span.start, span.end)),
        )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
