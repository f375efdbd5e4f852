"""A broker with grants, links and visits, the target of generated requests; and what they change.

One user has connected an account, links and visits are open. No request has the credentials to
change any of it: a known caller may see little, and a request has a link or a cookie, not both.
"""

import asyncio
import itertools
import logging
import os
import tempfile
from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from fuzz.files import PLANTED
from fuzz.oracle import Answer, LogWatch, judge
from fuzz.postgres import DATABASE_URL
from fuzz.requests import Made
from fuzz.target import Find, must
from tests.support.clock import ManualClock
from tests.support.connections_page import connections_link
from tests.support.issuer import oidc_issuer
from tests.support.workloads import WORKLOAD, issuers_of, workload_stanza
from tests.support.world import API_ORIGIN, World, open_world, stanza

_WATCHED = """
CREATE SEQUENCE fuzz_changes;
CREATE TABLE fuzz_log (what text);
CREATE FUNCTION fuzz_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND to_jsonb(OLD) - '{last_used_at,last_used_by}'::text[]
        = to_jsonb(NEW) - '{last_used_at,last_used_by}'::text[] THEN
        RETURN NULL;
    END IF;
    PERFORM nextval('fuzz_changes');
    INSERT INTO fuzz_log VALUES (TG_TABLE_NAME);
    RETURN NULL;
END $$;
"""
_ANSWER_SECONDS = 5.0
_addresses = itertools.count(1)
_LATE_SECONDS = 2.0
_LATE = {"access_tokens", "refresh_leases"}
"""A refresh writes within this time after its response."""
_HARMLESS = ["tokens:read", "links:create", "grants:read"]
"""The caller that may revoke may do so only for users without grants."""


class FuzzedBroker:
    """The broker, and what observes it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.log = LogWatch()
        self._stack = AsyncExitStack()
        self.world: World
        self.samples: dict[str, Any] = {}
        self._changes = 0
        self._last_success = float("-inf")
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger().addHandler(self.log)
        self.loop.run_until_complete(self._open())

    def close(self) -> None:
        """Stop everything."""
        logging.getLogger().removeHandler(self.log)
        self.loop.run_until_complete(self._stack.aclose())
        self.loop.close()

    async def _open(self) -> None:
        clock, standin = ManualClock(), GoogleStandin()
        standin.start()
        self._stack.callback(standin.stop)
        standin.reset(clock=clock)
        for account in ("ada@work.example", "eve@example.com"):
            standin.add_account(account)
        issuer = self._stack.enter_context(oidc_issuer(clock))
        weak, other = new_key(), new_key()
        self.world = await self._stack.enter_async_context(
            open_world(
                Path(tempfile.mkdtemp(prefix="fuzz-")),
                os.environ[DATABASE_URL],
                standin,
                clock,
                callers={
                    WORKLOAD: workload_stanza(issuer, users=["fuzz-*"], can=list(_HARMLESS)),
                    "weak": stanza(weak, users=["fuzz-*"], can=list(_HARMLESS)),
                    "other": stanza(other, can=["grants:revoke"], users=["nobody-*"]),
                },
                issuers=issuers_of(issuer),
            )
        )
        world = self.world
        await world.connect("user-1")
        await world.connect("fuzz-1", "ada@work.example")
        waiting = await world.connect_pending("user-2", "eve@example.com")
        keys = [
            f"Bearer {key}" for key in (weak, other, PLANTED, issuer.mint(), issuer.mint(exp=1))
        ]
        link = (await world.create_link("user-1")).json()
        opened = (await world.create_link("user-3")).json()
        browser = await self._stack.enter_async_context(world.browser())
        to_google = await browser.get(opened["url"])
        state = parse_qs(urlsplit(to_google.headers["location"]).query)["state"][0]
        guest = await self._stack.enter_async_context(world.browser())
        await guest.get(await connections_link(world, "user-1"))
        self.samples = {
            "authorizations": [key.encode() for key in keys],
            "basic": b"Basic d2Vhazp3cm9uZw==",
            "link": _query_of(link["url"])["link"],
            "opened": _query_of(opened["url"])["link"],
            "link_id": waiting.link_id,
            "state": state,
            "browser": _cookies(browser),
            "guest": _cookies(guest),
            "subject": issuer.mint(aud="google-tokens", sub="fuzz-1"),
            "bad_subject": issuer.mint(aud="other", sub="fuzz-1"),
            "assertion": issuer.mint(),
            "event": world.standin.security_event("tokens-revoked", "ada@example.com"),
            "bad_events": [
                world.standin.security_event("tokens-revoked", "ada@example.com", defect=defect)
                for defect in ("aud", "iss", "bad_signature", "missing_kid", "alg_none", "hs256")
            ],
            "sub": (await world.grants("user-1"))[0]["account"]["sub"],
            "grant": str((await world.sql("SELECT id FROM grants LIMIT 1"))[0]["id"]),
            "api_origin": API_ORIGIN,
        }
        await self._watch()

    async def _watch(self) -> None:
        """Count the changes of every table but the audit tables, where refusals belong."""
        self._eyes = await asyncpg.connect(os.environ[DATABASE_URL])
        self._stack.push_async_callback(self._eyes.close)
        tables = await self._eyes.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            " AND table_type = 'BASE TABLE' AND table_name NOT LIKE 'audit\\_%'"
        )
        await self._eyes.execute(_WATCHED)
        for row in tables:
            await self._eyes.execute(
                f"CREATE TRIGGER fuzz_note AFTER INSERT OR UPDATE OR DELETE ON {row[0]}"
                " FOR EACH ROW EXECUTE FUNCTION fuzz_note()"
            )
        self._seen = await self._eyes.prepare("SELECT last_value FROM fuzz_changes")
        # Wait until the first requests' writes and the periodic jobs are done.
        await asyncio.sleep(1.5)
        self.log.finds.clear()
        self._changes = await self._seen.fetchval()

    def has_served(self) -> None:
        """A request succeeded; its writes may still follow."""
        self._last_success = self.loop.time()

    def ask(self, listener: str, made: Made) -> None:
        """Send a request and check its effects. Raises `Find`, with the request."""
        try:
            self.loop.run_until_complete(self._ask(listener, made))
        except Exception as error:
            error.add_note(f"{listener}: {made}")
            raise

    async def _ask(self, listener: str, made: Made) -> None:
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer = await asked(getattr(self.world.broker, listener), made)
        judge(listener, made, answer)
        self.log.check()
        if answer.status < 400:
            self.has_served()
        before, self._changes = self._changes, await self._seen.fetchval()
        if before != self._changes and answer.status >= 400:
            changed = await self._what(self._changes - before)
            is_late = self.loop.time() - self._last_success < _LATE_SECONDS
            must(is_late and changed <= _LATE, f"a refusal has changed {changed}: {answer}")

    async def _what(self, changes: int) -> set[str]:
        query = "SELECT what FROM fuzz_log ORDER BY ctid DESC LIMIT $1"
        return {row["what"] for row in await self._eyes.fetch(query, changes)}


def _query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def _cookies(browser: Any) -> bytes:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar).encode()


async def asked(app: Any, made: Made) -> Answer:
    """Return an ASGI application's response."""
    pieces = [
        {"type": "http.request", "body": piece, "more_body": place < len(made.body) - 1}
        for place, piece in enumerate(made.body)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return pieces.pop(0) if pieces else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": made.method,
        "scheme": "http",
        "path": made.path.decode(),
        "raw_path": made.path,
        "query_string": made.query,
        "root_path": "",
        "headers": made.headers,
        # From many addresses: one address with so many failures would be rejected.
        "client": (str(IPv4Address("10.0.0.0") + next(_addresses) % 2**24), 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    if not sent or sent[0]["type"] != "http.response.start":
        raise Find("no answer")
    headers = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]
    }
    return Answer(sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:]))
