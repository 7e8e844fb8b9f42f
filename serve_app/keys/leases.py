"""A router's side of the counter: it uses what it has leased, and asks when that is gone, which is rare."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from serve_app.errors import ServeAppError, TooManyRequestsError, UnavailableError
from serve_app.keys.counter import Ask, Grant, History, Lease, Want
from serve_app.keys.file import Key
from serve_app.keys.window import MINUTE_S, Window

logger = logging.getLogger("ray.serve")
Call = Callable[..., Awaitable[Any]]
LEASES_OF_LIMIT = 20  # a lease ahead of need is at most this part of the limit
LEASE_S = 1.0  # what isn't used by then goes back
ASK_AGAIN_S = 1.0  # after a refusal: other routers give back what they don't use
PLACES_AGAIN_S = 0.05
LOST_S = 1.0  # after a failed call, before the next


@dataclass(slots=True)
class Share:
    """Of one quantity: what this router has leased and not used, and all that it was granted within the last minute."""

    granted: Window = field(default_factory=Window)
    amount: int = 0  # negative: more was used than was leased
    until: float = 0.0
    waiting: list[int] = field(default_factory=list)  # what each request that waits needs
    unreported: int = 0
    refused_until: float = 0.0
    room_at: float = 0.0
    others: int = 0  # what other routers were granted, at the last exchange
    exchanged_at: float = 0.0
    last: Lease = field(default_factory=Lease)

    def take(self, now: float, amount: int) -> bool:
        if now >= self.until or self.amount < amount:
            return False
        self.amount -= amount
        return True

    def want(self, now: float, limit: int | None) -> Want:
        """Ask for what waits, or as much as this second or the last took; the rest of the last lease goes back."""
        if limit is None:
            return Want()
        used = self.unreported - self.amount
        self.granted.add(now, -self.amount)
        seconds = self.granted.seconds
        recent = max(seconds.get(int(now), 0), seconds.get(int(now) - 1, 0))
        ahead = min(recent, limit // LEASES_OF_LIMIT) if self.waiting else 0
        self.amount = self.unreported = 0
        return Want(limit, max(sum(self.waiting), ahead), min(self.waiting, default=0), used)

    def receive(self, now: float, lease: Lease, want: Want, counted: bool) -> None:
        """`counted` by the counter, for all routers."""
        self.granted.add(now, lease.amount)
        if counted and want.limit is not None:
            self.others = max(want.limit - lease.left - self.granted.total(now), 0)
            self.exchanged_at = now
        self.amount += lease.amount
        self.until = now + LEASE_S
        self.last = lease
        if want.least and not lease.amount:
            self.room_at = now + lease.room_in_s
            self.refused_until = now + min(max(lease.room_in_s, PLACES_AGAIN_S), ASK_AGAIN_S)

    def grant_alone(self, now: float, want: Want) -> Lease:
        """Without the counter: what it said last of other routers, and what this one grants from then on."""
        self.unreported += want.used
        if want.limit is None:
            return Lease()
        others = self.others if now - self.exchanged_at < MINUTE_S else 0
        left = want.limit - self.granted.total(now) - others
        amount = max(0, min(want.amount, left)) if left >= want.least else 0
        self.unreported += amount
        return Lease(amount, max(left - amount, 0), self.granted.room_in_s(now, want.limit, want.least))


@dataclass(slots=True)
class Account:
    """One key in one router; `held` are its places for concurrent requests."""

    requests: Share = field(default_factory=Share)
    tokens: Share = field(default_factory=Share)
    held: int = 0
    in_use: int = 0
    places_refused_until: float = 0.0
    exchanges: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def history(self) -> History:
        return History(dict(self.requests.granted.seconds), dict(self.tokens.granted.seconds), self.in_use)


class Leases:
    """All keys' accounts in one router."""

    def __init__(
        self,
        call: Call,
        router: str,
        when_lost: Literal["allow", "refuse"] = "allow",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`call` takes the name and the arguments of a method of the counter."""
        self._call, self._router, self._when_lost, self._clock = call, router, when_lost, clock
        self._incarnation = ""
        self._lost_until = 0.0
        self._accounts: dict[str, tuple[Key, Account]] = {}
        self._keeping: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def request(self, key: Key) -> AsyncIterator[None]:
        """Count one request, and hold its place until it ends."""
        account = self._account(key)
        with _waiting(account.requests, 1):
            while not self._enter(key, account):
                await self._renew(key, account)
        try:
            yield
        finally:
            account.in_use -= 1

    async def take_tokens(self, key: Key, amount: int) -> None:
        if key.tokens_per_minute is None:
            return
        share = self._account(key).tokens
        amount = min(amount, key.tokens_per_minute)
        with _waiting(share, amount):
            while not share.take(self._clock(), amount):
                await self._renew(key, self._account(key))

    def settle_tokens(self, key: Key, taken: int, used: int) -> None:
        """Once the answer says how many it were."""
        if key.tokens_per_minute is not None:
            self._account(key).tokens.amount -= used - min(taken, key.tokens_per_minute)

    def standing(self, key: Key) -> dict[str, tuple[int, int, float]]:
        """Of requests and tokens, where they are limited: limit, what is left, and seconds until nothing counts."""
        account = self._account(key)
        return {
            name: (limit, max(share.last.left + max(share.amount, 0), 0), share.last.reset_s)
            for name, limit, share in (
                ("requests", key.requests_per_minute, account.requests),
                ("tokens", key.tokens_per_minute, account.tokens),
            )
            if limit is not None
        }

    def _account(self, key: Key) -> Account:
        _, account = self._accounts.get(key.name) or (None, Account())
        self._accounts[key.name] = key, account
        return account

    def _enter(self, key: Key, account: Account) -> bool:
        if key.concurrent_requests is not None and account.in_use >= account.held:
            return False
        if key.requests_per_minute is not None and not account.requests.take(self._clock(), 1):
            return False
        account.in_use += 1
        return True

    async def _renew(self, key: Key, account: Account) -> None:
        self._require_not_refused(key, account)
        before = account.exchanges
        async with account.lock:
            if account.exchanges == before:
                await self._exchange(key, account)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

    def _require_not_refused(self, key: Key, account: Account) -> None:
        now = self._clock()
        for share, what, limit in (
            (account.requests, "requests a minute", key.requests_per_minute),
            (account.tokens, "tokens a minute", key.tokens_per_minute),
        ):
            if share.waiting and now < share.refused_until:
                raise _refusal(key, f"{limit} {what}", share.room_at - now)
        if account.requests.waiting and now < account.places_refused_until:
            raise _refusal(key, f"{key.concurrent_requests} requests at a time", 1)

    async def _exchange(self, key: Key, account: Account) -> None:
        now = self._clock()
        if now >= self._lost_until:
            try:
                await self._ask(key, account)
                return
            except Exception as problem:  # whatever happened to it, this router knows what to do without
                logger.warning(f"no answer from the counter of keys: {problem!r}; {self._when_lost} until it is back")
                self._lost_until = self._clock() + LOST_S
        if self._when_lost == "refuse":
            raise UnavailableError("the limits of keys can't be counted now; try again")
        ask = self._build(key, account, now)
        requests, tokens = account.requests.grant_alone(now, ask.requests), account.tokens.grant_alone(now, ask.tokens)
        free = ask.places if ask.concurrent is None else max(ask.concurrent - ask.held, 0)
        self._receive(account, ask, Grant(requests, tokens, min(ask.places, free)), counted=False)

    async def _ask(self, key: Key, account: Account) -> None:
        for _ in range(2):
            if not self._incarnation:
                await self._introduce()
            ask = self._build(key, account, self._clock())
            try:
                grant = await self._call("exchange", ask)
            except BaseException:
                self._undo(account, ask)
                raise
            if grant is not None:
                self._receive(account, ask, grant)
                return
            self._undo(account, ask)
            self._incarnation = ""  # it is a new counter
        raise UnavailableError("the counter of keys started anew twice")

    async def _introduce(self) -> None:
        histories = {name: account.history() for name, (_, account) in self._accounts.items()}
        self._incarnation = await self._call("restore", self._router, histories)
        for _, account in self._accounts.values():
            account.requests.unreported = account.tokens.unreported = 0  # the histories say it

    def _build(self, key: Key, account: Account, now: float) -> Ask:
        places = 0
        if key.concurrent_requests is not None:
            account.held, places = account.in_use, len(account.requests.waiting)  # nobody enters meanwhile
        requests = account.requests.want(now, key.requests_per_minute)
        tokens = account.tokens.want(now, key.tokens_per_minute)
        return Ask(
            self._router, self._incarnation, key.name, requests, tokens, key.concurrent_requests, account.held, places
        )

    def _undo(self, account: Account, ask: Ask) -> None:
        account.requests.unreported += ask.requests.used
        account.tokens.unreported += ask.tokens.used

    def _receive(self, account: Account, ask: Ask, grant: Grant, counted: bool = True) -> None:
        now = self._clock()
        account.exchanges += 1
        account.requests.receive(now, grant.requests, ask.requests, counted)
        account.tokens.receive(now, grant.tokens, ask.tokens, counted)
        account.held += grant.places
        if ask.places and not grant.places:
            account.places_refused_until = now + PLACES_AGAIN_S

    async def _keep(self) -> None:
        """Return what isn't used, and say which places are still held."""
        while True:
            await asyncio.sleep(LEASE_S)
            now = self._clock()
            for key, account in list(self._accounts.values()):
                shares = (account.requests, account.tokens)
                rest = any(share.unreported or (share.amount and now >= share.until) for share in shares)
                if (rest or account.held) and not account.lock.locked():
                    async with account.lock:
                        with suppress(ServeAppError):
                            await self._exchange(key, account)


@contextmanager
def _waiting(share: Share, amount: int) -> Iterator[None]:
    share.waiting.append(amount)
    try:
        yield
    finally:
        share.waiting.remove(amount)


def _refusal(key: Key, limit: str, wait_s: float) -> TooManyRequestsError:
    wait = max(math.ceil(wait_s), 1)
    problem = TooManyRequestsError(f"key '{key.name}' is over its limit of {limit}; try again in {wait} s")
    problem.retry_after_s = wait
    return problem
