"""When refreshes are sent to Google, and when they are held back."""

import asyncio
from datetime import timedelta
from typing import cast
from uuid import uuid4

import pytest

from broker.google.errors import ClientRefused, GoogleError, GoogleUnavailable, GrantRefused
from broker.google.oauth import GoogleOAuth
from broker.secret import Secret
from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import OAuthClient
from broker.tokens.refresh import google_calls as module
from broker.tokens.refresh.google_calls import RefreshCalls
from broker.tokens.results import Denial, NotGranted, Outage, Unavailable, google_unavailable
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR
from tests.tokens.refresh.fakes import CLIENT, Client, Google, response

SECOND = timedelta(seconds=1)
GRANT = uuid4()
KEY = (GRANT, CALENDAR)
OTHER_SCOPES = (GRANT, "other")
OTHER_GRANT = (uuid4(), CALENDAR)
TOKEN = Secret("1//refresh")
NEW_CLIENT = OAuthClient(client_id="client", client_secret=Secret("new"), version=2)
OUTAGE = google_unavailable()


@pytest.fixture
async def google() -> Google:
    return Google()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def calls(google: Google, client: Client, clock: ManualClock) -> RefreshCalls:
    return RefreshCalls(
        google=cast(GoogleOAuth, google), client=cast(CurrentClient, client), clock=clock
    )


def _is_paused(calls: RefreshCalls) -> tuple[bool, bool, bool]:
    """For the same key, the same grant with other scopes, and another grant."""
    key, other_scopes, other_grant = (
        calls.refusal(each) is not None for each in (KEY, OTHER_SCOPES, OTHER_GRANT)
    )
    return key, other_scopes, other_grant


async def test_at_first_nothing_is_held_back(calls: RefreshCalls) -> None:
    assert _is_paused(calls) == (False, False, False)
    assert calls.pause_left(KEY) == timedelta(0)


async def test_a_pause_of_a_key_holds_back_no_other_scopes(calls: RefreshCalls) -> None:
    refusal = NotGranted(Denial.SCOPE_NOT_GRANTED, (CALENDAR,))
    calls.back_off(KEY, refusal)

    assert _is_paused(calls) == (True, False, False)
    assert calls.refusal(KEY) == refusal
    calls.succeeded(KEY)
    assert _is_paused(calls) == (False, False, False)


async def test_a_pause_of_a_grant_holds_back_all_its_scopes(calls: RefreshCalls) -> None:
    calls.back_off(GRANT, OUTAGE, retry_after=10 * SECOND)

    assert _is_paused(calls) == (True, True, False)
    assert calls.refusal(OTHER_SCOPES) == google_unavailable(retry_after=10 * SECOND)
    assert calls.pause_left(OTHER_SCOPES) == 10 * SECOND


async def test_a_refused_client_holds_everything_back_until_it_changes(
    calls: RefreshCalls, client: Client, clock: ManualClock
) -> None:
    assert calls.pause_client(CLIENT) == Unavailable(Outage.CLIENT, 5 * SECOND)

    assert _is_paused(calls) == (True, True, True)
    clock.advance(2 * SECOND)
    assert calls.refusal(OTHER_GRANT) == Unavailable(Outage.CLIENT, 3 * SECOND)
    assert calls.pause_left(KEY) == 3 * SECOND
    client.client = NEW_CLIENT
    assert _is_paused(calls) == (False, False, False)


async def test_the_pause_of_a_refused_client_ends(calls: RefreshCalls, clock: ManualClock) -> None:
    calls.pause_client(CLIENT)
    clock.advance(5 * SECOND)
    assert _is_paused(calls) == (False, False, False)


async def test_a_success_ends_the_pause_of_the_client(calls: RefreshCalls) -> None:
    calls.pause_client(CLIENT)
    calls.client_succeeded()
    assert _is_paused(calls) == (False, False, False)


async def test_a_refresh_is_sent_with_the_configured_client(
    calls: RefreshCalls, google: Google
) -> None:
    answer = response()
    google.answers = [answer]

    result = await calls.refresh(GRANT, TOKEN, (CALENDAR,))

    assert (result.client, result.answer) == (CLIENT, answer)
    assert google.sent == [(CLIENT, "1//refresh", (CALENDAR,))]


@pytest.mark.parametrize(
    ("next_client", "sent"), [(None, [CLIENT]), (NEW_CLIENT, [CLIENT, NEW_CLIENT])]
)
async def test_a_refresh_is_sent_again_only_if_the_client_has_changed(
    calls: RefreshCalls,
    google: Google,
    client: Client,
    next_client: OAuthClient | None,
    sent: list[OAuthClient],
) -> None:
    client.next_client = next_client
    google.answers = [ClientRefused("invalid_client"), ClientRefused("invalid_client")]

    result = await calls.refresh(GRANT, TOKEN, (CALENDAR,))

    assert isinstance(result.answer, ClientRefused)
    assert [used for used, _, _ in google.sent] == sent
    assert (result.client, client.reads) == (sent[-1], 1)


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (GoogleUnavailable("http_503"), True),
        (GoogleUnavailable("timeout"), True),
        (GoogleUnavailable("rate_limited"), False),
        (GoogleUnavailable("html_403"), False),
        (GrantRefused("invalid_grant"), False),
        (ClientRefused("invalid_client"), False),
    ],
    ids=str,
)
async def test_only_failures_of_google_as_a_whole_open_the_circuit_breaker(
    calls: RefreshCalls, google: Google, error: GoogleError, opens: bool
) -> None:
    google.answers = [error] * 5
    for _ in range(5):
        await calls.refresh(uuid4(), TOKEN, (CALENDAR,))

    assert calls._breaker.is_open is opens


async def test_an_answer_of_any_kind_ends_the_pause_of_the_grant(
    calls: RefreshCalls, google: Google
) -> None:
    calls.back_off(GRANT, OUTAGE)
    google.answers = [GrantRefused("invalid_grant")]

    await calls.refresh(GRANT, TOKEN, (CALENDAR,))

    assert calls.refusal(KEY) is None


async def test_a_silent_google_is_given_up_at_the_timeout(
    calls: RefreshCalls, google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT", timedelta(seconds=0.01))
    google.may_answer.clear()

    result = await calls.refresh(GRANT, TOKEN, (CALENDAR,))

    assert isinstance(result.answer, GoogleUnavailable)
    assert result.answer.reason == "timeout"


async def test_a_refresh_without_a_free_slot_says_nothing_about_google(
    google: Google, client: Client, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(module, "CALL_TIMEOUT", timedelta(seconds=0.05))
    calls = RefreshCalls(
        google=cast(GoogleOAuth, google), client=cast(CurrentClient, client), clock=clock
    )
    async with calls._slots:
        result = await calls.refresh(GRANT, TOKEN, (CALENDAR,))

    assert isinstance(result.answer, GoogleUnavailable)
    assert (result.answer.reason, result.answer.was_asked) == ("busy", False)
    assert google.sent == []


async def test_refreshes_at_google_are_bounded_in_number(
    google: Google, client: Client, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    calls = RefreshCalls(
        google=cast(GoogleOAuth, google), client=cast(CurrentClient, client), clock=clock
    )
    google.may_answer.clear()
    google.answers = [response() for _ in range(3)]
    tasks = [asyncio.create_task(calls.refresh(uuid4(), TOKEN, (CALENDAR,))) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(google.sent) == 2

    google.may_answer.set()
    await asyncio.gather(*tasks)
    assert len(google.sent) == 3


async def test_while_google_fails_a_grant_that_failed_waits_and_others_probe(
    calls: RefreshCalls, google: Google, clock: ManualClock
) -> None:
    google.answers = [GoogleUnavailable("http_503")] * 5
    for _ in range(5):
        await calls.refresh(uuid4(), TOKEN, (CALENDAR,))
    calls.back_off(GRANT, OUTAGE)
    clock.advance(timedelta(seconds=1))

    waiting = calls.refusal(KEY)
    assert isinstance(waiting, Unavailable)
    assert timedelta(0) < waiting.retry_after <= 2.4 * SECOND
    assert calls.refusal(OTHER_GRANT) is None
