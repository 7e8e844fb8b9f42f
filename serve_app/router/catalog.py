"""Which deployment has each model now: a view of the deployments' own indexes, read again as they change."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

from serve_app.errors import NotFoundError, UnavailableError
from serve_app.router.upstream import Upstream, required

TIMEOUT_S = 5.0
REFRESH_INTERVAL_S = 0.2  # between two reads, however many unknown names are requested
STALE_S = 5.0  # an older view is read again, while requests go on by what it says
NAMED = 20  # models that an error message lists
Row = dict[str, str]


class Catalog:
    """Models by deployment. A model may move, come and go; what a silent deployment had last is still taken for its."""

    def __init__(self, upstreams: Iterable[Upstream], configured: Mapping[str, str]) -> None:
        """`configured` says which deployment serves a model, until its own index does."""
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self._configured = dict(configured)
        self._rows: dict[str, list[Row]] = {}
        self._owners = dict(configured)
        self._silent: list[str] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    @property
    def upstreams(self) -> list[Upstream]:
        return list(self._upstreams.values())

    async def owner(self, model: str) -> Upstream:
        """The deployment that has a model; a name that isn't known is looked for first."""
        if model not in self._owners:
            await self.refresh()
        elif time.monotonic() - self._read_at > STALE_S and (self._background is None or self._background.done()):
            self._background = asyncio.create_task(self.refresh())
        if model in self._owners:
            return self._upstreams[self._owners[model]]
        if self._silent:
            silent = ", ".join(self._silent)
            raise UnavailableError(
                f"model '{model}' is not found, but {silent} doesn't answer and may have it; try again later"
            )
        raise NotFoundError(f"Request for unknown model: '{model}' is not found; {self._known_names()}")

    async def moved(self, model: str, away_from: Upstream) -> Upstream | None:
        """The other deployment that has a model by now, if `away_from` doesn't know it any more."""
        await self.refresh()
        owner = self._owners.get(model)
        return None if owner in (None, away_from.name) else self._upstreams[owner]

    async def refresh(self) -> None:
        """Read the indexes after this moment; callers at the same time share one read."""
        arrived = time.monotonic()
        async with self._reading:
            if self._read_at > arrived:
                return
            await asyncio.sleep(self._read_at + REFRESH_INTERVAL_S - time.monotonic())
            began = time.monotonic()
            self._take(await self._indexes())
            self._read_at = began

    def _take(self, indexes: Mapping[str, list[Row] | BaseException]) -> None:
        self._rows |= {name: index for name, index in indexes.items() if isinstance(index, list)}
        failed = [name for name, index in indexes.items() if not isinstance(index, list)]
        # a language model's name is configured; what another deployment has only its index says
        self._silent = [name for name in failed if not self._upstreams[name].optional and name not in self._rows]
        rows = [(row, name) for name in self._upstreams for row in self._rows.get(name, ())]
        owners: dict[str, str] = {}
        # Two deployments may read one repository: the model belongs to the one that has it loaded.
        for row, name in sorted(rows, key=lambda entry: _is_not_ready(entry[0])):
            owners.setdefault(row["name"], name)
        self._owners = self._configured | owners

    def _known_names(self) -> str:
        names = sorted(self._owners)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"available: {', '.join(names[:NAMED]) or 'none yet'}{more}"

    async def ready(self) -> bool:
        """Whether every deployment that is required has a replica that answers."""
        indexes = await self._indexes()
        return all(isinstance(indexes[upstream.name], list) for upstream in required(self._upstreams.values()))

    async def index(self, only_ready: bool = False) -> list[Row]:
        """Every model of every deployment, once; where replicas differ the reason says which one and how."""
        indexes = await self._indexes()
        self._take(indexes)
        rows = [row for name, index in indexes.items() for row in self._rows_of(name, index)]
        once: dict[tuple[str, str], Row] = {}
        for row in sorted(rows, key=_is_not_ready):
            once.setdefault((row["name"], row.get("version", "")), row)
        versioned = {name for name, version in once if version}
        rows = [row for row in rows if once[row["name"], row.get("version", "")] is row]
        rows = [row for row in rows if "version" in row or row["name"] not in versioned]
        return [row for row in rows if not only_ready or row.get("state") == "READY"]

    async def _indexes(self) -> dict[str, list[Row] | BaseException]:
        """Of each deployment its index, or why there is none."""
        answers = await asyncio.gather(
            *(upstream.answers_everywhere("index", timeout_s=TIMEOUT_S) for upstream in self._upstreams.values()),
            return_exceptions=True,
        )
        return {
            name: answer if isinstance(answer, BaseException) else merge_indexes(answer)
            for name, answer in zip(self._upstreams, answers, strict=True)
        }

    def _rows_of(self, name: str, index: list[Row] | BaseException) -> list[Row]:
        if isinstance(index, list):
            return index
        if not self._upstreams[name].optional:
            raise index
        if not isinstance(index, UnavailableError):
            reason = str(index)
        else:
            reason = "asleep: a request wakes it" if self._upstreams[name].scales_to_zero else "no running replica"
        return [{"name": name, "version": "1", "state": "UNAVAILABLE", "reason": reason}]


def _is_not_ready(row: Mapping[str, str]) -> bool:
    return row.get("state") != "READY"


def merge_indexes(replicas: Sequence[tuple[str, list[dict[str, str]]]]) -> list[dict[str, str]]:
    """A row for each version of each model; where replicas differ, its state is the worst and says on which."""
    states: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for replica, rows in replicas:
        for row in rows:
            states.setdefault((row["name"], row.get("version", "")), {})[replica] = row
    # A model that one replica has loaded has a version there, and none on another that hasn't: not a row of its own.
    versioned = {name for name, version in states if version}
    return [_agree(states[key], len(replicas)) for key in sorted(states) if key[1] or key[0] not in versioned]


def _agree(rows: dict[str, dict[str, str]], replicas: int) -> dict[str, str]:
    ready = [replica for replica, row in rows.items() if row.get("state") == "READY"]
    others = {replica: row for replica, row in rows.items() if replica not in ready}
    if len(ready) == replicas or not ready:
        return next(iter(rows.values()))
    row = {key: value for key, value in rows[ready[0]].items() if key in ("name", "version")}
    if not others:
        return row | {"state": "LOADING", "reason": f"ready on {len(ready)} of {replicas} replicas"}
    replica, worst = next(iter(others.items()))
    reason = f"ready on {len(ready)} of {replicas} replicas; {replica}: {worst.get('reason', 'not loaded')}"
    return row | {"state": worst.get("state", "UNAVAILABLE"), "reason": reason}
