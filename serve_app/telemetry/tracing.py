"""OpenTelemetry: the exporter of Serve's spans, spans of engines, and the id of the current request."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.util.types import AttributeValue
from ray.serve.context import _get_serve_request_context  # the name is in Serve's documentation


def exporters() -> list[SpanProcessor]:
    """For `tracing_config.exporter_import_path`: sends spans by OTLP to OTEL_EXPORTER_OTLP_ENDPOINT."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # only where tracing is on
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]


def request_id() -> str:
    """The client's X-Request-ID, or else the id that Serve made; empty outside of a request."""
    return str(_get_serve_request_context().request_id)


def is_traced() -> bool:
    """Whether the spans of the current request are recorded."""
    return trace.get_current_span().is_recording()


def headers() -> dict[str, str]:
    """The current trace context as HTTP headers."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def past_span(
    name: str, start_ns: int, end_ns: int, attributes: Mapping[str, AttributeValue] | None = None
) -> Iterator[None]:
    """Record a span that is already over, from Unix times; spans started inside become its children."""
    span = _tracer().start_span(name, start_time=start_ns, attributes=attributes)
    with trace.use_span(span):
        yield
    span.end(end_ns)


@cache
def _tracer() -> trace.Tracer:
    return trace.get_tracer("serve_app")
