"""What each answer of Google means for the grant, as tables."""

from datetime import timedelta
from typing import cast

import pytest

from broker.database.database import StorageBusy, StorageUnavailable
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    RequestRefused,
    ScopeRefused,
)
from broker.google.oauth import GoogleOAuth
from broker.grants.refresh_lease import Lease, RefreshLeases
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.secret_sources.current_client import CurrentClient
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache, Watch
from broker.tokens.refresh.google_calls import RefreshCalls
from broker.tokens.refresh.google_refresh import GoogleRefresh, Refresh, RefreshRecords, Requester
from broker.tokens.refresh.lease_waits import ReplicaLeases, Wakeups
from broker.tokens.refresh.write_behind import WriteBehind
from broker.tokens.results import (
    READ_AGAIN,
    Denial,
    NotGranted,
    Outage,
    RefreshResult,
    Unavailable,
    google_unavailable,
    storage_unavailable,
)
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, GMAIL_READONLY
from tests.tokens.refresh import fakes
from tests.tokens.refresh.fakes import response
from tests.tokens.samples import cached, stored

SECOND = timedelta(seconds=1)
OPENID = ("openid", "https://www.googleapis.com/auth/userinfo.email")


class Bench:
    """A refresh with everything around it faked but the calls' back-off."""

    def __init__(self, clock: ManualClock) -> None:
        self.google = fakes.Google()
        self.grants = fakes.Grants()
        self.leases = fakes.Leases()
        self.write_behind = fakes.WriteBehind()
        self.records = fakes.Records()
        self.cache = TokenCache()
        self.calls = RefreshCalls(
            google=cast(GoogleOAuth, self.google),
            client=cast(CurrentClient, fakes.Client()),
            clock=clock,
        )
        self.google_refresh = GoogleRefresh(
            grants=cast(GrantStore, self.grants),
            calls=self.calls,
            leases=ReplicaLeases(cast(RefreshLeases, self.leases), Wakeups()),
            write_behind=cast(WriteBehind, self.write_behind),
            cache=self.cache,
            records=cast(RefreshRecords, self.records),
            clock=clock,
        )
        self.refresh = Refresh(self.grants.rows[0], (CALENDAR,), Requester("sync", "id"))
        self.lease = Lease(self.refresh.grant.id, CALENDAR, 1)

    def of_client(self, client_id: str) -> None:
        self.refresh = Refresh(stored(client_id=client_id), (CALENDAR,), Requester())

    async def run(self) -> RefreshResult:
        return await self.google_refresh.run(self.refresh, self.lease)

    @property
    def is_paused(self) -> bool:
        return self.calls.refusal(self.refresh.key) is not None


@pytest.fixture
async def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


def _without_time(result: RefreshResult) -> RefreshResult:
    """Return a refusal without its random `retry_after`."""
    if isinstance(result, Unavailable):
        assert result.retry_after > timedelta(0)
        return result.with_retry_after(SECOND)
    return result


@pytest.mark.parametrize(
    ("error", "expected", "outcome", "is_paused"),
    [
        (
            GrantRefused("invalid_grant"),
            NotGranted(Denial.REAUTHORIZATION_REQUIRED, google_reason="invalid_grant"),
            "grant_refused",
            False,
        ),
        (
            GrantRefused("invalid_rapt"),
            NotGranted(Denial.REAUTHORIZATION_REQUIRED, google_reason="invalid_rapt"),
            "grant_refused",
            False,
        ),
        (
            ScopeRefused(),
            NotGranted(Denial.SCOPE_NOT_GRANTED, (CALENDAR,)),
            "scope_refused",
            True,
        ),
        (GoogleUnavailable("http_503"), google_unavailable(), "unavailable", True),
        (GoogleUnavailable("busy"), google_unavailable(), "unavailable", False),
        (GoogleUnavailable("circuit_open"), google_unavailable(), "unavailable", False),
        (
            RequestRefused("invalid_request"),
            google_unavailable("Google refuses this refresh (invalid_request); the grant is kept."),
            "unavailable",
            True,
        ),
        (
            ClientRefused("invalid_client"),
            Unavailable(Outage.CLIENT, SECOND),
            "client_refused",
            True,
        ),
        (ClientRefused("org_internal"), Unavailable(Outage.CLIENT, SECOND), "client_refused", True),
    ],
    ids=str,
)
async def test_each_error_of_google(
    bench: Bench, error: GoogleError, expected: RefreshResult, outcome: str, is_paused: bool
) -> None:
    bench.google.answers = [error]

    assert _without_time(await bench.run()) == expected
    assert bench.records.outcomes == [outcome]
    assert bench.is_paused is is_paused
    assert (bench.grants.marked != []) is isinstance(error, GrantRefused)
    assert bench.grants.saved == []


@pytest.mark.parametrize(
    ("reason", "is_general"),
    [
        ("invalid_client", True),
        ("deleted_client", True),
        ("disabled_client", True),
        ("unauthorized_client", False),
        ("org_internal", False),
    ],
)
async def test_a_refused_client_pauses_all_grants_only_if_all_are_concerned(
    bench: Bench, reason: str, is_general: bool
) -> None:
    bench.google.answers = [ClientRefused(reason)]

    await bench.run()

    other = stored("user-2").grant.id
    assert (bench.calls.refusal((other, CALENDAR)) is not None) is is_general


@pytest.mark.parametrize("error", [GrantRefused("invalid_grant"), ClientRefused("invalid_client")])
async def test_a_grant_of_another_client_is_a_misconfiguration(
    bench: Bench, error: GoogleError
) -> None:
    bench.of_client("another")
    bench.google.answers = [error]

    assert _without_time(await bench.run()) == Unavailable(Outage.CLIENT, SECOND)
    assert bench.records.outcomes == ["foreign_client"]
    assert bench.grants.marked == []


async def test_a_refused_grant_drops_the_users_cached_tokens(
    bench: Bench, clock: ManualClock
) -> None:
    token = cached(clock, bench.refresh.grant)
    bench.cache.put("user-1", CALENDAR, token, Watch())
    bench.google.answers = [GrantRefused("invalid_grant")]

    await bench.run()

    assert not token.alive


async def test_soon_after_an_outage_a_refused_grant_is_not_marked(bench: Bench) -> None:
    bench.leases.is_unsettled = True
    bench.google.answers = [GrantRefused("invalid_grant")]

    assert _without_time(await bench.run()) == storage_unavailable(SECOND)
    assert (bench.records.outcomes, bench.grants.marked) == (["unsettled"], [])


async def test_a_refused_grant_that_has_changed_is_read_again(bench: Bench) -> None:
    bench.grants.is_changed = True
    bench.google.answers = [GrantRefused("invalid_grant")]

    assert await bench.run() is READ_AGAIN
    assert bench.records.outcomes == []


async def test_an_unreadable_refresh_token_is_not_sent(bench: Bench) -> None:
    bench.grants.is_unreadable = True

    assert await bench.run() == storage_unavailable(30 * SECOND)
    assert bench.google.sent == []


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (None, (CALENDAR,)),
        ((CALENDAR,), (CALENDAR,)),
        ((CALENDAR, *OPENID), (CALENDAR, *OPENID)),
        (OPENID, OPENID),
    ],
)
async def test_a_new_token_is_stored_with_the_scopes_that_google_names(
    bench: Bench, scopes: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    bench.google.answers = [response(scopes, "1//rotated")]

    token = await bench.run()

    assert isinstance(token, CachedToken)
    assert token.scopes == expected
    ((scope_set, stored_token, refresh_token, lease),) = bench.grants.saved
    assert (scope_set, stored_token.scopes, lease) == (CALENDAR, expected, bench.lease)
    assert refresh_token == Secret("1//rotated")
    assert bench.records.outcomes == ["refreshed"]
    assert not bench.is_paused


async def test_a_token_with_more_scopes_than_requested_is_not_handed_out(bench: Bench) -> None:
    bench.google.answers = [response((CALENDAR, GMAIL_READONLY))]

    result = await bench.run()

    assert isinstance(result, Unavailable)
    assert result.reason is Outage.GOOGLE
    assert (bench.records.outcomes, bench.grants.saved) == (["too_wide"], [])
    assert bench.is_paused


async def test_an_unwritten_refresh_token_is_sent_instead_of_the_stored_one(bench: Bench) -> None:
    bench.write_behind.rotated = Secret("1//unwritten")
    bench.google.answers = [response()]

    await bench.run()

    assert [token for _, token, _ in bench.google.sent] == ["1//unwritten"]


@pytest.mark.parametrize("failure", [StorageUnavailable("away"), StorageBusy("busy")])
async def test_a_token_that_cannot_be_written_is_served_and_written_later(
    bench: Bench, failure: Exception
) -> None:
    bench.grants.failure = failure
    bench.google.answers = [response(None, "1//rotated")]

    assert isinstance(await bench.run(), CachedToken)

    ((scope_set, token, refresh_token),) = bench.write_behind.added
    assert (scope_set, token.value.reveal()) == (CALENDAR, "ya29.new")
    assert refresh_token == Secret("1//rotated")
    assert bench.records.outcomes == ["refreshed_unsaved"]


@pytest.mark.parametrize(("rotated", "late"), [(None, []), ("1//late", [Secret("1//late")])])
async def test_a_token_of_a_grant_that_has_changed_is_discarded(
    bench: Bench, rotated: str | None, late: list[Secret]
) -> None:
    bench.grants.is_changed = True
    bench.google.answers = [response(None, rotated)]

    assert await bench.run() is READ_AGAIN
    assert bench.write_behind.late == late
    assert bench.records.outcomes == ["superseded"]
