"""Keys for audit trails of the tests' own, and the way round what keeps a trail append-only."""

import asyncpg

from broker.audit.keys import audit_keys
from broker.secret import Secret

SECRET_KEY = Secret("a key for the tests' audit trails, of 32 bytes or more")
KEYS = audit_keys([SECRET_KEY])

EMPTY_TRAIL = """
SELECT set_config('broker.audit_purge', 'on', true);
DELETE FROM audit_events; DELETE FROM audit_seals; DELETE FROM audit_checkpoints
"""
"""As on the first day; to be executed as one."""


async def tamper(url: str, *statements: str) -> None:
    """Do to the trail what its triggers refuse, as whoever owns the database can."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
