"""Whether a PostgreSQL tells its timeline, by which a failover to another server is noticed.

Amazon Aurora does not, unless logical replication is on. Its servers share one storage, so that a
failover there loses no commit.
"""

import asyncpg

_REFUSED = (
    # 55000: Aurora, whose `wal_level` is not "logical"; also any standby.
    asyncpg.exceptions.ObjectNotInPrerequisiteStateError,
    asyncpg.exceptions.FeatureNotSupportedError,
)


async def tells_timeline(connection: asyncpg.Connection) -> bool:
    """False for a standby, too. To be asked outside a transaction, which an error would end."""
    try:
        await connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")
    except _REFUSED:
        return False
    return True
