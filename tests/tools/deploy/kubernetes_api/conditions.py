"""Conditions in a status: set by type, with the time of their last change of status."""

from kubernetes_api.times import now


def with_condition(conditions, kind, status, reason="", message="", **more):
    """The list with that condition in it; its time stays while its status does."""
    old = next((one for one in conditions if one["type"] == kind), None)
    when = old["lastTransitionTime"] if old and old["status"] == status else now()
    new = {"type": kind, "status": status, "lastTransitionTime": when} | more
    new |= {"reason": reason} if reason else {}
    new |= {"message": message} if message else {}
    if old is None:
        return [*conditions, new]
    return [new if one is old else one for one in conditions]


def condition(body, kind):
    found = body.get("status", {}).get("conditions", ())
    return next((one for one in found if one["type"] == kind), None)


def is_true(body, kind):
    found = condition(body, kind)
    return found is not None and found["status"] == "True"
