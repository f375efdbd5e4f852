"""What Google's word of an account or a token does to the consents that wait for a confirmation.

All of it happens inside the caller's transaction, which has locked the account.
"""

from collections.abc import Iterable, Sequence

from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.grants.endings import ConsentEndings
from broker.grants.lookups import TokenLookups
from broker.grants.model import Grant
from broker.grants.pending.rows import PendingConsent, pending_consent_from

_SQL = load_queries("broker.grants")


class WaitingChanges:
    """Find, then change."""

    def __init__(self, lookups: TokenLookups, endings: ConsentEndings) -> None:
        self._lookups = lookups
        self._endings = endings

    async def find_by_account(
        self, connection: Connection, google_sub: str
    ) -> Sequence[PendingConsent]:
        """All of the account, locked until the transaction ends."""
        rows = await connection.fetch(_SQL["waiting_consents_of_account"], google_sub)
        return [pending_consent_from(row) for row in rows]

    async def find_by_prefix(self, connection: Connection, prefix: str) -> Sequence[PendingConsent]:
        """Whose refresh token begins with these 16 characters."""
        lookups = self._lookups.of_prefix(prefix)
        rows = await connection.fetch(_SQL["waiting_consents_by_prefix"], lookups)
        return [pending_consent_from(row) for row in rows]

    async def find_by_digest(
        self, connection: Connection, digest: bytes
    ) -> Sequence[PendingConsent]:
        """Whose refresh token has this `double_digest`."""
        lookups = self._lookups.of_digest(digest)
        rows = await connection.fetch(_SQL["waiting_consents_by_digest"], lookups)
        return [pending_consent_from(row) for row in rows]

    async def find_by_grant(self, connection: Connection, grant: Grant) -> Sequence[PendingConsent]:
        """Those that count on the refresh token of a grant, since Google sent no other."""
        rows = await connection.fetch(
            _SQL["waiting_consents_on_grant"], grant.user_id, grant.google_sub
        )
        return [pending_consent_from(row) for row in rows]

    async def end(
        self, connection: Connection, ended: Iterable[PendingConsent], *, at_google: bool
    ) -> None:
        """Erase them: they can't be confirmed any more. With `at_google` it is told to end what it
        gave, too, unless somebody holds the account.
        """
        rows = [
            await connection.fetchrow(_SQL["take_pending_consent"], each.link_id) for each in ended
        ]
        # Not before all are gone: each of them would hold the account for the others.
        for row in rows:
            if at_google and row is not None:
                await self._endings.undo(connection, row, origin="security_event")

    async def ask_anew(self, connection: Connection, waiting: PendingConsent) -> bool:
        """Forget its access token: once it is confirmed, the first request makes Google say how it
        stands. False if there was none.
        """
        done = await connection.execute(_SQL["forget_waiting_access_token"], waiting.link_id)
        return not done.endswith(" 0")
