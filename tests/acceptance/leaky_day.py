"""A day on which everything fails, and every answer of the broker is kept.

Each secret is known by its kind, so that a search can find it afterwards.
"""

import os
import subprocess
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2

from broker.outbound.http_client import default_tls_context
from devstack.google_standin import Fault
from devstack.postgres import BIN_DIR, SUPERUSER
from tests.acceptance.installation import CLIENT_ID, CLIENT_SECRET, Installation
from tests.support.scopes import CALENDAR, CALENDAR_READONLY

ACCOUNT = "leaky.email.of.someone@example.com"
USER = "leaky-user-whose-id-is-long"
GOOGLE_TEXT = "leaky-words-that-google-might-echo"
CALLBACK_TEXT = "leaky-words-that-a-browser-might-bring"
SECOND_SECRET = "GOCSPX-leaky-second-secret"

_OPTIONS: Mapping[str, Any] = {
    "trust_env": False,
    "timeout": 30,
    # Each client would load the certificates of the system again, which takes 50 ms.
    "verify": default_tls_context(),
}

EXCHANGE_FAULTS = [
    Fault.drop(),
    Fault.silence(0.2),
    Fault.half(),
    Fault.delay(0.1),
    Fault.http(500, f"<html>{GOOGLE_TEXT}</html>", {"Content-Type": "text/html"}),
    Fault.rate_limited(1),
    Fault.html_403(),
    Fault.not_json(f'{{"access_token": "{GOOGLE_TEXT}'),
    Fault.error("invalid_grant", status=400, description=GOOGLE_TEXT),
    Fault.error("invalid_client", status=401, description=GOOGLE_TEXT),
    Fault.error(GOOGLE_TEXT, status=400, description=GOOGLE_TEXT),
    Fault.without("access_token"),
    Fault.without("expires_in"),
    Fault.without("refresh_token"),
    Fault.replacing(token_type="mac"),
    Fault.replacing(scope="a-scope-of-another-name"),
    Fault.replacing(expires_in=GOOGLE_TEXT),
    Fault.id_token("nonce"),
    Fault.id_token("bad_signature"),
    Fault.id_token("alg_none"),
    Fault.id_token("not_a_jwt"),
    Fault.id_token(iss=GOOGLE_TEXT),
    Fault.id_token(sub=None),
]
REFRESH_FAULTS = [
    Fault.drop(),
    Fault.half(),
    Fault.http(503, GOOGLE_TEXT),
    Fault.not_json(f'{{"access_token": "{GOOGLE_TEXT}'),
    Fault.error("invalid_request", status=400, description=GOOGLE_TEXT),
    Fault.error("invalid_scope", status=400, description=GOOGLE_TEXT),
    Fault.replacing(scope=f"{CALENDAR_READONLY} more"),
    Fault.without("expires_in"),
    Fault.rotate_refresh_token(),
    Fault.invalid_grant("invalid_rapt"),
    # The last, because the broker then pauses refreshes with this client.
    Fault.error("invalid_client", status=401, description=GOOGLE_TEXT),
]


@dataclass
class Exchange:
    """One request and the broker's answer."""

    request: str
    """Method and path, without the query."""
    status: int
    headers: list[tuple[str, str]]
    body: str


@dataclass
class LeakyDay:
    """Runs the day, and keeps the answers."""

    installation: Installation
    exchanges: list[Exchange] = field(default_factory=list)
    cookies: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    _users: int = 0

    def run(self) -> None:
        """Run everything, from the first consent to the last metric."""
        self.google.add_account(ACCOUNT)
        self.connect(USER)
        self.hand_out(USER)
        self.fail_consents()
        self.fail_refreshes()
        self.rotate_secret()
        self.send_bad_input()
        self.break_inside()
        self.stop_parts()
        self.revoke_with_failures()
        for path in ("/metrics", "/readyz", "/livez"):
            self.get(self.serving.ops_url + path)

    @property
    def serving(self) -> Any:
        return self.installation.serving

    @property
    def google(self) -> Any:
        return self.installation.google

    def new_user(self) -> str:
        self._users += 1
        return f"{USER}-{self._users}"

    # Requests to the broker; every answer is kept.

    def get(self, url: str) -> httpx2.Response:
        """Request a URL without cookie and credential."""
        return self.keep(httpx2.get(url, **_OPTIONS))

    def keep(self, answer: httpx2.Response) -> httpx2.Response:
        request = f"{answer.request.method} {answer.request.url.path}"
        headers = [(name, value) for name, value in answer.headers.multi_items()]
        self.exchanges.append(Exchange(request, answer.status_code, headers, answer.text))
        return answer

    def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key or self.installation.service.key}"}
        headers |= more.pop("headers", {})
        url = self.serving.internal_url + path
        answer = httpx2.request(method, url, headers=headers, **_OPTIONS, **more)
        return self.keep(answer)

    def link(self, user_id: str, **body: Any) -> str:
        body = {"scopes": [CALENDAR_READONLY], "login_hint": ACCOUNT, **body}
        answer = self.ask("POST", f"/v1/users/{user_id}/connect-links", json=body)
        url: str = answer.json()["url"]
        self.links.add(url.partition("link=")[2])
        return url

    def connect(
        self, user_id: str, *, callback_more: str = "", deny: bool = False, **body: Any
    ) -> httpx2.Response:
        """Connect in a browser, whose callback may have more parameters than Google's."""
        with httpx2.Client(**_OPTIONS) as browser:
            to_google = self.keep(browser.get(self.link(user_id, **body)))
            self.cookies.update(browser.cookies.values())
            if to_google.status_code != 303:
                return to_google
            self.states.add(dict(parse_qsl(urlsplit(to_google.headers["location"]).query))["state"])
            callback = self.google.consent(to_google.headers["location"], ACCOUNT, deny=deny)
            done = self.keep(browser.get(callback + callback_more))
            self.keep(browser.get(callback))
            return done

    def hand_out(self, user_id: str, **query: Any) -> httpx2.Response:
        return self.ask("GET", f"/v1/users/{user_id}/token", params=query)

    def assert_all_faults_applied(self) -> None:
        assert self.google.faults.pending() == []

    # Failures.

    def fail_consents(self) -> None:
        self.connect(self.new_user(), deny=True)
        self.connect(self.new_user(), deny=True, return_to="https://app.example.com/settings")
        self.connect(self.new_user(), callback_more=f"&iss={CALLBACK_TEXT}")
        self.connect(self.new_user(), callback_more=f"&error={CALLBACK_TEXT}")
        self.connect(self.new_user(), callback_more=f"&code={CALLBACK_TEXT}")
        for fault in EXCHANGE_FAULTS:
            self.google.faults.next("token", fault)
            self.connect(self.new_user())
            self.assert_all_faults_applied()
        release_later(self.google.holds, "leaky")
        self.google.faults.next("token", Fault.hold("leaky"))
        self.connect(self.new_user())
        self.google.faults.next("callback", Fault.replacing(code=None, error=CALLBACK_TEXT))
        self.connect(self.new_user())
        self.assert_all_faults_applied()

    def fail_refreshes(self) -> None:
        for fault in REFRESH_FAULTS:
            user_id = self.new_user()
            self.connect(user_id)
            self.google.faults.next("token", fault)
            self.hand_out(user_id)
            self.hand_out(user_id, min_ttl=86_400)
            self.assert_all_faults_applied()
            self.ask("GET", f"/v1/users/{user_id}/grants")

    def send_bad_input(self) -> None:
        key, token = self.installation.service.key, self.google.issued.access_tokens[0]
        code, (link, *_) = self.google.issued.codes[0], sorted(self.links)
        base = f"/v1/users/{USER}"
        self.ask("GET", f"{base}/token", key=token)
        self.ask("GET", f"{base}/token", headers={"Authorization": f"Basic {key}"})
        self.ask("GET", f"{base}/token", params={"access_token": key})
        self.ask("GET", f"{base}/token", params={"min_ttl": key})
        self.ask("GET", f"{base}/token/{key}")
        self.ask("POST", f"{base}/connect-links", content=f'{{"scopes": "{token}')
        self.ask("POST", f"{base}/connect-links", json={"scopes": [CALENDAR], key: 1})
        self.ask("POST", f"{base}/connect-links", json={"scopes": [CALENDAR], "return_to": token})
        self.ask("DELETE", f"{base}/grants", params={"token": token})
        self.ask("GET", f"{base}/token", params={"scope": "off-the-list"})
        for path in (
            f"/auth/google/authorize/another-user?link={link}",
            f"/auth/google/authorize/{USER}?link={link}x",
            f"/auth/google/callback?state={CALLBACK_TEXT}&code={quote(code, safe='')}",
            f"/auth/google/callback?code={quote(code, safe='')}&code=x",
            f"/auth/google/callback/{quote(code, safe='')}",
            f"/{quote(code, safe='')}",
        ):
            self.get(self.serving.public_url + path)

    def break_inside(self) -> None:
        """Cause defects, with rows and arguments that an exception might quote."""
        user_id = self.new_user()
        self.connect(user_id)
        self.sql("ALTER TABLE grants ADD CONSTRAINT broken CHECK (email = '') NOT VALID")
        self.connect(self.new_user())
        self.hand_out(user_id)
        self.sql("ALTER TABLE grants DROP CONSTRAINT broken")
        self.sql("ALTER TABLE access_tokens RENAME COLUMN sealed_access_token TO gone")
        self.connect(self.new_user())
        self.hand_out(user_id, min_ttl=86_400)
        self.sql("ALTER TABLE access_tokens RENAME COLUMN gone TO sealed_access_token")
        self.sql("ALTER TABLE connect_links RENAME COLUMN login_hint TO gone")
        body = {"scopes": [CALENDAR_READONLY], "login_hint": ACCOUNT}
        self.ask("POST", f"/v1/users/{user_id}/connect-links", json=body)
        self.sql("ALTER TABLE connect_links RENAME COLUMN gone TO login_hint")
        self.sql("UPDATE grants SET sealed_refresh_token = 'x' WHERE user_id = '" + user_id + "'")
        self.sql("DELETE FROM access_tokens")
        self.ask("DELETE", f"/v1/users/{user_id}/grants")

    def stop_parts(self) -> None:
        """Stop PostgreSQL, then Google."""
        link = self.link(self.new_user())
        self.installation.postgres.stop("immediate")
        self.hand_out(self.new_user())
        self.ask("DELETE", f"/v1/users/{USER}/grants")
        self.get(link)
        self.get(self.serving.ops_url + "/readyz")
        self.installation.postgres.start()
        self.google.stop()
        self.hand_out(USER, min_ttl=86_400)
        self.get(self.serving.ops_url + "/readyz")
        self.google.start()

    def rotate_secret(self) -> None:
        """Rotate to a secret that Google refuses, then to the right one."""
        self.installation.vault.put(SECOND_SECRET, CLIENT_ID)
        self.google.change_client_secret(CLIENT_ID, "GOCSPX-leaky-third-secret")
        self.connect(self.new_user())
        self.google.change_client_secret(CLIENT_ID, SECOND_SECRET)
        self.connect(self.new_user())

    def revoke_with_failures(self) -> None:
        self.google.faults.next("revoke", Fault.http(503, GOOGLE_TEXT))
        self.google.faults.next("revoke", Fault.error("invalid_request", description=ACCOUNT))
        sent = self.google.requests.count("revoke")
        for number in range(self._users + 1):
            user_id = f"{USER}-{number}" if number else USER
            self.ask("DELETE", f"/v1/users/{user_id}/grants")
            self.ask("GET", f"/v1/users/{user_id}/grants")
        self.google.requests.wait_for("revoke", count=sent + 1)

    def sql(self, statement: str) -> None:
        self.installation.postgres.execute(statement, self.installation.database_name)

    # The secrets, and the places to search.

    def secrets(self) -> dict[str, Iterable[str]]:
        """Return the secrets, by kind."""
        settings, issued = self.serving.settings, self.google.issued
        return {
            "client secret": [CLIENT_SECRET, SECOND_SECRET],
            "authorization code": issued.codes,
            "access token": issued.access_tokens,
            "refresh token": issued.refresh_tokens,
            "ID token": [t for t in issued.id_tokens if len(t) > 20],
            "part of an ID token": [
                p for t in issued.id_tokens for p in t.split(".")[1:] if len(p) > 20
            ],
            "API key": [self.installation.service.key],
            "SECRET_KEY": [settings["SECRET_KEY"]],
            "database password": [self.installation.postgres.password],
            "AppRole secret id": [settings["VAULT_SECRET_ID"]],
            "root token of the vault": [self.installation.vault.server.root_token.reveal()],
            "link token": self.links,
            "state": self.states,
            "cookie": self.cookies,
            "text of Google's": [GOOGLE_TEXT],
            "text of a browser's": [CALLBACK_TEXT],
        }

    def verifier_fingerprints(self) -> set[str]:
        """Return the fingerprint of every PKCE verifier that Google received."""
        return {
            request.parameters["code_verifier"]
            for request in self.google.requests.to("token")
            if "code_verifier" in request.parameters
        }

    def dump(self) -> bytes:
        """Return a `pg_dump` of the whole database."""
        postgres = self.installation.postgres
        return subprocess.run(
            [
                BIN_DIR / "pg_dump", "--host=127.0.0.1", f"--port={postgres.port}",
                f"--username={SUPERUSER}", self.installation.database_name,
            ],
            env={**os.environ, "PGPASSWORD": postgres.password},
            capture_output=True,
            check=True,
        ).stdout  # fmt: skip


def release_later(holds: Any, name: str) -> None:
    """Release a held request once it has arrived."""

    def release() -> None:
        with suppress(TimeoutError):
            holds.wait_until_held(name)
            holds.release(name)

    threading.Thread(target=release, daemon=True).start()
