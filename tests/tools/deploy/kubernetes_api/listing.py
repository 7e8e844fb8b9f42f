"""Lists of what is selected."""

from kubernetes_api.selection import field_test, label_test


def listed(cluster, target, query):
    kind = target.kind
    by_label, by_field = label_test(query.get("labelSelector", "")), field_test(query.get("fieldSelector", ""))
    items = [
        body
        for _, body in cluster.store.of(kind.resource, target.namespace)
        if by_label(body["metadata"].get("labels")) and by_field(body)
    ]
    if kind.schema is None:  # items of built-in kinds don't say what they are
        items = [{name: value for name, value in body.items() if name not in ("apiVersion", "kind")} for body in items]
    metadata = {"resourceVersion": str(cluster.store.version)}
    return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items}
