"""The main job: a user connects in a browser, a service gets the token and uses it at Google.

Every part but the Google stand-in is a process of its own.
"""

from uuid import uuid4

import pytest
from google.auth.exceptions import RefreshError
from playwright.async_api import Page, expect

from tests.acceptance.installation import Installation, allow, calendar
from tests.support.browser import continue_to_google
from tests.support.processes import wait_until
from tests.support.scopes import CALENDAR, CALENDAR_READONLY

pytestmark = [pytest.mark.process, pytest.mark.browser]


async def connect(installation: Installation, page: Page) -> tuple[str, str]:
    """Connect a new user with a new account; return both."""
    user_id, account = f"user-{uuid4().hex}", f"{uuid4().hex}@example.com"
    link = installation.service.connect_link(user_id, [CALENDAR_READONLY])
    answer = await allow(page, link["url"], account)
    assert answer.status == 200, await answer.text()
    return user_id, account


def events(installation: Installation, access_token: str) -> list[str]:
    """Return the titles in the calendar that a token can read."""
    api = calendar(installation.google.calendar_endpoint, access_token)
    with api:
        found = api.events().list(calendarId="primary").execute()
    return [event["summary"] for event in found["items"]]


@pytest.mark.parametrize("which", [0, 1], ids=["main", "api"])
async def test_a_user_connects_and_a_service_uses_the_token_at_google(
    installation: Installation, page: Page, which: int
) -> None:
    user_id, account = f"user-{uuid4().hex}", f"{uuid4().hex}@example.com"
    link = installation.service.connect_link(
        user_id, [CALENDAR_READONLY], redirect_uri=installation.redirect_uris[which]
    )
    await allow(page, link["url"], account)
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Your Google account is connected"
    )
    await expect(page.get_by_text(account)).to_be_visible()
    assert page.url.startswith(installation.redirect_uris[which])
    assert "Stand-up" in events(installation, installation.service.access_token(user_id))


async def test_a_connected_account_is_listed(installation: Installation, page: Page) -> None:
    user_id, account = await connect(installation, page)
    (grant,) = installation.service.grants(user_id)
    assert grant["account"]["email"] == account
    assert grant["status"] == "active"
    assert grant["default"] is True
    assert CALENDAR_READONLY in grant["scopes"]


async def test_more_scopes_extend_the_same_grant(installation: Installation, page: Page) -> None:
    user_id, account = await connect(installation, page)
    link = installation.service.connect_link(user_id, [CALENDAR], login_hint=account)
    await allow(page, link["url"], account)
    (grant,) = installation.service.grants(user_id)
    assert {CALENDAR, CALENDAR_READONLY} <= set(grant["scopes"])
    token = installation.service.access_token(user_id, scope=CALENDAR)
    with calendar(installation.google.calendar_endpoint, token) as api:
        when = {"dateTime": "2030-01-01T10:00:00Z"}
        api.events().insert(
            calendarId="primary", body={"summary": "Written", "start": when, "end": when}
        ).execute()
    assert "Written" in events(installation, token)


async def test_after_a_revocation_neither_the_broker_nor_google_accepts_the_token(
    installation: Installation, page: Page
) -> None:
    user_id, _ = await connect(installation, page)
    token = installation.service.access_token(user_id)
    sent = installation.google.requests.count("revoke")
    assert installation.service.revoke(user_id).status == 204
    again = installation.service.token(user_id)
    assert (again.status, again.code) == (404, "grant_not_found")
    installation.google.requests.wait_for("revoke", count=sent + 1)
    with pytest.raises(RefreshError):  # Raised by Google's client for 401.
        events(installation, token)


async def test_a_denied_consent_connects_nothing(installation: Installation, page: Page) -> None:
    user_id = f"user-{uuid4().hex}"
    link = installation.service.connect_link(user_id, [CALENDAR_READONLY])
    await page.goto(link["url"])
    await continue_to_google(page)
    await page.locator("[data-account]").first.click()
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "You did not allow the connection"
    )
    assert installation.service.token(user_id).code == "grant_not_found"


async def test_a_secret_that_google_refuses_is_read_again_immediately(
    installation: Installation, page: Page
) -> None:
    user_id, _ = await connect(installation, page)
    version = installation.rotate_secret("GOCSPX-acceptance-second")
    assert installation.service.token(user_id, min_ttl=86_400).status == 200
    assert installation.serving.metric("broker_client_secret_version") == version


def test_a_new_secret_is_noticed_without_a_request(installation: Installation) -> None:
    version = installation.rotate_secret("GOCSPX-acceptance-third")
    wait_until(
        "the new version is in use",
        lambda: installation.serving.metric("broker_client_secret_version") == version,
    )


async def test_a_restart_keeps_grants_and_tokens(installation: Installation, page: Page) -> None:
    user_id, _ = await connect(installation, page)
    token = installation.service.access_token(user_id)
    assert installation.serving.stop() == 0
    installation.serving.start()
    assert installation.service.access_token(user_id) == token
    assert [grant["status"] for grant in installation.service.grants(user_id)] == ["active"]


async def test_a_revocation_is_sent_when_google_is_back_even_after_a_crash(
    installation: Installation, page: Page
) -> None:
    user_id, _ = await connect(installation, page)
    token = installation.service.access_token(user_id)
    sent = installation.google.requests.count("revoke")
    installation.google.stop()
    try:
        assert installation.service.revoke(user_id).status == 204
        assert installation.service.token(user_id).code == "grant_not_found"
        installation.serving.kill()
        installation.serving.start()
        assert installation.service.token(user_id).code == "grant_not_found"
    finally:
        installation.google.start()
    installation.google.requests.wait_for("revoke", count=sent + 1, timeout=60)
    assert token not in installation.google.state.access_tokens
