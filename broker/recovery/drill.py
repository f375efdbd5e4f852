"""Checks a restored database: migrate it, open its rows, verify its audit trail, serve a token.

A drill never calls Google. For the token the whole broker runs: the drill stores an access token
that is not Google's for the newest active grant, sealed like any other and valid for some minutes,
and its own caller requests it from the internal API. A refresh would call Google; for that, a drill
only checks that the refresh token opens.
"""

import logging
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import asyncpg
import httpx2
import yaml

from broker.app import assembled
from broker.app.process_context import StartError
from broker.audit.batch_macs import audit_keys
from broker.audit.verification import TrailVerifier
from broker.callers.keys import hash_key, new_key
from broker.clock import SystemClock
from broker.crypto.sealing import Sealer, UnsealingError, local_sealing_keys
from broker.database.database import Database
from broker.database.driver import connect
from broker.database.outages import StorageUnavailable, describe_address_fault
from broker.database.queries import load_queries
from broker.database.schema import applied_migrations, migrate
from broker.grants.model import AccessToken, Grant, to_scope_set
from broker.grants.rows import grant_from
from broker.grants.store import GrantStore
from broker.recovery.key_check import check_keys
from broker.secret import Secret
from broker.settings import Settings, SettingsError, load_settings

_SQL = load_queries("broker.recovery")
_QUERY_SECONDS = 3600.0

ReportStep = Callable[[str], None]
"""Takes a line for each step that is done."""


class DrillError(Exception):
    """The restored database fails a check; the message is one line and says which."""


@dataclass(frozen=True, slots=True)
class DrillResult:
    """The result of a successful drill."""

    newest_commit: datetime


async def reject_live_database(url: Secret) -> None:
    """Raise `DrillError` if brokers or standbys use this database: a drill migrates and writes.

    Raises `StorageUnavailable`.
    """
    try:
        connection = await connect(url.reveal(), timeout=5, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise StorageUnavailable(str(error) or "no answer in time") from error
    except (asyncpg.InterfaceError, ValueError) as error:
        raise StorageUnavailable(describe_address_fault(error)) from error
    try:
        signs = await connection.fetchrow(_SQL["signs_of_use"])
    finally:
        await connection.close(timeout=5)
    assert signs is not None  # noqa: S101  (a query without FROM has one row)
    if signs["brokers"]:
        raise DrillError(f"the database is live: {signs['brokers']} sessions of brokers are open")
    if signs["standbys"]:
        raise DrillError(f"the database is live: {signs['standbys']} standbys follow it")
    if signs["is_standby"]:
        raise DrillError("the database is a standby; promote what you restored")


async def check_restored(url: Secret, keys: Sequence[Secret], report: ReportStep) -> DrillResult:
    """Run all checks. Raises `DrillError`, `SchemaError` and `StorageUnavailable`."""
    before = await applied_migrations(url)
    if not before:
        raise DrillError("the database has no schema yet: was anything restored into it?")
    steps = await migrate(url)
    report(f"migrated from {before[-1].number:04}: {len(steps)} steps")
    database = Database(url, max_connections=2, command_seconds=_QUERY_SECONDS)
    await database.open()
    try:
        newest = await database.fetchval(_SQL["newest_commit"])
        if newest is None:
            raise DrillError("the backup holds no grant and no audit record: is it the right one?")
        await _open_rows(database, keys, report)
        await _verify_trail(database, keys, report)
        row = await database.fetchrow(_SQL["newest_active_grant"])
        if row is None:
            raise DrillError("the backup holds no active grant, so no token can be served")
    finally:
        await database.close()
    problem = await serve_token(url, keys, row)
    if problem is not None:
        raise DrillError(f"no token was served: {problem}")
    report("a token was served")
    return DrillResult(newest)


async def _open_rows(database: Database, keys: Sequence[Secret], report: ReportStep) -> None:
    for check in await check_keys(database, keys):
        if check.problem and check.lasts:
            raise DrillError(f"SECRET_KEY does not open the backup: {check}")
        report(str(check))


async def _verify_trail(database: Database, keys: Sequence[Secret], report: ReportStep) -> None:
    verifier = TrailVerifier(audit_keys(keys))
    async with database.connection() as connection:
        faults = [str(fault) async for fault in verifier.faults(connection)]
    if faults:
        raise DrillError(f"the audit trail is not intact: {faults[0]} ({len(faults)} faults)")
    progress = verifier.progress
    report(f"the audit trail is intact: {progress.records} records, head {progress.head}")


_LIFETIME = timedelta(minutes=10)
_NO_GOOGLE = "http://127.0.0.1:9"
"""Google's address in a drill: this machine's discard port, where nothing listens."""


async def serve_token(url: Secret, keys: Sequence[Secret], row: asyncpg.Record) -> str | None:
    """Return why this grant's token could not be served; None if it was.

    Raises `StorageUnavailable`.
    """
    grant, scope_set = grant_from(row), to_scope_set(row["scopes"])
    database = Database(url, max_connections=2)
    await database.open()
    store = GrantStore(
        database, Sealer(local_sealing_keys(keys)), SystemClock(), keep_access_tokens=True
    )
    try:
        await _store_token(store, grant, scope_set)
        expected = await _stored_token(store, grant, scope_set)
        with _quiet(), tempfile.TemporaryDirectory(prefix="drill-") as folder:
            return await _request_token(url, keys, grant, expected, Path(folder))
    except UnsealingError as error:
        return str(error)
    finally:
        await database.execute(_SQL["delete_access_token"], grant.id, scope_set)
        await database.close()


async def _store_token(store: GrantStore, grant: Grant, scope_set: str) -> None:
    now = SystemClock().now()
    token = AccessToken(
        Secret("drill-" + secrets.token_urlsafe(24)), grant.scopes, now, now + _LIFETIME
    )
    # A stored token that expires later stays, and is the one that is requested.
    await store.save_refresh(grant, scope_set=scope_set, access_token=token, refresh_token=None)


async def _stored_token(store: GrantStore, grant: Grant, scope_set: str) -> Secret:
    """Raises `UnsealingError`."""
    for stored in await store.find(grant.user_id):
        if stored.grant.id == grant.id and scope_set in stored.sealed_access_tokens:
            held = stored.sealed_access_tokens[scope_set]
            return store.open_access_token(stored.grant, scope_set, held).value
    raise UnsealingError("the grant holds no access token")


async def _request_token(
    url: Secret, keys: Sequence[Secret], grant: Grant, expected: Secret, folder: Path
) -> str | None:
    key = new_key()
    callers = folder / "callers.yaml"
    stanza = {"keys": [hash_key(key)], "can": ["tokens:read"], "users": ["*"]}
    document = {"callers": {"drill": {**stanza, "scopes": list(grant.scopes)}}}
    callers.write_text(yaml.safe_dump(document), encoding="utf-8")
    try:
        settings = _settings(url, keys, grant, callers)
        async with assembled(settings) as broker:
            transport = httpx2.ASGITransport(app=broker.internal, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url=_NO_GOOGLE) as http:
                answer = await http.get(
                    f"/v1/users/{quote(grant.user_id, safe='')}/token",
                    params={"account": grant.google_sub, "min_ttl": 1},
                    headers={"Authorization": f"Bearer {key}"},
                )
    except (SettingsError, StartError) as error:
        return str(error)
    body = answer.json()
    if answer.status_code != 200:
        return f"the broker answered {answer.status_code} {body.get('code', '')}".rstrip()
    return None if body["access_token"] == expected.reveal() else "the broker served another token"


def _settings(url: Secret, keys: Sequence[Secret], grant: Grant, callers: Path) -> Settings:
    """Load settings that take nothing from the environment. Raises `SettingsError`."""
    return load_settings(
        {
            "BROKER_AUDIT_RETENTION_DAYS": "0",
            "BROKER_CALLERS_FILE": str(callers),
            "DATABASE_URL": url.reveal(),
            "GOOGLE_CLIENT_ID": grant.client_id,
            "GOOGLE_CLIENT_SECRET": "drill",
            "GOOGLE_DISCOVERY_URL": f"{_NO_GOOGLE}/",
            "GOOGLE_REDIRECT_URI": "https://drill.invalid/auth/google/callback",
            "GOOGLE_SCOPES": " ".join(grant.scopes),
            "SECRET_KEY": ",".join(key.reveal() for key in keys),
        }
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing: that Google is unavailable is intended."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
