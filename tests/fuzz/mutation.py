"""Changes to a JSON document that keep it one, since most changes of single bytes end at the parser."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "a", "0", "\0", "\ud800", "ü", "true", "1e999", "x" * 300, [], {}, [[]], [0, ""],
    [1, 2, 3], {"a": {}}, 10**4299,
)  # fmt: skip
DEPTHS = (2, 40, 100, 400)


def mutated(text: bytes, words: Sequence[str], random: Random) -> bytes:
    """Raises ValueError for what is no JSON."""
    document = json.loads(text)
    for _ in range(random.choice((1, 1, 2, 4))):
        document = _changed(document, words, random)
    return json.dumps(document, ensure_ascii=random.random() < 0.8).encode(errors="surrogatepass")


def _changed(document: Any, words: Sequence[str], random: Random) -> Any:
    """The document with one change, somewhere in it."""
    places = _places(document)
    if not places or random.random() < 0.05:
        return _value(document, words, random)
    holder, key = random.choice(places)
    if random.random() < 0.6:
        holder[key] = _value(holder[key], words, random)
    elif random.random() < 0.4:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, random.choice((holder[key], _value(None, words, random))))
    else:
        holder[random.choice(words)] = random.choice((holder[key], _value(None, words, random)))
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    found, waiting = [], [document]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            found += [(holder, key) for key in keys]
            waiting += [holder[key] for key in keys]
    return found


def _value(old: Any, words: Sequence[str], random: Random) -> Any:
    """Another value for a place: mostly of its kind."""
    if isinstance(old, str) and random.random() < 0.5:
        cut = random.randint(0, len(old))
        return old[:cut] + random.choice((*words, "\ud800", "\0", "{9999}", "(", "[", '"', "")) + old[cut:]
    if isinstance(old, int | float) and random.random() < 0.3:
        return old * random.choice((-1, 2, 10, 2**32)) + random.choice((-1, 0, 1))
    if random.random() < 0.1:
        return _nested(old, random.choice(DEPTHS), random)
    return json.loads(json.dumps(random.choice((*VALUES, random.choice(words)))))  # a copy, which may be changed


def _nested(value: Any, depth: int, random: Random) -> Any:
    as_list = random.random() < 0.5
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value
