"""OpenTelemetry: where Serve's spans go, and spans of engines, which tell their times afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.util.types import AttributeValue


def exporters() -> list[SpanProcessor]:
    """What `tracing_config.exporter_import_path` names: OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT says."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # only where tracing is on
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]


def is_traced() -> bool:
    """Whether the request at hand is one whose spans are kept."""
    return trace.get_current_span().is_recording()


def headers() -> dict[str, str]:
    """For an engine that takes the trace's context as a client would send it."""
    carried: dict[str, str] = {}
    propagate.inject(carried)
    return carried


@contextmanager
def past_span(
    name: str, start_ns: int, end_ns: int, attributes: Mapping[str, AttributeValue] | None = None
) -> Iterator[None]:
    """Something that is over, at Unix times; what is told inside is a part of it."""
    span = _tracer().start_span(name, start_time=start_ns, attributes=attributes)
    with trace.use_span(span):
        yield
    span.end(end_ns)


@cache
def _tracer() -> trace.Tracer:
    return trace.get_tracer("serve_app")
