"""What the server answers instead of an object: Kubernetes' Status, worded as kube-apiserver words it."""

from typing import Any


class StatusError(Exception):
    """A request that is answered with a Status."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None):
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


def details_of(kind, name, **more):
    details = {"name": name, "group": kind.group, "kind": kind.plural} | more
    return {key: value for key, value in details.items() if value}


def not_found(kind, name):
    return StatusError(404, "NotFound", f'{kind.qualified} "{name}" not found', details_of(kind, name))


def already_exists(kind, name):
    return StatusError(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', details_of(kind, name))


def outdated(kind, name):
    message = (
        f'Operation cannot be fulfilled on {kind.qualified} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    return StatusError(409, "Conflict", message, details_of(kind, name))


def bad_request(message):
    return StatusError(400, "BadRequest", message)


def forbidden(kind, name, why):
    subject = f'{kind.qualified} "{name}"' if name else kind.qualified
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", details_of(kind, name))


def terminating(kind, name, namespace):
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    return forbidden(kind, name, why)


def invalid(kind, name, problems):
    """`problems`: (field, reason, message)."""
    said = [f"{field}: {message}" for field, _, message in problems]
    listed = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    causes = [{"reason": reason, "message": message, "field": field} for field, reason, message in problems]
    suffix = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = details_of(kind, name, causes=causes) | {"kind": kind.kind}
    return StatusError(422, "Invalid", f'{suffix} "{name}" is invalid: {listed}', details)


def untyped_patch(kind, namespace, name, unknown):
    """Server-side apply can't place a field that the schema doesn't have; the server gives it no reason."""
    where = f"{namespace}/{name}; {kind.api_version}, Kind={kind.kind}"
    problems = "\n".join(f".{path}: field not declared in schema" for path in unknown)
    return StatusError(500, "", f"failed to create typed patch object ({where}): {problems}")


def unauthorized():
    return StatusError(401, "Unauthorized", "Unauthorized")


def unsupported_media(given):
    return StatusError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {given}")


def not_allowed():
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
