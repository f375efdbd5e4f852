"""Successful consents: a link, a browser, Google, a grant."""

from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from broker.consent.links import CONNECT_LINK_LIFETIME
from broker.grants.model import GrantStatus
from broker.scopes import canonical
from tests.consent.harness import (
    ADA,
    API,
    CLIENT_ID,
    GRACE,
    LOOPBACK,
    MAIN,
    RETURN_TO,
    ConsentWorld,
    query_of,
)
from tests.support.scopes import CALENDAR_READONLY, EMAIL, TASKS_READONLY


async def test_a_consent_ends_in_an_active_grant(world: ConsentWorld) -> None:
    browser = await world.browser()
    page = await browser.connect(await world.link())
    assert page.status_code == 200
    (grant,) = await world.grants_of()
    assert grant.status is GrantStatus.ACTIVE
    assert grant.google_sub == world.google.account(ADA).sub
    assert (grant.email, grant.client_id, grant.is_default) == (ADA, CLIENT_ID, True)
    assert set(grant.scopes) == {"openid", EMAIL, CALENDAR_READONLY}


async def test_the_first_access_token_is_passed_on(world: ConsentWorld) -> None:
    await (await world.browser()).connect(await world.link())
    ((user_id, grant, token),) = world.connected
    assert (user_id, grant) == ("alice", (await world.grants_of())[0])
    assert token is not None
    assert token.value.reveal() == world.google.issued.access_tokens[0]
    assert CALENDAR_READONLY in token.scopes


async def test_the_page_names_the_account_its_rights_and_where_to_remove_them(
    world: ConsentWorld,
) -> None:
    page = await (await world.browser()).connect(await world.link())
    assert ADA in page.text
    assert "See your calendars" in page.text
    assert "https://myaccount.google.com/connections" in page.text
    assert "You did not allow it to" not in page.text


async def test_check_11_less_granted_than_requested_is_stored_as_granted_and_shown(
    world: ConsentWorld,
) -> None:
    link = await world.link(scopes=[CALENDAR_READONLY, TASKS_READONLY])
    page = await (await world.browser()).connect(link, untick=[TASKS_READONLY])
    (grant,) = await world.grants_of()
    assert CALENDAR_READONLY in grant.scopes
    assert TASKS_READONLY not in grant.scopes
    not_allowed = page.text.partition("You did not allow it to")[2]
    assert "See your tasks" in not_allowed
    assert "See your calendars" not in not_allowed


async def test_with_return_to_the_browser_goes_there(world: ConsentWorld) -> None:
    link = await world.link(return_to=RETURN_TO)
    answer = await (await world.browser()).connect(link)
    assert answer.status_code == 303
    location = answer.headers["location"]
    assert location.startswith(RETURN_TO + "&")
    assert query_of(location) == {"tab": "google", "status": "connected", "link_id": link["id"]}


async def test_a_consent_is_audited_and_counted(world: ConsentWorld) -> None:
    await (await world.browser()).connect(await world.link())
    assert await world.audited() == [("connect_link", "created"), ("consent", "connected")]
    assert world.consents("connected") == 1
    row = await world.database.fetchrow("SELECT * FROM audit_events WHERE action = 'consent'")
    assert row is not None
    assert (row["caller"], row["user_id"]) == ("calendar-sync", "alice")
    assert row["account_sub"] == world.google.account(ADA).sub
    assert CALENDAR_READONLY in row["scopes"]
    assert row["request_id"]


async def test_the_parameters_of_an_authorization_request(world: ConsentWorld) -> None:
    asked = query_of(await (await world.browser()).open(await world.link(login_hint=ADA)))
    assert asked["client_id"] == CLIENT_ID
    assert asked["redirect_uri"] == MAIN
    assert asked["response_type"] == "code"
    assert asked["access_type"] == "offline"
    assert asked["include_granted_scopes"] == "true"
    assert asked["prompt"] == "consent"
    assert asked["login_hint"] == ADA
    assert asked["scope"].split() == ["openid", "email", CALENDAR_READONLY]


async def test_check_03_every_request_has_an_s256_challenge(world: ConsentWorld) -> None:
    asked = query_of(await (await world.browser()).open(await world.link()))
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43


async def test_check_04_state_nonce_and_verifier_differ_in_every_request(
    world: ConsentWorld,
) -> None:
    browser, link = await world.browser(), await world.link()
    requests = [query_of(await browser.open(link)) for _ in range(3)]
    for name in ("state", "nonce", "code_challenge"):
        assert len({each[name] for each in requests}) == 3
    values = [each[name] for each in requests for name in ("state", "nonce", "code_challenge")]
    assert len(set(values)) == 9


async def test_check_01_the_state_has_256_random_bits(world: ConsentWorld) -> None:
    asked = query_of(await (await world.browser()).open(await world.link()))
    random_part = asked["state"].split(".")[0]
    assert len(random_part) == 43  # 256 bits in base64url


@pytest.mark.parametrize("uri", [MAIN, API])
async def test_each_redirect_uri_works_on_its_own_host(world: ConsentWorld, uri: str) -> None:
    link = await world.link(redirect_uri=uri)
    assert urlsplit(link["url"]).netloc == urlsplit(uri).netloc
    page = await (await world.browser()).connect(link)
    assert page.status_code == 200
    assert page.request.url.host == urlsplit(uri).hostname
    assert len(await world.grants_of()) == 1


async def test_two_accounts_of_one_user_are_two_grants(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.connect(await world.link(), ADA)
    world.clock.advance(timedelta(minutes=1))
    await browser.connect(await world.link(), GRACE)
    first, second = await world.grants_of()
    assert (first.email, second.email) == (ADA, GRACE)
    assert (first.is_default, second.is_default) == (True, False)


async def test_check_09_another_account_than_the_one_named_is_refused(
    world: ConsentWorld,
) -> None:
    browser = await world.browser()
    await browser.connect(await world.link(), ADA)
    page = await browser.connect(await world.link(login_hint=ADA), GRACE)
    assert page.status_code == 400
    assert "This is a different Google account" in page.text
    (grant,) = await world.grants_of()
    assert (grant.email, grant.version) == (ADA, 1)
    assert (await world.audited())[-1] == ("consent", "failed:account_mismatch")


async def test_check_09_the_named_account_may_be_chosen_at_the_second_attempt(
    world: ConsentWorld,
) -> None:
    browser, link = await world.browser(), await world.link(login_hint=ADA)
    page = await browser.connect(link, GRACE)
    assert link["url"].replace("&", "&amp;") in page.text  # “Try again”
    assert (await browser.connect(link, ADA)).status_code == 200
    assert [grant.email for grant in await world.grants_of()] == [ADA]


async def test_an_account_is_named_by_its_sub_or_by_a_former_address(
    world: ConsentWorld,
) -> None:
    browser = await world.browser()
    sub = world.google.account(ADA).sub
    await browser.connect(await world.link(login_hint=sub))
    world.google.change_email(ADA, "ada@new.example")
    page = await browser.connect(await world.link(login_hint=ADA.upper()), "ada@new.example")
    assert page.status_code == 200
    (grant,) = await world.grants_of()
    assert (grant.google_sub, grant.email) == (sub, "ada@new.example")


async def test_check_08_a_changed_email_stays_the_same_grant(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.connect(await world.link())
    world.google.change_email(ADA, "ada@new.example")
    await browser.connect(await world.link(), "ada@new.example")
    (grant,) = await world.grants_of()
    assert grant.email == "ada@new.example"


async def test_check_08_an_email_that_changed_hands_moves_no_grant(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.connect(await world.link())
    world.google.change_email(ADA, "ada@new.example")
    newcomer = world.google.add_account(ADA)
    await browser.connect(await world.link("bob"), ADA)
    (alices,), (bobs,) = await world.grants_of("alice"), await world.grants_of("bob")
    assert alices.google_sub != newcomer.sub
    assert bobs.google_sub == newcomer.sub


async def test_more_scopes_later_continue_the_same_grant(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.connect(await world.link(scopes=[CALENDAR_READONLY]))
    await browser.connect(await world.link(scopes=[TASKS_READONLY], login_hint=ADA))
    (grant,) = await world.grants_of()
    assert {CALENDAR_READONLY, TASKS_READONLY} <= {canonical(scope) for scope in grant.scopes}


@pytest.mark.parametrize("is_sub", [False, True])
async def test_a_hint_that_names_an_active_grant_requests_no_prompt(
    world: ConsentWorld, is_sub: bool
) -> None:
    browser = await world.browser()
    await browser.connect(await world.link())
    refresh_tokens = list(world.google.issued.refresh_tokens)
    hint = world.google.account(ADA).sub if is_sub else ADA.upper()
    url = await browser.open(await world.link(login_hint=hint))
    assert "prompt" not in query_of(url)
    page = await browser.get(await browser.decide(url))
    assert page.status_code == 200
    # Google sent no new refresh token, and the stored one was kept.
    assert world.google.issued.refresh_tokens == refresh_tokens
    (grant,) = await world.grants.find("alice")
    assert world.grants.open_refresh_token(grant).reveal() == refresh_tokens[0]


async def test_a_hint_that_names_a_revoked_grant_requests_a_prompt(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.connect(await world.link())
    await world.grants.revoke("alice", None, origin="api")
    url = await browser.open(await world.link(login_hint=ADA))
    assert query_of(url)["prompt"] == "consent"


async def test_without_a_refresh_token_the_browser_goes_to_google_once_more(
    world: ConsentWorld,
) -> None:
    browser = await world.browser()
    back = await browser.return_unprompted(world)
    assert back.status_code == 303
    asked = query_of(back.headers["location"])
    assert asked["prompt"] == "consent"
    assert asked["login_hint"] == world.google.account(ADA).sub
    page = await browser.get(await browser.decide(back.headers["location"]))
    assert page.status_code == 200
    (grant,) = await world.grants_of()
    assert grant.status is GrantStatus.ACTIVE
    assert world.consents("failed") == 0


async def test_a_loopback_redirect_uri_works_over_plain_http(world: ConsentWorld) -> None:
    link = await world.link(redirect_uri=LOOPBACK)
    assert link["url"].startswith("http://localhost:8000/auth/google/authorize/alice?link=")
    browser = await world.browser("http://localhost:8000")
    assert (await browser.connect(link)).status_code == 200


async def test_a_link_that_expires_while_the_browser_is_at_google_can_be_completed(
    world: ConsentWorld,
) -> None:
    browser, link = await world.browser(), await world.link()
    world.clock.advance(CONNECT_LINK_LIFETIME / 2)
    callback = await browser.decide(await browser.open(link))
    world.clock.advance(CONNECT_LINK_LIFETIME * 0.75)
    await world.purge()
    assert (await browser.get(callback)).status_code == 200
    assert len(await world.grants_of()) == 1


async def test_user_ids_of_any_characters_connect(world: ConsentWorld) -> None:
    browser = await world.browser()
    link = await world.link("a%2Fb%20%C3%BC%3F%23%25")
    assert (await browser.connect(link)).status_code == 200
    assert len(await world.grants_of("a/b ü?#%")) == 1
