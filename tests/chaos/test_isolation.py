"""One user's fault does not affect another user.

Neither a lock that is held, nor Google's answers for single accounts, whichever caller asks and
however often.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx2
import pytest

from broker.callers.keys import new_key
from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import TOKEN_LIFETIME, Fleet, User, running_fleet, token_url
from tests.chaos.neighbours import PAUSE_SECONDS, disturbance, serve_others
from tests.support.processes import wait_until
from tests.support.scopes import CALENDAR
from tests.support.world import ORIGIN, stanza, write_callers

logger = logging.getLogger(__name__)

OTHERS = round((TOKEN_LIFETIME + 1) / PAUSE_SECONDS)
"""Users requested in turn: so many that each token has expired when its user is next."""

CONCURRENCY = 16
"""Concurrent requests of one caller or one address."""

QUICK, LONG = 4.0, 20.0
"""Seconds that the fault lasts."""

DURATIONS = [
    pytest.param(QUICK, id="quick"),
    pytest.param(LONG, id="long", marks=pytest.mark.chaos),
]


class Neighbourhood:
    """One broker, its undisturbed users, and a noisy caller."""

    def __init__(self, fleet: Fleet, others: Sequence[User], noisy_key: str) -> None:
        self.fleet = fleet
        self.others = others
        self.noisy = {"Authorization": f"Bearer {noisy_key}"}
        self.answers: Counter[int] = Counter()
        """Answers to the noisy caller, per status."""

    @property
    def url(self) -> str:
        return self.fleet.replicas[0].internal_url

    async def assert_undisturbed(self, seconds: float, *faults: Coroutine[Any, Any, None]) -> None:
        baseline = await serve_others(self.fleet, self.others, seconds=QUICK)
        async with disturbance(*faults):
            # Measure the steady state, not the first moment.
            await asyncio.sleep(1)
            meanwhile = await serve_others(self.fleet, self.others, seconds=seconds)
        logger.info(
            "baseline: %s; meanwhile: %s; noisy caller: %s", baseline, meanwhile, dict(self.answers)
        )
        meanwhile.assert_undisturbed(baseline)
        assert self.answers.total() > 0

    async def ask(self, method: str, path: str, *, pause: float = 0.0, **more: Any) -> None:
        """Send the same request of the noisy caller repeatedly."""
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
            while True:
                answer = await http.request(method, self.url + path, headers=self.noisy, **more)
                self.answers[answer.status_code] += 1
                await asyncio.sleep(pause)


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    shared_database: str,
    google: GoogleStandin,
) -> Iterator[tuple[Fleet, list[User], str]]:
    folder: Path = tmp_path_factory.mktemp("isolation")
    with running_fleet(folder, postgres, shared_database, google, replicas=1) as fleet:
        noisy_key = new_key()
        write_callers(
            folder / "callers.yaml",
            {"calendar-sync": stanza(fleet.key), "noisy": stanza(noisy_key)},
        )
        users = fleet.connect(OTHERS)
        wait_until("the noisy caller is known", lambda: _is_known(fleet, users[0], noisy_key))
        yield fleet, users, noisy_key


def _is_known(fleet: Fleet, user: User, key: str) -> bool:
    url = token_url(fleet.replicas[0], user)
    return fleet.http.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.fixture
def neighbourhood(installation: tuple[Fleet, list[User], str]) -> Iterator[Neighbourhood]:
    fleet, others, noisy_key = installation
    yield Neighbourhood(fleet, others, noisy_key)
    fleet.google.faults.clear()


@asynccontextmanager
async def _locked(fleet: Fleet, user: User) -> AsyncIterator[None]:
    """Hold the lock of a user's row, as the transaction of a lost machine does."""
    connection = await asyncpg.connect(fleet.postgres.url(fleet.database))
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM grants WHERE user_id = $1 FOR UPDATE", user.id)
            yield
    finally:
        await connection.close()


@pytest.mark.parametrize("seconds", DURATIONS)
async def test_revocations_of_a_locked_user_delay_no_other_user(
    neighbourhood: Neighbourhood, seconds: float
) -> None:
    (victim,) = neighbourhood.fleet.connect()
    path = f"/v1/users/{victim.id}/grants"
    async with _locked(neighbourhood.fleet, victim):
        await neighbourhood.assert_undisturbed(
            seconds, *(neighbourhood.ask("DELETE", path) for _ in range(CONCURRENCY))
        )
    assert 204 not in neighbourhood.answers


async def test_refreshes_of_locked_users_delay_no_other_user(
    neighbourhood: Neighbourhood,
) -> None:
    """There are more locked users than one caller may have connections."""
    victims = neighbourhood.fleet.connect(12)
    async with AsyncExitStack() as stack:
        for victim in victims:
            await stack.enter_async_context(_locked(neighbourhood.fleet, victim))
        await neighbourhood.assert_undisturbed(
            2 * QUICK,
            *(
                neighbourhood.ask("GET", f"/v1/users/{victim.id}/token", params={"min_ttl": 86_400})
                for victim in victims
            ),
        )


async def test_callbacks_for_a_locked_user_delay_no_other_user(
    neighbourhood: Neighbourhood,
) -> None:
    fleet = neighbourhood.fleet
    (victim,) = fleet.connect()
    callbacks = [await _back_from_google(fleet, victim) for _ in range(CONCURRENCY)]

    async def call_back(cookies: httpx2.Cookies, url: str) -> None:
        transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx2.AsyncClient(transport=transport, cookies=cookies, timeout=30) as browser:
            answer = await browser.get(url)
            neighbourhood.answers[answer.status_code] += 1

    async with _locked(fleet, victim):
        await neighbourhood.assert_undisturbed(
            2 * QUICK, *(call_back(*callback) for callback in callbacks)
        )


async def _back_from_google(fleet: Fleet, user: User) -> tuple[httpx2.Cookies, str]:
    """Return the cookies and the callback of a browser that has consented at Google."""
    serving = fleet.replicas[0]
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        link = await http.post(
            f"{serving.internal_url}/v1/users/{user.id}/connect-links",
            json={"scopes": [CALENDAR]},
            headers=fleet.authorization,
        )
        address = link.raise_for_status().json()["url"].replace(ORIGIN, serving.public_url)
        to_google = await http.get(address)
        assert to_google.status_code == 303, to_google.text
        back = fleet.google.consent(to_google.headers["location"], user.sub)
        return http.cookies, back.replace(ORIGIN, serving.public_url)


@pytest.mark.parametrize("seconds", DURATIONS)
async def test_security_events_of_a_locked_account_delay_no_other_user(
    neighbourhood: Neighbourhood, seconds: float
) -> None:
    fleet = neighbourhood.fleet
    (victim,) = fleet.connect()
    url = f"{fleet.replicas[0].public_url}/auth/google/risc"

    async def send_events() -> None:
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
            while True:
                token = fleet.google.security_event("sessions-revoked", victim.sub)
                answer = await http.post(
                    url, content=token, headers={"Content-Type": "application/secevent+jwt"}
                )
                neighbourhood.answers[answer.status_code] += 1

    async with _locked(fleet, victim):
        await neighbourhood.assert_undisturbed(
            seconds, *(send_events() for _ in range(CONCURRENCY))
        )
    assert 202 not in neighbourhood.answers


BAD_ANSWERS = {
    "429": Fault.rate_limited(retry_after=60),
    "403 with HTML": Fault.html_403(),
    "500": Fault.http(500),
}


@pytest.mark.parametrize("seconds", DURATIONS)
@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_accounts_that_google_throttles_or_refuses_delay_no_other_user(
    neighbourhood: Neighbourhood, answer: str, seconds: float
) -> None:
    fleet = neighbourhood.fleet
    affected = fleet.connect(6)
    for user in affected:
        fleet.google.faults.always("token", BAD_ANSWERS[answer], account=user.sub)
    polls = (
        neighbourhood.ask("GET", f"/v1/users/{quote(user.id)}/token", pause=1) for user in affected
    )
    fleet.let_expire(affected)
    await neighbourhood.assert_undisturbed(seconds, *polls)
    assert 503 in neighbourhood.answers


@pytest.mark.chaos
async def test_accounts_for_which_google_hangs_delay_no_other_user(
    neighbourhood: Neighbourhood,
) -> None:
    """It lasts until the first requests time out and some are retried."""
    fleet = neighbourhood.fleet
    affected = fleet.connect(10)
    for user in affected:
        fleet.google.faults.always("token", Fault.silence(60), account=user.sub)
    polls = (
        neighbourhood.ask("GET", f"/v1/users/{quote(user.id)}/token", pause=1) for user in affected
    )
    fleet.let_expire(affected)
    await neighbourhood.assert_undisturbed(LONG, *polls)
    assert 503 in neighbourhood.answers
