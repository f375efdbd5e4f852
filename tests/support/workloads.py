"""A broker that trusts an issuer, and JWTs for it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer
from tests.support.world import World, open_world, stanza

WORKLOAD = "calendar-workload"
USERS_AUDIENCE = "google-tokens"


def workload_stanza(issuer: OidcIssuer, **changes: Any) -> dict[str, Any]:
    """Return the entry of a caller that authenticates with a JWT of this issuer."""
    stanza_of_workload = {
        **stanza("unused"),
        "workload": {
            "issuer": issuer.url,
            "audience": "token-broker",
            "subject": "system:serviceaccount:prod:calendar-sync",
        },
        **changes,
    }
    del stanza_of_workload["keys"]
    return stanza_of_workload


@dataclass
class IssuerWorld:
    """A broker, and the issuer that it trusts for workloads and for users."""

    world: World
    issuer: OidcIssuer

    def callers(self, **changes: Any) -> dict[str, Mapping[str, Any]]:
        """Return the callers of the callers file; `changes` apply to the workload."""
        return {
            "calendar-sync": stanza(self.world.key),
            WORKLOAD: workload_stanza(self.issuer, **changes),
        }

    def issuers(self, **changes: Any) -> dict[str, Mapping[str, Any]]:
        """Return the issuers of the callers file."""
        return issuers_of(self.issuer, **changes)

    async def token_as(
        self, credential: str, user_id: str = "user-1", **query: str
    ) -> httpx2.Response:
        """Request a token with this credential."""
        return await self.world.internal.get(
            f"/v1/users/{user_id}/token",
            params=query,
            headers={"Authorization": f"Bearer {credential}"},
        )

    async def status_for(self, credential: str) -> int:
        """Return the status of a token request with this credential."""
        answer = await self.token_as(credential)
        if answer.status_code == 401:
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["cache-control"] == "no-store"
        return answer.status_code

    def users_jwt(self, user_id: str = "user-1", **changes: Any) -> str:
        """Return a user's own JWT."""
        return self.issuer.mint(**({"aud": USERS_AUDIENCE, "sub": user_id} | changes))


def issuers_of(issuer: OidcIssuer, **changes: Any) -> dict[str, Mapping[str, Any]]:
    """Return the `issuers:` of a callers file, with this issuer."""
    return {issuer.url: {"users": {"audience": USERS_AUDIENCE}, **changes}}


@asynccontextmanager
async def open_issuer_world(
    folder: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    issuer: OidcIssuer,
    **issuer_changes: Any,
) -> AsyncIterator[IssuerWorld]:
    """Run a broker that trusts the issuer; `user-1` has connected an account."""
    async with open_world(
        folder,
        database_url,
        standin,
        clock,
        callers={WORKLOAD: workload_stanza(issuer)},
        issuers=issuers_of(issuer, **issuer_changes),
    ) as world:
        consent = await world.connect("user-1")
        assert consent.status == "connected" or consent.response.status_code == 200
        yield IssuerWorld(world, issuer)
