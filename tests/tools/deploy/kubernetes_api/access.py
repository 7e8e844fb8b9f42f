"""Who may do what: bearer tokens with rules, as RBAC grants them."""

from dataclasses import dataclass, field

from kubernetes_api import failures


@dataclass(frozen=True)
class Rule:
    """What is granted; `*` is everything. A namespace of None is all of them and the cluster's scope."""

    verbs: tuple[str, ...] = ("*",)
    groups: tuple[str, ...] = ("*",)
    resources: tuple[str, ...] = ("*",)
    namespaces: tuple[str, ...] | None = None

    def grants(self, verb, group, resource, namespace):
        return (
            holds(self.verbs, verb)
            and holds(self.groups, group)
            and holds(self.resources, resource)
            and (self.namespaces is None or namespace in self.namespaces)
        )


def holds(granted, wanted):
    return "*" in granted or wanted in granted


@dataclass(frozen=True)
class User:
    name: str
    rules: tuple[Rule, ...] = field(default_factory=tuple)

    def may(self, verb, group, resource, namespace=""):
        return any(rule.grants(verb, group, resource, namespace) for rule in self.rules)


class Access:
    def __init__(self):
        self.tokens = {"admin": User("admin", (Rule(),))}

    def add(self, token, user, rules):
        """`rules`: mappings with any of verbs, groups, resources and namespaces."""
        self.tokens[token] = User(
            user, tuple(Rule(**{name: tuple(value) for name, value in one.items()}) for one in rules)
        )

    def user(self, header):
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or token.strip() not in self.tokens:
            raise failures.unauthorized()
        return self.tokens[token.strip()]

    def check(self, user, verb, kind, namespace="", name="", subresource=""):
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        if user.may(verb, kind.group, resource, namespace):
            return
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{user.name}" cannot {verb} resource "{resource}" in API group "{kind.group}" {where}'
        raise failures.forbidden(kind, name, why)

    def reviewed(self, user, review):
        """The answer to a SelfSubjectAccessReview."""
        asked = review["spec"]["resourceAttributes"]
        allowed = user.may(asked["verb"], asked["group"], asked["resource"], asked.get("namespace", ""))
        return review | {"status": {"allowed": allowed} | ({"reason": ""} if allowed else {})}
