"""What a new consent's refresh token means for the consents of its account that still wait.

Google's newest token can fetch all that its answer named (`include_granted_scopes`), whoever was
asked for it. Which of it counts, and for whom, is not decided here.
"""

from collections.abc import Iterable
from datetime import datetime

import asyncpg

from broker.crypto.sealing import Sealer, UnsealingError
from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.grants.lookups import TokenLookups
from broker.grants.pending.rows import PendingSealer, pending_consent_from
from broker.grants.rows import GrantSealer, grant_from, refresh_token_from
from broker.secret import Secret

_SQL = load_queries("broker.grants")


class NewerTokens:
    """Each method is part of its caller's transaction, which has locked user and account."""

    def __init__(self, sealer: Sealer, lookups: TokenLookups | None) -> None:
        self._pending = PendingSealer(sealer)
        self._grants = GrantSealer(sealer)
        self._lookups = lookups

    async def hand_on(
        self,
        connection: Connection,
        token: Secret | None,
        *,
        of: tuple[str, str, str],
        named: Iterable[str],
        now: datetime,
        exchanged_after: datetime | None,
    ) -> bool:
        """Give it to what waits `of` the same user, account and client, if `named` has it all.

        Whether anything had an older one until now.
        """
        if token is None:
            return False
        rows = await connection.fetch(_SQL["waiting_consents_within"], *of, list(named), now)
        for row in rows:
            sealed = self._pending.seal("refresh_token", pending_consent_from(row), token)
            assert sealed is not None  # noqa: S101  (there is a token)
            await connection.execute(
                _SQL["replace_waiting_token"],
                row["link_id"],
                sealed.ciphertext,
                sealed.key_id,
                exchanged_after,
                *lookup_columns(self._lookups, token),
            )
        return any(row["sealed_refresh_token"] is not None for row in rows)

    def is_that_of(self, grant_row: asyncpg.Record | None, token: Secret | None) -> bool:
        """Whether a grant has this very token, so that both have what Google gave at once."""
        if grant_row is None or (sealed := refresh_token_from(grant_row)) is None:
            return False
        try:
            return self._grants.open_refresh_token(grant_from(grant_row), sealed) == token
        except UnsealingError:
            return False


def lookup_columns(
    lookups: TokenLookups | None, token: Secret | None
) -> tuple[str | None, bytes | None, bytes | None]:
    """By what an event may name the token of a consent that waits; empty where there is none."""
    if token is None or lookups is None:
        return None, None, None
    made = lookups.of(token)
    return made.key_id, made.prefix, made.digest
