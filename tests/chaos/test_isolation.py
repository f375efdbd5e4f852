"""Nobody's trouble is anybody else's: neither a lock that somebody keeps, nor what Google answers
to single accounts, whoever asks for them and how often.
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
from tests.chaos.neighbours import PAUSE_SECONDS, going_on, serve_others
from tests.support.processes import wait_until
from tests.support.world import CALENDAR, ORIGIN, stanza, write_callers

logger = logging.getLogger(__name__)

OTHERS = round((TOKEN_LIFETIME + 1) / PAUSE_SECONDS)
"""So many that the token of each has expired when its turn comes again."""

AT_ONCE = 16
"""Requests of the one caller, or the one address, at a time."""

QUICK, LONG = 4.0, 20.0
"""Seconds of trouble."""

LENGTHS = [pytest.param(QUICK, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.chaos)]


class Neighbourhood:
    """One broker, the others, and a caller that asks for too much."""

    def __init__(self, fleet: Fleet, others: Sequence[User], loud_key: str) -> None:
        self.fleet = fleet
        self.others = others
        self.loud = {"Authorization": f"Bearer {loud_key}"}
        self.answers: Counter[int] = Counter()
        """What the loud one got."""

    @property
    def url(self) -> str:
        return self.fleet.replicas[0].internal_url

    async def assert_undisturbed(self, seconds: float, *trouble: Coroutine[Any, Any, None]) -> None:
        peace = await serve_others(self.fleet, self.others, seconds=QUICK)
        async with going_on(*trouble):
            # What has been held up for so long is no accident of the first moment.
            await asyncio.sleep(1)
            meanwhile = await serve_others(self.fleet, self.others, seconds=seconds)
        logger.info("in peace: %s; meanwhile: %s; loud: %s", peace, meanwhile, dict(self.answers))
        meanwhile.assert_as_in(peace)
        assert self.answers.total() > 0

    async def ask(self, method: str, path: str, *, pause: float = 0.0, **more: Any) -> None:
        """The loud one asks the same again and again."""
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
            while True:
                answer = await http.request(method, self.url + path, headers=self.loud, **more)
                self.answers[answer.status_code] += 1
                await asyncio.sleep(pause)


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    shared_database: str,
    google: GoogleStandin,
) -> Iterator[tuple[Fleet, list[User], str]]:
    folder: Path = tmp_path_factory.mktemp("isolation")
    with running_fleet(folder, postgres, shared_database, google, replicas=1) as fleet:
        loud_key = new_key()
        write_callers(
            folder / "callers.yaml",
            {"calendar-sync": stanza(fleet.key), "loud": stanza(loud_key)},
        )
        users = fleet.connect(OTHERS)
        wait_until("the loud one is known", lambda: _is_known(fleet, users[0], loud_key))
        yield fleet, users, loud_key


def _is_known(fleet: Fleet, user: User, key: str) -> bool:
    url = token_url(fleet.replicas[0], user)
    return fleet.http.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.fixture
def neighbourhood(served: tuple[Fleet, list[User], str]) -> Iterator[Neighbourhood]:
    fleet, others, loud_key = served
    yield Neighbourhood(fleet, others, loud_key)
    fleet.google.faults.clear()


@asynccontextmanager
async def _locked(fleet: Fleet, user: User) -> AsyncIterator[None]:
    """Somebody keeps the lock of a user's row, as a lost machine's transaction would."""
    connection = await asyncpg.connect(fleet.postgres.url(fleet.database))
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM grants WHERE user_id = $1 FOR UPDATE", user.id)
            yield
    finally:
        await connection.close()


@pytest.mark.parametrize("seconds", LENGTHS)
async def test_withdrawals_of_a_locked_user_hold_up_nobody_else(
    neighbourhood: Neighbourhood, seconds: float
) -> None:
    (victim,) = neighbourhood.fleet.connect()
    path = f"/v1/users/{victim.id}/grants"
    async with _locked(neighbourhood.fleet, victim):
        await neighbourhood.assert_undisturbed(
            seconds, *(neighbourhood.ask("DELETE", path) for _ in range(AT_ONCE))
        )
    assert 204 not in neighbourhood.answers


async def test_refreshes_of_locked_users_hold_up_nobody_else(
    neighbourhood: Neighbourhood,
) -> None:
    """Of more users than one caller may have connections."""
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


async def test_browsers_of_one_address_hold_up_nobody_else_at_a_locked_user(
    neighbourhood: Neighbourhood,
) -> None:
    fleet = neighbourhood.fleet
    (victim,) = fleet.connect()
    callbacks = [await _back_from_google(fleet, victim) for _ in range(AT_ONCE)]

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
    """A browser that has consented, and is about to call back."""
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


@pytest.mark.parametrize("seconds", LENGTHS)
async def test_security_events_of_a_locked_account_hold_up_nobody_else(
    neighbourhood: Neighbourhood, seconds: float
) -> None:
    fleet = neighbourhood.fleet
    (victim,) = fleet.connect()
    url = f"{fleet.replicas[0].public_url}/auth/google/risc"

    async def tell() -> None:
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
            while True:
                token = fleet.google.security_event("sessions-revoked", victim.sub)
                answer = await http.post(
                    url, content=token, headers={"Content-Type": "application/secevent+jwt"}
                )
                neighbourhood.answers[answer.status_code] += 1

    async with _locked(fleet, victim):
        await neighbourhood.assert_undisturbed(seconds, *(tell() for _ in range(AT_ONCE)))
    assert 202 not in neighbourhood.answers


BAD_ANSWERS = {
    "429": Fault.rate_limited(retry_after=60),
    "403 with HTML": Fault.html_403(),
    "500": Fault.http(500),
}


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_accounts_that_google_throttles_or_refuses_disturb_no_other(
    neighbourhood: Neighbourhood, answer: str, seconds: float
) -> None:
    fleet = neighbourhood.fleet
    bad = fleet.connect(6)
    for user in bad:
        fleet.google.faults.always("token", BAD_ANSWERS[answer], account=user.sub)
    polls = (neighbourhood.ask("GET", f"/v1/users/{quote(user.id)}/token", pause=1) for user in bad)
    fleet.let_expire(bad)
    await neighbourhood.assert_undisturbed(seconds, *polls)
    assert 503 in neighbourhood.answers


@pytest.mark.chaos
async def test_accounts_at_which_google_hangs_disturb_no_other(
    neighbourhood: Neighbourhood,
) -> None:
    """Long enough for the first ones to be given up, and for some to be asked about again."""
    fleet = neighbourhood.fleet
    bad = fleet.connect(10)
    for user in bad:
        fleet.google.faults.always("token", Fault.silence(60), account=user.sub)
    polls = (neighbourhood.ask("GET", f"/v1/users/{quote(user.id)}/token", pause=1) for user in bad)
    fleet.let_expire(bad)
    await neighbourhood.assert_undisturbed(LONG, *polls)
    assert 503 in neighbourhood.answers
