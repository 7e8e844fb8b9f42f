"""The one id that a request has from the edge to the engine: the caller's X-Request-ID, or else one from Serve."""

from ray.serve.context import _get_serve_request_context  # Serve's documentation names it for this


def request_id() -> str:
    """Empty where no request is at hand."""
    return str(_get_serve_request_context().request_id)
