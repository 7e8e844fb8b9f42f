"""Label selectors and field selectors."""

import re

from kubernetes_api.failures import bad_request

EQUAL = re.compile(r"^\s*([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)\s*$")
EXISTS = re.compile(r"^\s*(!?)\s*([^\s!=,()]+)\s*$")


def label_test(selector):
    """A function that tells whether labels are selected."""
    tests = [one_label_test(part) for part in re.split(r",(?![^(]*\))", selector) if part.strip()]
    return lambda labels: all(test(labels or {}) for test in tests)


def one_label_test(part):
    if found := EQUAL.match(part):
        name, how, value = found.groups()
        if how == "!=":
            return lambda labels: labels.get(name) != value
        return lambda labels: labels.get(name) == value
    if found := EXISTS.match(part):
        absent, name = found.groups()
        return lambda labels: (name in labels) != bool(absent)
    raise bad_request(f"unable to parse requirement: {part!r}")


def field_test(selector):
    """A function that tells whether a body is selected."""
    tests = []
    for part in filter(None, selector.split(",")):
        name, how, value = re.split(r"(!=|==|=)", part, maxsplit=1)
        tests.append((name.strip().split("."), how, value.strip()))
    return lambda body: all((text_at(body, path) == value) == (how != "!=") for path, how, value in tests)


def text_at(body, path):
    for step in path:
        body = body.get(step) if isinstance(body, dict) else None
    return "" if body is None else str(body)


def selects(selector, labels):
    """A plain selector of a Service, or a LabelSelector of a workload."""
    wanted = selector.get("matchLabels", {}) if "matchLabels" in selector else selector
    return all((labels or {}).get(name) == value for name, value in wanted.items())
