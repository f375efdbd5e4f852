"""Connects users' Google accounts through the proxy, by HTTP."""

from uuid import uuid4

import httpx2

from tests.compose.installation import Installation
from tests.support.scopes import CALENDAR_READONLY

COLD = 86_400
"""Seconds, as `min_ttl`: longer than any token's lifetime, so that the broker asks Google."""


def browser() -> httpx2.Client:
    """Return a client that accepts the proxy's certificate, which no public authority signed."""
    return httpx2.Client(verify=False, trust_env=False, timeout=30)


def connect_user(installation: Installation) -> str:
    """Connect a new user with a new account; return the user's id."""
    user_id, email = f"user-{uuid4().hex}", f"{uuid4().hex}@example.com"
    installation.google.standin.add_account(email)
    link = installation.api().connect_link(user_id, [CALENDAR_READONLY])
    with browser() as http:
        to_google = http.get(link["url"])
        assert to_google.status_code == 303, to_google.text
        back = installation.google.standin.consent(to_google.headers["location"], email)
        answer = http.get(back)
    assert answer.status_code == 200, answer.text
    return user_id
