"""Callers that never stop asking, and a record of every answer they got, to be judged.

What is judged needs no knowledge of the broker's insides: whose token it was, whether it lived, and
whether somebody was refused who could have been served.
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
"""Seconds of life with which a token known to a replica must be handed out, whatever is down."""

_CLOCK_SLACK = 0.2
"""Seconds that a token may live less than was said of it, for the clocks are read one by one."""


@dataclass(frozen=True)
class Answer:
    """What one caller got. Times are seconds since 1970."""

    user: User
    replica: int
    incarnation: int | None
    """The replica's process."""
    began: float
    ended: float
    status: int | None
    """None when the connection broke."""
    code: str | None = None
    expires_at: float = 0.0
    fault: str | None = None
    """What is wrong with the token."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Record:
    """All answers, in the order in which they came."""

    answers: list[Answer] = field(default_factory=list)

    def since(self, moment: float) -> "Record":
        """Those to questions asked at or after a moment."""
        return Record([answer for answer in self.answers if answer.began >= moment])

    def summary(self) -> dict[str, int]:
        """How many of which."""
        return dict(Counter(f"{answer.status} {answer.code or ''}" for answer in self.answers))

    def slowest(self, status: int = 200) -> float:
        """Seconds that the longest answer of a status took."""
        return max((a.seconds for a in self.answers if a.status == status), default=0.0)

    def assert_sound(
        self,
        *,
        allowed: Collection[str] = (),
        broken: bool = False,
        among_replicas: bool = True,
    ) -> None:
        """No wrong token, no refusal but the allowed ones, nobody refused who could be served.

        `broken` allows connections that break. `among_replicas` also expects of a replica the
        tokens that others handed out, which needs a database that works.
        """
        assert self.answers, "nobody asked"
        faults = [answer for answer in self.answers if answer.fault]
        assert not faults, faults[:3]
        codes = {a.code for a in self.answers if a.status is not None and a.status != 200}
        assert codes <= set(allowed), self.summary()
        assert broken or all(answer.status is not None for answer in self.answers), self.summary()
        unjust = self._unjust(among_replicas=among_replicas)
        assert not unjust, unjust[:3]

    def _unjust(self, *, among_replicas: bool) -> list[tuple[Answer, float]]:
        """Refusals of somebody whose token was known and lived; and how long it lived on."""
        best: dict[tuple[Any, ...], list[Answer]] = {}
        for answer in self.answers:
            if answer.status == 200:
                best.setdefault(self._place(answer, among_replicas), []).append(answer)
        unjust = []
        for refused in self.answers:
            if refused.status in (None, 200):
                continue
            known = best.get(self._place(refused, among_replicas), ())
            lives = max((a.expires_at for a in known if a.ended < refused.began), default=0.0)
            if lives > refused.ended + _STILL_GOOD:
                unjust.append((refused, lives - refused.ended))
        return unjust

    @staticmethod
    def _place(answer: Answer, among_replicas: bool) -> tuple[Any, ...]:
        if among_replicas:
            return (answer.user.id,)
        return (answer.user.id, answer.replica, answer.incarnation)


class LoadGenerator:
    """Asks from a thread of its own until it is told to stop.

    Two thirds of the users are warm: asked for all the time, at every replica, with a short
    `min_ttl`, a few with one that no token can satisfy. The others are cold: asked for once in a
    while, when nothing is held any more.
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
        """Let the last answers come, and raise what went wrong in here."""
        self._stopping.set()
        self._thread.join(_LIMIT_SECONDS + 10)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._ask_all())
        except BaseException as error:
            self._failure = error

    async def _ask_all(self) -> None:
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
                    group.create_task(self._keep_asking(http, user, number, 0.08, min_ttl))
            for user in users[len(warm) :]:
                group.create_task(self._keep_asking(http, user, None, 5.0, 1))

    async def _keep_asking(
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
    """One question, and its answer looked at."""
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
    fault, expires_at = _look_at(fleet, user, facts, began)
    return Answer(user, replica, incarnation, began, ended, 200, None, expires_at, fault)


def _look_at(
    fleet: Fleet, user: User, facts: dict[str, Any], began: float
) -> tuple[str | None, float]:
    """What is wrong with a token, if anything, and until when it lives, as Google sees it."""
    token = fleet.google.state.access_tokens.get(facts["access_token"])
    if token is None:
        return "Google does not know it", 0.0
    now = fleet.google.clock.epoch()
    if token.sub != user.sub or facts["account"]["sub"] != user.sub:
        return "it is somebody else's", 0.0
    if token.expires_at <= now:
        return f"it expired {now - token.expires_at:.1f} s ago", 0.0
    # Longer is no fault: whole seconds are said, and counted from before Google was asked.
    if began + facts["expires_in"] > token.expires_at + _CLOCK_SLACK:
        return f"it lives {token.expires_at - now:.1f} s, not {facts['expires_in']}", 0.0
    return None, token.expires_at


@contextmanager
def load_on(fleet: Fleet, *, warm_up: float = 1.0) -> Iterator[Record]:
    """Callers who ask all through the block, and for a while before it."""
    generator = LoadGenerator(fleet)
    generator.start()
    try:
        time.sleep(warm_up)
        yield generator.record
    finally:
        generator.stop()


async def ask_at_once(
    fleet: Fleet, user: User, callers: int, *, min_ttl: int = 1
) -> Sequence[Answer]:
    """Many callers at the same moment, spread over the replicas."""
    count = len(fleet.replicas)
    limits = httpx2.Limits(max_connections=callers)
    async with httpx2.AsyncClient(timeout=60, trust_env=False, limits=limits) as http:
        asking = (
            ask(http, fleet, user, number % count, min_ttl=min_ttl) for number in range(callers)
        )
        return await asyncio.gather(*asking)
