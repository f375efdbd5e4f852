"""Keys for the tests' audit trails, and statements that circumvent the append-only triggers."""

import asyncpg

from broker.audit.batch_macs import audit_keys
from broker.secret import Secret

SECRET_KEY = Secret("a key for the tests' audit trails, of 32 bytes or more")
KEYS = audit_keys([SECRET_KEY])

EMPTY_TRAIL = """
SELECT set_config('broker.audit_purge', 'on', true);
DELETE FROM audit_events; DELETE FROM audit_seals; DELETE FROM audit_checkpoints
"""
"""Empties the trail; to be executed as one statement."""


async def tamper(url: str, *statements: str) -> None:
    """Execute statements that the trail's triggers refuse, as the owner of the database can."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
