"""Token exchange as tests ask for it."""

import base64
from typing import Any

import httpx2

from tests.support.workloads import Trusting

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def form(trusting: Trusting, **changes: Any) -> dict[str, Any]:
    """A good request's parameters; a change to None leaves one out."""
    usual = {
        "grant_type": GRANT_TYPE,
        "subject_token": trusting.users_jwt(),
        "subject_token_type": f"{TYPE}jwt",
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


async def exchange(
    trusting: Trusting, headers: dict[str, str] | None = None, **changes: Any
) -> httpx2.Response:
    """Ask, as the caller with the key unless told otherwise."""
    return await trusting.world.internal.post(
        "/oauth/token",
        data=form(trusting, **changes),
        headers=trusting.world.authorization if headers is None else headers,
    )


def basic(name: str, key: str) -> dict[str, str]:
    """HTTP Basic as RFC 6749 §2.3.1 has it."""
    pair = base64.b64encode(f"{name}:{key}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def assert_refused(
    answer: httpx2.Response, status: int, error: str, code: str | None = None
) -> None:
    """RFC 6749 §5.2, whatever the refusal."""
    body = answer.json()
    assert (answer.status_code, body["error"]) == (status, error), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    description = body["error_description"]
    assert all(" " <= char <= "~" and char not in '"\\' for char in description), description
    assert "access_token" not in body
    assert code is None or body["code"] == code
