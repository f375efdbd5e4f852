"""Users who connect, are polled at every replica, and end by a revocation or a security event.

Every request for a change is recorded with its time and answer, and so is each poll.
"""

import asyncio
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote
from uuid import uuid4

import httpx2

from devstack.google_standin.security_events import MEDIA_TYPE
from tests.chaos.fleet import Fleet, User, at_replica
from tests.chaos.load import Answer, ask
from tests.support.processes import wait_until
from tests.support.scopes import CALENDAR_READONLY

ChangeKind = Literal["consent", "revocation", "event"]

_ACKNOWLEDGED = {"consent": 200, "revocation": 204, "event": 202}
_LIMIT_SECONDS = 20.0
_MORE_THAN_ANY_TOKEN_HAS = 86_400
"""Seconds, as `min_ttl`: the broker has to ask Google."""

_ARRIVALS_EVERY = 0.7
_MOST_JOURNEYS = 32
_MOST_CONNECTING = 4
_PLANNED_ENDS: tuple[ChangeKind | None, ...] = ("revocation", "event", None)
_LEAVES_AFTER = 2.5, 5.0
"""Seconds for which an arriving user stays connected; every third user stays."""


@dataclass(frozen=True)
class Change:
    """A change that was requested of the broker, and the answer. Times are seconds since 1970."""

    kind: ChangeKind
    began: float
    ended: float
    status: int | None
    """`None`: the connection broke."""

    @property
    def acknowledged(self) -> bool:
        return self.status == _ACKNOWLEDGED[self.kind]


@dataclass
class Journey:
    """One user with one Google account, from the first consent on."""

    user: User
    email: str
    changes: list[Change] = field(default_factory=list)
    polls: list[Answer] = field(default_factory=list)
    wanted: deque[ChangeKind] = field(default_factory=deque)
    """Changes still to be requested, in this order; each is repeated until it is acknowledged."""
    planned_end: ChangeKind | None = None
    """How it ends some seconds after the consent; `None`: it stays."""

    @property
    def acknowledged(self) -> list[Change]:
        return [change for change in self.changes if change.acknowledged]

    @property
    def last(self) -> Change | None:
        """The newest acknowledged change; it determines the expected state."""
        return next((change for change in reversed(self.changes) if change.acknowledged), None)

    @property
    def is_connected(self) -> bool:
        return self.last is not None and self.last.kind == "consent"

    @property
    def ended(self) -> Change | None:
        """The acknowledged end, if there is one. No user connects again after it."""
        return self.last if self.last and self.last.kind != "consent" else None

    @property
    def connected_at(self) -> float | None:
        """The time at which the first consent was acknowledged."""
        return next((c.ended for c in self.changes if c.acknowledged), None)


class Traffic:
    """All journeys. A thread drives them until `stop`."""

    def __init__(self, fleet: Fleet) -> None:
        self.journeys: list[Journey] = []
        self._fleet = fleet
        self._arriving = True
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._group = asyncio.TaskGroup()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add_users(self, count: int, *wanted: ChangeKind) -> list[Journey]:
        """Add users, whose only changes are a consent and those given."""
        assert self._loop is not None
        added = [self._new_journey("consent", *wanted) for _ in range(count)]
        for journey in added:
            self._loop.call_soon_threadsafe(self._drive, journey)
        return added

    def request_change(self, journeys: Sequence[Journey], kind: ChangeKind) -> None:
        """Request one more change for each; `wait_for` waits for it."""
        for journey in journeys:
            journey.wanted.append(kind)

    def wait_for(self, journeys: Sequence[Journey], *, within: float = 60) -> None:
        """Return once all their changes are acknowledged."""
        wait_until(
            "all requested changes are acknowledged",
            lambda: self._check() and not any(journey.wanted for journey in journeys),
            within=within,
        )

    def wait_until_polled(self, journeys: Sequence[Journey]) -> None:
        """Return once every replica has returned a token for each."""
        count = len(self._fleet.replicas)
        wait_until(
            "every replica has returned a token",
            lambda: all(
                len({p.replica for p in journey.polls if p.status == 200}) == count
                for journey in journeys
            ),
            within=30,
        )

    def wait_for_a_change(self, since: float, *, within: float = 60) -> float:
        """Return when the first change requested after `since` was acknowledged."""

        def found() -> list[float]:
            return [c.ended for c in self.changes() if c.acknowledged and c.began >= since]

        wait_until("changes are acknowledged again", lambda: bool(found()), within=within)
        return min(found())

    def changes(self) -> list[Change]:
        """Return the changes of all journeys, in the order of the answers."""
        all_changes = itertools.chain.from_iterable(list(j.changes) for j in list(self.journeys))
        return sorted(all_changes, key=lambda change: change.ended)

    def longest_gap(self, since: float) -> float:
        """Return the longest time without an acknowledged change, in seconds."""
        times = [since, *(c.ended for c in self.changes() if c.acknowledged and c.ended > since)]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)

    def start(self) -> None:
        self._thread.start()
        wait_until("traffic has started", lambda: self._loop is not None, within=10)

    def stop_arrivals(self) -> None:
        """No more users arrive."""
        self._arriving = False

    def stop(self) -> None:
        """Wait for the last answers. Raises what failed in the thread."""
        self._stopping.set()
        self._thread.join(_LIMIT_SECONDS + 10)
        assert not self._thread.is_alive()
        self._check()

    def _check(self) -> bool:
        if self._failure is not None:
            raise self._failure
        return True

    def _new_journey(self, *wanted: ChangeKind) -> Journey:
        name = f"user-{uuid4().hex[:12]}"
        email = f"{name}@example.com"
        account = self._fleet.google.add_account(email)
        journey = Journey(User(name, account.sub), email, wanted=deque(wanted))
        self.journeys.append(journey)
        return journey

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error

    async def _serve(self) -> None:
        limits = httpx2.Limits(max_connections=300)
        async with (
            httpx2.AsyncClient(timeout=_LIMIT_SECONDS, trust_env=False, limits=limits) as http,
            self._group,
        ):
            self._http = http
            self._loop = asyncio.get_running_loop()
            await self._let_users_arrive()

    async def _let_users_arrive(self) -> None:
        planned_ends = itertools.cycle(_PLANNED_ENDS)
        while not self._stopping.is_set():
            await asyncio.sleep(_ARRIVALS_EVERY)
            connecting = sum(journey.last is None for journey in self.journeys)
            crowded = connecting >= _MOST_CONNECTING or len(self.journeys) >= _MOST_JOURNEYS
            if self._arriving and not crowded:
                journey = self._new_journey("consent")
                journey.planned_end = next(planned_ends)
                self._drive(journey)

    def _drive(self, journey: Journey) -> None:
        self._spawn(self._request_changes(journey))
        for replica in range(len(self._fleet.replicas)):
            self._spawn(self._poll(journey, replica))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._group.create_task(work)

    async def _request_changes(self, journey: Journey) -> None:
        """Request the changes, each until it is acknowledged, at random replicas."""
        event: str | None = None
        while not self._stopping.is_set():
            if not journey.wanted:
                await asyncio.sleep(0.05)
                continue
            kind = journey.wanted[0]
            began = time.time()
            try:
                if kind == "event":
                    event = event or self._create_event(journey)
                    status = await self._send(event)
                elif kind == "revocation":
                    status = await self._revoke(journey)
                else:
                    status = await self._consent(journey)
            except httpx2.TransportError:
                status = None
            change = Change(kind, began, time.time(), status)
            journey.changes.append(change)
            if change.acknowledged:
                journey.wanted.popleft()
                self._schedule_end(journey)
            else:
                await asyncio.sleep(random.uniform(0.3, 0.7))

    def _schedule_end(self, journey: Journey) -> None:
        planned, journey.planned_end = journey.planned_end, None
        if planned is not None:
            pause = random.uniform(*_LEAVES_AFTER)
            asyncio.get_running_loop().call_later(pause, journey.wanted.append, planned)

    async def _poll(self, journey: Journey, replica: int) -> None:
        """Poll one replica: mostly for a cached token, at intervals for one that needs Google."""
        for number in itertools.count(1):
            if self._stopping.is_set():
                return
            if journey.last is not None:
                forced = number % 12 == 0
                min_ttl = _MORE_THAN_ANY_TOKEN_HAS if forced else 1
                answer = await ask(self._http, self._fleet, journey.user, replica, min_ttl=min_ttl)
                journey.polls.append(answer)
            await asyncio.sleep(self._pause(journey))

    @staticmethod
    def _pause(journey: Journey) -> float:
        """Return the pause before the next poll: users who have just left are polled most often."""
        if journey.wanted:
            return 0.5
        if journey.ended is None:
            return 1.0
        return 0.3 if time.time() - journey.ended.ended < 4 else 2.0

    def _replica(self) -> int:
        return random.randrange(len(self._fleet.replicas))

    async def _consent(self, journey: Journey) -> int:
        """Follow link, Google and callback; return the status of the last page or of the first
        error.
        """
        serving = self._fleet.replicas[self._replica()]
        link = await self._http.post(
            f"{serving.internal_url}/v1/users/{quote(journey.user.id)}/connect-links",
            json={"scopes": [CALENDAR_READONLY]},
            headers=self._fleet.authorization,
        )
        if link.status_code != 201:
            return link.status_code
        async with httpx2.AsyncClient(timeout=_LIMIT_SECONDS, trust_env=False) as browser:
            to_google = await browser.get(at_replica(serving, link.json()["url"]))
            if to_google.status_code != 303:
                return to_google.status_code
            back = self._fleet.google.consent(to_google.headers["location"], journey.email)
            page = await browser.get(at_replica(serving, back))
            return page.status_code

    async def _revoke(self, journey: Journey) -> int:
        url = self._fleet.replicas[self._replica()].internal_url
        answer = await self._http.delete(
            f"{url}/v1/users/{quote(journey.user.id)}/grants", headers=self._fleet.authorization
        )
        return answer.status_code

    def _create_event(self, journey: Journey) -> str:
        """Create a security event. The caller sends it again until it is accepted."""
        reason = {"reason": "hijacking"}
        return self._fleet.google.security_event("account-disabled", journey.email, payload=reason)

    async def _send(self, event: str) -> int:
        url = self._fleet.replicas[self._replica()].public_url
        answer = await self._http.post(
            f"{url}/auth/google/risc", content=event, headers={"Content-Type": MEDIA_TYPE}
        )
        return answer.status_code


@contextmanager
def traffic_on(fleet: Fleet) -> Iterator[Traffic]:
    """Users arrive and leave during the block."""
    traffic = Traffic(fleet)
    traffic.start()
    try:
        yield traffic
    finally:
        traffic.stop()
