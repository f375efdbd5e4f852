"""A test's own database, and the store of its grants."""

from collections.abc import AsyncIterator

import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.store import GrantStore
from broker.secret import Secret
from tests.grants.test_store import KEY
from tests.support.clock import ManualClock


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Secret(database_url))
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def store(database: Database, clock: ManualClock) -> GrantStore:
    return GrantStore(database, Sealer(local_sealing_keys([KEY])), clock, keep_access_tokens=True)
