"""Every event of a bad day for a broker, once or more, within some seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml

from devstack.google_standin import Fault
from tests.chaos.fleet import Fleet, User, at_replica
from tests.support.issuer import OidcIssuer
from tests.support.processes import wait_until
from tests.support.scopes import CALENDAR_READONLY, GMAIL_READONLY
from tests.support.workloads import WORKLOAD, issuers_of, workload_stanza
from tests.support.world import write_callers

ROUNDS = 2


def trust(fleet: Fleet, issuer: OidcIssuer) -> None:
    """Add a caller that authenticates with the issuer's JWTs; the broker reads the file again."""
    path = Path(fleet.replicas[0].settings["BROKER_CALLERS_FILE"])
    callers = yaml.safe_load(path.read_text(encoding="utf-8"))["callers"]
    write_callers(path, {**callers, WORKLOAD: workload_stanza(issuer)}, issuers_of(issuer))
    broker = fleet.replicas[0]
    wait_until(
        "the issuer's keys were read", lambda: broker.metric("broker_issuer_up") == 1, within=30
    )


class MixedLoad:
    """One broker, its users and its callers."""

    def __init__(self, fleet: Fleet, issuer: OidcIssuer) -> None:
        self._fleet = fleet
        self._issuer = issuer
        self._broker = fleet.replicas[0]
        self._http = fleet.http

    def run(self) -> None:
        """Run all of it several times, so that rates have a value."""
        for _ in range(ROUNDS):
            self._successful_round()
            self._refused_round()
            self._failing_round()

    def _successful_round(self) -> None:
        first, *_ = self._fleet.connect(3)
        for _ in range(10):
            for user in self._fleet.users:
                self._token(user, min_ttl=1)
        self._ask("POST", "/v1/tokens", json={"requests": [{"user_id": first.id}]})
        assert self._token(first, credential=self._issuer.mint()) == 200
        assert self._fleet.revoke(first).status_code == 204

    def _refused_round(self) -> None:
        user, *_ = self._fleet.connect(1)
        assert self._token(user, credential="tbk_nobody") == 401
        assert self._token(user, scope=GMAIL_READONLY) == 403
        assert self._token(User("nobody", "0")) == 404
        assert self._token(user, credential=self._issuer.mint(exp=1)) == 401
        self._deny()
        self._http.post(self._broker.public_url + "/auth/google/risc", content=b"junk")
        event = self._fleet.google.security_event(
            "sessions-revoked", self._fleet.google.account(user.sub).email
        )
        answer = self._http.post(
            self._broker.public_url + "/auth/google/risc",
            content=event,
            headers={"Content-Type": "application/secevent+jwt"},
        )
        assert answer.status_code == 202, answer.text

    def _failing_round(self) -> None:
        gone, throttled = self._fleet.connect(2)
        self._fleet.let_expire([gone, throttled])
        self._fleet.google.revoke_account(gone.sub)
        assert self._token(gone) == 409
        self._fleet.google.faults.always("token", Fault.http(503), account=throttled.sub)
        assert self._token(throttled) == 503
        self._fleet.users = [user for user in self._fleet.users if user not in (gone, throttled)]

    def _deny(self) -> None:
        """A user who denies the consent at Google."""
        denier = self._fleet.google.add_account("denier@example.com")
        link = self._ask(
            "POST", "/v1/users/denier/connect-links", json={"scopes": [CALENDAR_READONLY]}
        )
        with httpx2.Client(timeout=30, trust_env=False) as browser:
            to_google = browser.get(at_replica(self._broker, link.json()["url"]))
            back = self._fleet.google.consent(
                to_google.headers["location"], denier.email, deny=True
            )
            browser.get(at_replica(self._broker, back))

    def _token(self, user: User, credential: str | None = None, **query: str | int) -> int:
        return self._ask(
            "GET", f"/v1/users/{user.id}/token", credential=credential, params=query
        ).status_code

    def _ask(
        self, method: str, path: str, *, credential: str | None = None, **request: Any
    ) -> httpx2.Response:
        headers: Mapping[str, str] = (
            {"Authorization": f"Bearer {credential}"} if credential else self._fleet.authorization
        )
        return self._http.request(
            method, self._broker.internal_url + path, headers=headers, **request
        )
