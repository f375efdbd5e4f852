"""Each refusal is audited, also of unauthenticated clients, without the data they sent."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from broker.audit.unauthenticated_cap import RECORDS_PER_USER_PER_MINUTE
from tests.support.connections_page import (
    connections_link,
    forms,
    open_connections,
    open_withdrawal,
    send_form,
)
from tests.support.probes import audited, everything_stored
from tests.support.scopes import CALENDAR_READONLY
from tests.support.workloads import WORKLOAD, IssuerWorld
from tests.support.world import ADA, World


async def _audited(world: World, action: str, outcome: str, answer: httpx2.Response) -> str | None:
    """Return the caller and user of the only record of this refusal."""
    (record,) = await audited(world, action, outcome)
    assert record["request_id"] == answer.headers["x-request-id"]
    assert (record["account_sub"], record["scopes"]) == (None, None)
    user_id: str | None = record["user_id"]
    return user_id


async def _link(world: World) -> str:
    return str((await world.create_link("user-1")).raise_for_status().json()["url"])


async def test_a_credential_in_the_url_is_audited_without_it(world: World) -> None:
    answer = await world.internal.get(f"/v1/users/user-1/token?access_token={world.key}")
    assert answer.status_code == 400
    outcome = "invalid_request:credential_in_url"
    assert await _audited(world, "request_refused", outcome, answer) is None
    assert world.key not in await everything_stored(world)


async def test_a_credential_in_the_url_beside_a_valid_one_is_audited_with_the_caller(
    world: World,
) -> None:
    headers = {"Authorization": f"Bearer {world.key}"}
    answer = await world.internal.get("/v1/users/user-1/token?access_token=x", headers=headers)
    assert answer.status_code == 400
    (record,) = await audited(world, "request_refused", "invalid_request:credential_in_url")
    assert record["caller"] == "calendar-sync"


async def test_a_credential_in_the_url_beside_a_valid_jwt_is_audited_with_the_workload(
    issuer_world: IssuerWorld,
) -> None:
    # Also if it was never verified before.
    answer = await issuer_world.token_as(issuer_world.issuer.mint(), access_token="x")
    assert answer.status_code == 400
    answer = await issuer_world.token_as(issuer_world.issuer.mint(sub="unknown"), access_token="x")
    assert answer.status_code == 400
    outcome = "invalid_request:credential_in_url"
    known, unknown = await audited(issuer_world.world, "request_refused", outcome, count=2)
    assert (known["caller"], unknown["caller"]) == (WORKLOAD, None)


async def test_a_refused_link_is_audited(world: World) -> None:
    elsewhere = {"return_to": "https://attacker.example.com/"}
    for kind, action in (
        ("connect-links", "connect_link"),
        ("connections-links", "connections_link"),
    ):
        body = elsewhere | ({"scopes": [CALENDAR_READONLY]} if kind == "connect-links" else {})
        answer = await world.internal.post(
            f"/v1/users/user-1/{kind}", json=body, headers=world.authorization
        )
        assert answer.status_code == 400
        (record,) = await audited(world, action, "invalid_request")
        assert (record["caller"], record["user_id"]) == ("calendar-sync", "user-1")
        assert record["request_id"] == answer.headers["x-request-id"]
    assert "attacker" not in await everything_stored(world)


async def test_a_forged_connect_link_is_audited(world: World) -> None:
    answer = await world.public.get("/auth/google/authorize/user-1?link=made-up-token")
    assert answer.status_code == 400
    assert await _audited(world, "consent", "refused:link_not_ours", answer) is None
    assert "made-up-token" not in await everything_stored(world)


async def test_a_connect_link_of_another_user_is_audited_without_that_user(
    world: World,
) -> None:
    foreign = (await _link(world)).replace("user-1", "another-user")
    answer = await world.public.get(foreign)
    assert answer.status_code == 400
    assert await _audited(world, "consent", "refused:link_not_ours", answer) is None
    stored = await everything_stored(world)
    assert "another-user" not in stored
    assert parse_qs(urlsplit(foreign).query)["link"][0] not in stored


async def test_an_expired_connect_link_is_audited_with_its_user(world: World) -> None:
    link = await _link(world)
    world.clock.advance(timedelta(minutes=11))
    answer = await world.public.get(link)
    assert answer.status_code == 410
    assert await _audited(world, "consent", "refused:link_expired", answer) == "user-1"


async def test_an_unsolicited_callback_is_audited(world: World) -> None:
    answer = await world.public.get("/auth/google/callback?state=made-up&code=made-up-too")
    assert answer.status_code == 400
    assert await _audited(world, "consent", "refused:answer_unknown", answer) is None


async def test_a_replayed_callback_is_audited(world: World) -> None:
    async with world.browser() as browser:
        to_google = await browser.get(await _link(world))
        callback = world.standin.consent(to_google.headers["location"], "ada@example.com")
        await browser.get(callback)
        again = await browser.get(callback)
    assert again.status_code == 400
    assert await _audited(world, "consent", "refused:answer_unknown", again) is None


async def test_a_form_of_another_site_is_audited(world: World) -> None:
    answer = await world.public.post(
        await _link(world), data={"proof": "x"}, headers={"Origin": "https://evil.example"}
    )
    assert answer.status_code == 403
    assert await _audited(world, "consent", "refused:not_from_our_page", answer) is None


async def test_refused_links_to_the_connections_page_are_audited(world: World) -> None:
    unknown = await world.public.get("/connections?link=made-up")
    assert unknown.status_code == 400
    await _audited(world, "connections_page", "refused:link_not_ours", unknown)
    link = await connections_link(world)
    world.clock.advance(timedelta(minutes=11))
    expired = await world.public.get(link)
    assert expired.status_code == 410
    await _audited(world, "connections_page", "refused:link_expired", expired)


async def test_forms_of_another_visitor_are_audited(world: World) -> None:
    await world.connect()
    async with world.browser() as browser:
        await open_connections(world, browser)
        (row,) = await world.sql("SELECT id::text FROM grants")
        (form,) = forms(await open_withdrawal(browser, row["id"]), "/connections/withdraw")
        foreign = await send_form(
            browser, "/connections/withdraw", form, Origin="https://evil.example"
        )
        forged = await send_form(browser, "/connections/withdraw", {**form, "token": "made-up"})
    assert (foreign.status_code, forged.status_code) == (403, 403)
    outcome = "refused:form_not_ours"
    by_stranger, by_visitor = await audited(world, "connections_page", outcome, count=2)
    assert (by_stranger["user_id"], by_visitor["user_id"]) == (None, "user-1")
    assert by_visitor["request_id"] == forged.headers["x-request-id"]


async def test_one_link_cannot_fill_the_audit_trail_or_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    link = await _link(world)
    async with world.browser() as first, world.browser() as other:
        assert (await first.get(link)).status_code == 303
        answers = [await other.get(link) for _ in range(300)]
    refused = sum(answer.status_code == 403 for answer in answers)
    assert refused == 300
    recorded = await audited(
        world, "consent", "refused:link_elsewhere", count=RECORDS_PER_USER_PER_MINUTE
    )
    assert {row["user_id"] for row in recorded} == {"user-1"}
    assert len(recorded) + await _left_out(world) == refused
    assert len(recorded) == RECORDS_PER_USER_PER_MINUTE
    said = [record for record in caplog.records if record.name.startswith("broker.consent")]
    assert len(said) == RECORDS_PER_USER_PER_MINUTE


async def test_repeatedly_failing_consents_share_a_summary_record(world: World) -> None:
    link = await _link(world)
    async with world.browser() as browser:
        for _ in range(20):
            to_google = await browser.get(link)
            callback = world.standin.consent(to_google.headers["location"], ADA, deny=True)
            await browser.get(callback)
    recorded = await audited(
        world, "consent", "denied:access_denied", count=RECORDS_PER_USER_PER_MINUTE
    )
    assert len(recorded) == RECORDS_PER_USER_PER_MINUTE
    assert len(recorded) + await _left_out(world) == 20


async def _left_out(world: World) -> float:
    """Return the number of records left out, which a summary record states after the minute."""
    return await world.metric("broker_audit_records_left_out_total")
