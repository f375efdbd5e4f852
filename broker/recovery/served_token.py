"""A token from a restored database, by the whole broker, and without Google.

The newest active grant gets an access token of a few minutes that is no token of Google's, sealed
like any other. A caller of this drill's own then asks the internal API for it. A refresh would be a
call to Google: of that, a drill knows that the refresh token opens.
"""

import logging
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import asyncpg
import httpx2
import yaml

from broker.app import assembled
from broker.app.process_context import StartError
from broker.callers.keys import hash_key, new_key
from broker.clock import SystemClock
from broker.crypto.sealing import Sealer, UnsealingError, local_sealing_keys
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.grants.model import AccessToken, Grant, scope_set
from broker.grants.rows import grant_from
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.settings import Settings, SettingsError, load_settings

_SQL = load_queries("broker.recovery")
_LIFE = timedelta(minutes=10)
_NOBODY = "http://127.0.0.1:9"
"""Where Google would be: the discard port of this machine, where nobody answers."""


async def serve_a_token(url: Secret, keys: Sequence[Secret], row: asyncpg.Record) -> str | None:
    """Why this grant's token could not be served; None if it was. Raises `StorageUnavailable`."""
    grant, held_under = grant_from(row), scope_set(row["scopes"])
    database = Database(url, max_connections=2)
    await database.open()
    store = GrantStore(
        database, Sealer(local_sealing_keys(keys)), SystemClock(), keep_access_tokens=True
    )
    try:
        await _plant(store, grant, held_under)
        expected = await _held(store, grant, held_under)
        with _quiet(), tempfile.TemporaryDirectory(prefix="drill-") as folder:
            return await _ask(url, keys, grant, expected, Path(folder))
    except UnsealingError as error:
        return str(error)
    finally:
        await database.execute(_SQL["forget_token"], grant.id, held_under)
        await database.close()


async def _plant(store: GrantStore, grant: Grant, held_under: str) -> None:
    now = SystemClock().now()
    token = AccessToken(
        Secret("drill-" + secrets.token_urlsafe(24)), grant.scopes, now, now + _LIFE
    )
    # Where one is there that lives longer, that one stays, and is asked for.
    await store.save_refresh(grant, held_under=held_under, access_token=token, refresh_token=None)


async def _held(store: GrantStore, grant: Grant, held_under: str) -> Secret:
    """Raises `UnsealingError`."""
    for stored in await store.find(grant.user_id):
        if stored.grant.id == grant.id and held_under in stored.sealed_access_tokens:
            held = stored.sealed_access_tokens[held_under]
            return store.open_access_token(stored.grant, held_under, held).value
    raise UnsealingError("the grant holds no access token")


async def _ask(
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
            async with httpx2.AsyncClient(transport=transport, base_url=_NOBODY) as http:
                answer = await http.get(
                    f"/v1/users/{quote(grant.user_id, safe='')}/token",
                    params={"account": grant.google_sub, "min_ttl": 1},
                    headers={"Authorization": f"Bearer {key}"},
                )
    except (SettingsError, StartError) as error:
        return str(error)
    said = answer.json()
    if answer.status_code != 200:
        return f"the broker answered {answer.status_code} {said.get('code', '')}".rstrip()
    return None if said["access_token"] == expected.reveal() else "the broker gave another one"


def _settings(url: Secret, keys: Sequence[Secret], grant: Grant, callers: Path) -> Settings:
    """Raises `SettingsError`. Nothing of the operator's own environment is in it."""
    return load_settings(
        {
            "BROKER_AUDIT_RETENTION_DAYS": "0",
            "BROKER_CALLERS_FILE": str(callers),
            "DATABASE_URL": url.reveal(),
            "GOOGLE_CLIENT_ID": grant.client_id,
            "GOOGLE_CLIENT_SECRET": "drill",
            "GOOGLE_DISCOVERY_URL": f"{_NOBODY}/",
            "GOOGLE_REDIRECT_URI": "https://drill.invalid/auth/google/callback",
            "GOOGLE_SCOPES": " ".join(grant.scopes),
            "SECRET_KEY": ",".join(key.reveal() for key in keys),
        }
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """That Google is away is as it should be, and no operator need read of it."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
