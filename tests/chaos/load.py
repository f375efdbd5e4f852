"""Callers that send requests continuously, and a checked record of every answer.

The checks need no knowledge of the broker's internals: is it the user's token, is it valid, and was
a request refused that the replica could have answered.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.chaos.fleet import Fleet, User, token_url

_LIMIT_SECONDS = 25.0
_STILL_GOOD = 1.6
"""Seconds. A token with this lifetime left that a replica knows must be returned during any outage.
"""

_CLOCK_SLACK = 0.2
"""Seconds by which a token's lifetime may be shorter than stated: the clocks are read in turn."""


@dataclass(frozen=True)
class Answer:
    """The answer to one request. Times are seconds since 1970."""

    user: User
    replica: int
    incarnation: int | None
    """The process id of the replica."""
    began: float
    ended: float
    status: int | None
    """`None`: the connection broke."""
    code: str | None = None
    expires_at: float = 0.0
    fault: str | None = None
    """What is wrong with the token, if anything."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Record:
    """All answers, in the order in which they arrived."""

    answers: list[Answer] = field(default_factory=list)

    def since(self, moment: float) -> "Record":
        """Return the answers to requests made at or after `moment`."""
        return Record([answer for answer in self.answers if answer.began >= moment])

    def summary(self) -> dict[str, int]:
        """Return the number of answers per status and code."""
        return dict(Counter(f"{answer.status} {answer.code or ''}" for answer in self.answers))

    def slowest(self, status: int = 200) -> float:
        """Return the time of the slowest answer with this status, in seconds."""
        return max((a.seconds for a in self.answers if a.status == status), default=0.0)

    def assert_sound(
        self,
        *,
        allowed: Collection[str] = (),
        broken: bool = False,
        among_replicas: bool = True,
    ) -> None:
        """Check: no wrong token, no error but the allowed ones, no refusal of a token that was
        known.

        `broken` allows connections that break. `among_replicas` also expects of a replica the
        tokens that other replicas returned, which needs a database that works.
        """
        assert self.answers, "no request was made"
        faults = [answer for answer in self.answers if answer.fault]
        assert not faults, faults[:3]
        codes = {a.code for a in self.answers if a.status is not None and a.status != 200}
        assert codes <= set(allowed), self.summary()
        assert broken or all(answer.status is not None for answer in self.answers), self.summary()
        wrong_refusals = self._wrong_refusals(among_replicas=among_replicas)
        assert not wrong_refusals, wrong_refusals[:3]

    def _wrong_refusals(self, *, among_replicas: bool) -> list[tuple[Answer, float]]:
        """Return the refusals although the token was known and valid, with its lifetime left."""
        best: dict[tuple[Any, ...], list[Answer]] = {}
        for answer in self.answers:
            if answer.status == 200:
                best.setdefault(self._cache_key(answer, among_replicas), []).append(answer)
        wrong_refusals = []
        for refused in self.answers:
            if refused.status in (None, 200):
                continue
            known = best.get(self._cache_key(refused, among_replicas), ())
            lives = max((a.expires_at for a in known if a.ended < refused.began), default=0.0)
            if lives > refused.ended + _STILL_GOOD:
                wrong_refusals.append((refused, lives - refused.ended))
        return wrong_refusals

    @staticmethod
    def _cache_key(answer: Answer, among_replicas: bool) -> tuple[Any, ...]:
        if among_replicas:
            return (answer.user.id,)
        return (answer.user.id, answer.replica, answer.incarnation)


class LoadGenerator:
    """Sends requests from a thread until `stop`.

    Two thirds of the users are warm: requested continuously, at every replica, with a short
    `min_ttl`, and some with one that no token can satisfy. The others are cold: requested every few
    seconds, when their token is no longer cached.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.record = Record()
        self._fleet = fleet
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the last answers. Raises what failed in the thread."""
        self._stopping.set()
        self._thread.join(_LIMIT_SECONDS + 10)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._request_all())
        except BaseException as error:
            self._failure = error

    async def _request_all(self) -> None:
        users = list(self._fleet.users)
        warm = users[: max(1, len(users) * 2 // 3)]
        limits = httpx2.Limits(max_connections=200)
        async with (
            httpx2.AsyncClient(timeout=_LIMIT_SECONDS, trust_env=False, limits=limits) as http,
            asyncio.TaskGroup() as group,
        ):
            for number in range(len(self._fleet.replicas)):
                for position, user in enumerate(warm):
                    min_ttl = 60 if position % 4 == 3 else position % 2
                    group.create_task(self._request_repeatedly(http, user, number, 0.08, min_ttl))
            for user in users[len(warm) :]:
                group.create_task(self._request_repeatedly(http, user, None, 5.0, 1))

    async def _request_repeatedly(
        self, http: httpx2.AsyncClient, user: User, replica: int | None, pause: float, min_ttl: int
    ) -> None:
        while not self._stopping.is_set():
            number = random.randrange(len(self._fleet.replicas)) if replica is None else replica
            answer = await ask(http, self._fleet, user, number, min_ttl=min_ttl)
            self.record.answers.append(answer)
            left = pause * random.uniform(0.7, 1.3)
            while left > 0 and not self._stopping.is_set():
                await asyncio.sleep(min(left, 0.2))
                left -= 0.2


async def ask(
    http: httpx2.AsyncClient, fleet: Fleet, user: User, replica: int, *, min_ttl: int
) -> Answer:
    """Request one token, and check the answer."""
    process = fleet.replicas[replica]
    incarnation = process.pid
    began = time.time()
    try:
        response = await http.get(
            token_url(process, user), params={"min_ttl": min_ttl}, headers=fleet.authorization
        )
    except httpx2.TransportError as error:
        fault = "no answer" if isinstance(error, httpx2.ReadTimeout) else None
        return Answer(user, replica, incarnation, began, time.time(), None, fault=fault)
    ended = time.time()
    facts = response.json()
    if response.status_code != 200:
        code = facts.get("code")
        return Answer(user, replica, incarnation, began, ended, response.status_code, code)
    fault, expires_at = _check_token(fleet, user, facts, began)
    return Answer(user, replica, incarnation, began, ended, 200, None, expires_at, fault)


def _check_token(
    fleet: Fleet, user: User, facts: dict[str, Any], began: float
) -> tuple[str | None, float]:
    """Return what is wrong with a token, if anything, and until when it is valid for Google."""
    token = fleet.google.state.access_tokens.get(facts["access_token"])
    if token is None:
        return "Google does not know it", 0.0
    now = fleet.google.clock.epoch()
    if token.sub != user.sub or facts["account"]["sub"] != user.sub:
        return "it is another user's", 0.0
    if token.expires_at <= now:
        return f"it expired {now - token.expires_at:.1f} s ago", 0.0
    # Longer is correct: `expires_in` is in whole seconds, from before the request to Google.
    if began + facts["expires_in"] > token.expires_at + _CLOCK_SLACK:
        return f"it lives {token.expires_at - now:.1f} s, not {facts['expires_in']}", 0.0
    return None, token.expires_at


@contextmanager
def load_on(fleet: Fleet, *, warm_up: float = 1.0) -> Iterator[Record]:
    """Callers send requests during the block, and from `warm_up` seconds before it."""
    generator = LoadGenerator(fleet)
    generator.start()
    try:
        time.sleep(warm_up)
        yield generator.record
    finally:
        generator.stop()


async def ask_concurrently(
    fleet: Fleet, user: User, callers: int, *, min_ttl: int = 1
) -> Sequence[Answer]:
    """Send many requests at the same moment, spread over the replicas."""
    count = len(fleet.replicas)
    limits = httpx2.Limits(max_connections=callers)
    async with httpx2.AsyncClient(timeout=60, trust_env=False, limits=limits) as http:
        asking = (
            ask(http, fleet, user, number % count, min_ttl=min_ttl) for number in range(callers)
        )
        return await asyncio.gather(*asking)
