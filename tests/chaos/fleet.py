"""Several `broker serve` processes on one PostgreSQL, and users connected through them.

`Fleet` also has the invariant of the fault suite: after a fault each grant is unchanged and works.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote
from uuid import uuid4

import httpx2

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from tests.support.processes import BrokerProcess, run_broker, wait_until
from tests.support.scopes import CALENDAR_READONLY
from tests.support.world import (
    CLIENT_ID,
    CLIENT_SECRET,
    REDIRECT_URI,
    environment,
    stanza,
    write_callers,
)

TOKEN_LIFETIME = 3
"""Seconds. It stands for Google's one hour."""

RECOVERY_SECONDS = 12.0
"""Seconds after a fault until everything works: the longest back-off here, on a slow machine."""

_GRANTS = "SELECT user_id, google_sub, status FROM grants ORDER BY 1, 2"


@dataclass
class User:
    """A user with one connected Google account."""

    id: str
    sub: str


class DatabaseServer(Protocol):
    """The PostgreSQL of a fleet: one server, or several with one primary."""

    def url(self, database: str = ...) -> str: ...

    def execute(self, sql: str, database: str = ...) -> str: ...


@dataclass
class Fleet:
    """The replicas, and what they depend on."""

    replicas: list[BrokerProcess]
    google: GoogleStandin
    postgres: DatabaseServer
    database: str
    key: str
    users: list[User] = field(default_factory=list)
    http: httpx2.Client = field(
        default_factory=lambda: httpx2.Client(timeout=30, trust_env=False), repr=False
    )

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def connect(self, count: int = 1) -> list[User]:
        """Add users, each with an own Google account."""
        users = [self._connect() for _ in range(count)]
        self.users += users
        return users

    def _connect(self) -> User:
        user_id = f"user-{uuid4().hex[:12]}"
        account = self.google.add_account(f"{user_id}@example.com")
        serving = self.replicas[0]
        link = self.http.post(
            f"{serving.internal_url}/v1/users/{user_id}/connect-links",
            json={"scopes": [CALENDAR_READONLY]},
            headers=self.authorization,
        ).raise_for_status()
        with httpx2.Client(timeout=30, trust_env=False) as browser:
            address = at_replica(serving, link.json()["url"])
            # The cookies are valid for any port of this host.
            to_google = browser.get(address)
            assert to_google.status_code == 303, to_google.text
            back = self.google.consent(to_google.headers["location"], account.email)
            page = browser.get(at_replica(serving, back))
            assert page.status_code == 200, page.text
        return User(user_id, account.sub)

    def token(self, user: User, replica: int = 0, **query: str | int) -> httpx2.Response:
        """Request a user's token from one replica."""
        return self.http.get(
            token_url(self.replicas[replica], user),
            params=dict(query),
            headers=self.authorization,
        )

    def revoke(self, user: User, replica: int = 0) -> httpx2.Response:
        """Revoke a user's grants."""
        self.users.remove(user)
        url = f"{self.replicas[replica].internal_url}/v1/users/{quote(user.id)}/grants"
        return self.http.delete(url, headers=self.authorization)

    def sql(self, query: str) -> str:
        """Run SQL directly in the brokers' database."""
        return self.postgres.execute(query, self.database)

    def refreshes(self) -> int:
        """Return the number of refresh requests that Google received."""
        return self.google.requests.count("token", grant_type="refresh_token")

    def let_expire(self, users: Sequence[User]) -> None:
        """Return when all their tokens have expired. No one may request tokens meanwhile."""
        subs = {user.sub for user in users}
        wait_until("all tokens have expired", lambda: not subs & self._alive(), within=30)

    def _alive(self) -> set[str]:
        now = self.google.clock.epoch()
        with self.google.state.lock:
            tokens = list(self.google.state.access_tokens.values())
        return {token.sub for token in tokens if token.expires_at > now}

    def assert_recovered(self, within: float = RECOVERY_SECONDS) -> None:
        """Every grant is active, and every replica gives a token that Google issued just before."""
        wrong = [line for line in self.sql(_GRANTS).splitlines() if not line.endswith("|active")]
        known = {f"{user.id}|{user.sub}|revoked" for user in self.users}
        assert not [line for line in wrong if line in known or "|revoked" not in line], wrong
        self.assert_all_served(within)

    def assert_all_served(self, within: float = RECOVERY_SECONDS) -> None:
        """Every replica gives each user a token that Google issued just before."""
        began = self.google.clock.epoch()
        deadline = time.monotonic() + within
        for user in self.users:
            for number in range(len(self.replicas)):
                self._wait_for_a_fresh_token(user, number, began, deadline)
        for replica in self.replicas:
            assert "Traceback" not in replica.output, _around_traceback(replica.output)

    def assert_audit_trail_intact(self) -> None:
        """Check the MACs and the chain of the whole audit trail."""
        verified = self.run("audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert "intact: " in verified.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `broker` command with the replicas' settings."""
        return run_broker(*arguments, settings=self.replicas[0].settings)

    def _wait_for_a_fresh_token(
        self, user: User, replica: int, began: float, deadline: float
    ) -> None:
        while True:
            answer = self.token(user, replica, min_ttl=86_400)
            if answer.status_code == 200:
                token = self.google.state.access_tokens.get(answer.json()["access_token"])
                if token is not None and token.expires_at >= began + TOKEN_LIFETIME - 1:
                    assert token.sub == user.sub
                    return
            reason = answer.json().get("code", "an old token")
            assert time.monotonic() < deadline, f"{user.id} at replica {replica}: {reason}"
            time.sleep(0.1)


_ORIGIN = REDIRECT_URI.split("/auth/", maxsplit=1)[0]


def _around_traceback(output: str) -> str:
    return output[max(0, output.index("Traceback") - 500) :][:4000]


def at_replica(replica: BrokerProcess, address: str) -> str:
    """Return the address at one replica that stands for a public address."""
    return address.replace(_ORIGIN, replica.public_url)


def token_url(replica: BrokerProcess, user: User) -> str:
    """Return the URL of a user's token at a replica."""
    return f"{replica.internal_url}/v1/users/{quote(user.id)}/token"


@contextmanager
def running_fleet(
    folder: Path,
    postgres: DatabaseServer,
    database: str,
    google: GoogleStandin,
    *,
    replicas: int,
    database_url: str | None = None,
    settings: Mapping[str, str] | None = None,
    modules: Mapping[int, tuple[str, Mapping[str, str]]] | None = None,
) -> Iterator[Fleet]:
    """Migrate `database` and run replicas on it.

    `database_url`: the replicas' setting, if it is not the database's own address. `modules`: for a
    replica's number, another launcher module and additional settings for it.
    """
    key = new_key()
    callers_file = folder / "callers.yaml"
    write_callers(callers_file, {"calendar-sync": stanza(key)})
    google.add_client(CLIENT_ID, CLIENT_SECRET, [REDIRECT_URI])
    google.behave(token_lifetime=TOKEN_LIFETIME)
    own_url = postgres.url(database)
    given = environment(own_url, google, callers_file) | {"GOOGLE_REDIRECT_URI": REDIRECT_URI}
    migrated = run_broker("migrate", settings={"DATABASE_URL": own_url})
    assert migrated.returncode == 0, migrated.stderr
    given |= {"DATABASE_URL": database_url or own_url, **(settings or {})}
    processes = []
    for number in range(replicas):
        module, more = (modules or {}).get(number, ("broker.cli", {}))
        log = folder / f"replica-{number}.log"
        processes.append(BrokerProcess({**given, **more}, log, module=module))
    with ExitStack() as stack:
        start_all(processes, stack)
        fleet = Fleet(processes, google, postgres, database, key)
        stack.callback(fleet.http.close)
        yield fleet


def start_all(processes: Sequence[BrokerProcess], stack: ExitStack | None = None) -> None:
    """Start them concurrently; the stack, if given, stops them."""
    for process in processes:
        process.launch()
        if stack is not None:
            stack.callback(process.stop)
    for process in processes:
        process.wait_until_ready()
