"""Requests to the token endpoint."""

import base64
from typing import Any

import httpx2

from tests.support.workloads import IssuerWorld

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def form(issuer_world: IssuerWorld, **changes: Any) -> dict[str, Any]:
    """Return the parameters of a valid request; a change to None omits one."""
    usual = {
        "grant_type": GRANT_TYPE,
        "subject_token": issuer_world.users_jwt(),
        "subject_token_type": f"{TYPE}jwt",
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


async def exchange(
    issuer_world: IssuerWorld, headers: dict[str, str] | None = None, **changes: Any
) -> httpx2.Response:
    """Send a request, with the caller's key unless `headers` say otherwise."""
    return await issuer_world.world.internal.post(
        "/oauth/token",
        data=form(issuer_world, **changes),
        headers=issuer_world.world.authorization if headers is None else headers,
    )


def basic(name: str, key: str) -> dict[str, str]:
    """Return an HTTP Basic header (RFC 6749 §2.3.1)."""
    pair = base64.b64encode(f"{name}:{key}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def assert_refused(
    answer: httpx2.Response, status: int, error: str, code: str | None = None
) -> None:
    """Check what RFC 6749 §5.2 requires of every refusal."""
    body = answer.json()
    assert (answer.status_code, body["error"]) == (status, error), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    description = body["error_description"]
    assert all(" " <= char <= "~" and char not in '"\\' for char in description), description
    assert "access_token" not in body
    assert code is None or body["code"] == code
