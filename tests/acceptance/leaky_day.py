"""A bad day for the broker: everything that can go wrong goes wrong, and all it says is kept.

Each secret that takes part is known by its kind, so that it can be looked for afterwards.
"""

import os
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2

from devstack.google_standin import Fault
from devstack.postgres import BIN_DIR, SUPERUSER
from tests.acceptance.installation import (
    CALENDAR,
    CALENDAR_READONLY,
    CLIENT_ID,
    CLIENT_SECRET,
    Installation,
)

ACCOUNT = "leaky.email.of.somebody@example.com"
USER = "leaky-user-whose-id-is-long"
IN_GOOGLES_WORDS = "leaky-words-that-google-might-echo"
IN_THE_CALLBACK = "leaky-words-that-a-browser-might-bring"
SECOND_SECRET = "GOCSPX-leaky-second-secret"

EXCHANGE_FAULTS = [
    Fault.drop(),
    Fault.silence(0.2),
    Fault.half(),
    Fault.delay(0.1),
    Fault.http(500, f"<html>{IN_GOOGLES_WORDS}</html>", {"Content-Type": "text/html"}),
    Fault.rate_limited(1),
    Fault.html_403(),
    Fault.not_json(f'{{"access_token": "{IN_GOOGLES_WORDS}'),
    Fault.error("invalid_grant", status=400, description=IN_GOOGLES_WORDS),
    Fault.error("invalid_client", status=401, description=IN_GOOGLES_WORDS),
    Fault.error(IN_GOOGLES_WORDS, status=400, description=IN_GOOGLES_WORDS),
    Fault.without("access_token"),
    Fault.without("expires_in"),
    Fault.without("refresh_token"),
    Fault.replacing(token_type="mac"),
    Fault.replacing(scope="a-scope-of-another-name"),
    Fault.replacing(expires_in=IN_GOOGLES_WORDS),
    Fault.id_token("nonce"),
    Fault.id_token("bad_signature"),
    Fault.id_token("alg_none"),
    Fault.id_token("not_a_jwt"),
    Fault.id_token(iss=IN_GOOGLES_WORDS),
    Fault.id_token(sub=None),
]
REFRESH_FAULTS = [
    Fault.drop(),
    Fault.half(),
    Fault.http(503, IN_GOOGLES_WORDS),
    Fault.not_json(f'{{"access_token": "{IN_GOOGLES_WORDS}'),
    Fault.error("invalid_request", status=400, description=IN_GOOGLES_WORDS),
    Fault.error("invalid_scope", status=400, description=IN_GOOGLES_WORDS),
    Fault.replacing(scope=f"{CALENDAR_READONLY} more"),
    Fault.without("expires_in"),
    Fault.rotate_refresh_token(),
    Fault.invalid_grant("invalid_rapt"),
    # The last: for a while after it no refresh is tried with this client.
    Fault.error("invalid_client", status=401, description=IN_GOOGLES_WORDS),
]


@dataclass
class Exchange:
    """One answer that came from the broker, and what it answered."""

    request: str
    """Method and path, without the query."""
    status: int
    headers: list[tuple[str, str]]
    body: str


@dataclass
class LeakyDay:
    """Runs the day, and keeps every answer."""

    installation: Installation
    exchanges: list[Exchange] = field(default_factory=list)
    cookies: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    _users: int = 0

    def run(self) -> None:
        """From the first consent to the last metric."""
        self.google.add_account(ACCOUNT)
        self.connect(USER)
        self.hand_out(USER)
        self.lose_consents()
        self.lose_refreshes()
        self.rotate_secret()
        self.bring_bad_input()
        self.break_inside()
        self.lose_parts()
        self.revoke_with_trouble()
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

    # What is asked of the broker; every answer is kept.

    def get(self, url: str) -> httpx2.Response:
        """With no cookie and no credential."""
        return self.keep(httpx2.get(url, trust_env=False, timeout=30))

    def keep(self, answer: httpx2.Response) -> httpx2.Response:
        request = f"{answer.request.method} {answer.request.url.path}"
        headers = [(name, value) for name, value in answer.headers.multi_items()]
        self.exchanges.append(Exchange(request, answer.status_code, headers, answer.text))
        return answer

    def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key or self.installation.service.key}"}
        headers |= more.pop("headers", {})
        url = self.serving.internal_url + path
        answer = httpx2.request(method, url, headers=headers, trust_env=False, timeout=30, **more)
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
        """A browser's trip; it may come back with more than Google gave it."""
        with httpx2.Client(trust_env=False, timeout=30) as browser:
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

    def all_faults_were_met(self) -> None:
        assert self.google.faults.pending() == []

    # What goes wrong.

    def lose_consents(self) -> None:
        self.connect(self.new_user(), deny=True)
        self.connect(self.new_user(), deny=True, return_to="https://app.example.com/settings")
        self.connect(self.new_user(), callback_more=f"&iss={IN_THE_CALLBACK}")
        self.connect(self.new_user(), callback_more=f"&error={IN_THE_CALLBACK}")
        self.connect(self.new_user(), callback_more=f"&code={IN_THE_CALLBACK}")
        for fault in EXCHANGE_FAULTS:
            self.google.faults.next("token", fault)
            self.connect(self.new_user())
            self.all_faults_were_met()
        release_later(self.google.holds, "leaky")
        self.google.faults.next("token", Fault.hold("leaky"))
        self.connect(self.new_user())
        self.google.faults.next("callback", Fault.replacing(code=None, error=IN_THE_CALLBACK))
        self.connect(self.new_user())
        self.all_faults_were_met()

    def lose_refreshes(self) -> None:
        for fault in REFRESH_FAULTS:
            user_id = self.new_user()
            self.connect(user_id)
            self.google.faults.next("token", fault)
            self.hand_out(user_id)
            self.hand_out(user_id, min_ttl=86_400)
            self.all_faults_were_met()
            self.ask("GET", f"/v1/users/{user_id}/grants")

    def bring_bad_input(self) -> None:
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
            f"/auth/google/authorize/somebody-else?link={link}",
            f"/auth/google/authorize/{USER}?link={link}x",
            f"/auth/google/callback?state={IN_THE_CALLBACK}&code={quote(code, safe='')}",
            f"/auth/google/callback?code={quote(code, safe='')}&code=x",
            f"/auth/google/callback/{quote(code, safe='')}",
            f"/{quote(code, safe='')}",
        ):
            self.get(self.serving.public_url + path)

    def break_inside(self) -> None:
        """Defects, with rows and arguments that an exception might quote."""
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

    def lose_parts(self) -> None:
        """PostgreSQL away, then Google."""
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
        """First to one that Google refuses, then to the right one."""
        self.installation.vault.put(SECOND_SECRET, CLIENT_ID)
        self.google.change_client_secret(CLIENT_ID, "GOCSPX-leaky-third-secret")
        self.connect(self.new_user())
        self.google.change_client_secret(CLIENT_ID, SECOND_SECRET)
        self.connect(self.new_user())

    def revoke_with_trouble(self) -> None:
        self.google.faults.next("revoke", Fault.http(503, IN_GOOGLES_WORDS))
        self.google.faults.next("revoke", Fault.error("invalid_request", description=ACCOUNT))
        told = self.google.requests.count("revoke")
        for number in range(self._users + 1):
            user_id = f"{USER}-{number}" if number else USER
            self.ask("DELETE", f"/v1/users/{user_id}/grants")
            self.ask("GET", f"/v1/users/{user_id}/grants")
        self.google.requests.wait_for("revoke", count=told + 1)

    def sql(self, statement: str) -> None:
        self.installation.postgres.execute(statement, self.installation.database_name)

    # What there is to look for, and where.

    def secrets(self) -> dict[str, Iterable[str]]:
        """All that must come out nowhere, by kind."""
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
            "words of Google's": [IN_GOOGLES_WORDS],
            "words of a browser's": [IN_THE_CALLBACK],
        }

    def verifier_fingerprints(self) -> set[str]:
        """Of every PKCE verifier that Google was shown."""
        return {
            request.parameters["code_verifier"]
            for request in self.google.requests.to("token")
            if "code_verifier" in request.parameters
        }

    def dump(self) -> bytes:
        """What `pg_dump` writes of the whole database."""
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
    """Let a held request go once it has arrived."""

    def release() -> None:
        with suppress(TimeoutError):
            holds.wait_until_held(name)
            holds.release(name)

    threading.Thread(target=release, daemon=True).start()
