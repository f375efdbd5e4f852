"""Takes in security events: each token acts once, wholly or not at all, whichever replica gets it.

What acted is forgotten after 31 days; a token that comes again after that is refused by its age.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from broker.audit.trail import AuditTrail
from broker.clock import Clock
from broker.database.database import Database, StorageUnavailable
from broker.database.queries import load_queries
from broker.database.shares import SECURITY_EVENTS, of_account, use_share
from broker.google.errors import GoogleUnavailable
from broker.google.security_event_tokens import EARLY, OLDEST
from broker.google.security_events import SecurityEventToken
from broker.security_events.effects import SecurityEffects
from broker.security_events.outcomes import Done, Effect
from broker.telemetry.failed_revocations import FailedRevocations
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.security_events")

KEPT = timedelta(days=31)
"""Longer than any token is accepted, wherever the clocks are."""
assert KEPT > OLDEST + EARLY  # noqa: S101  (of constants)

_PURGED_AT_ONCE = 10_000


async def has_arrived(database: Database, state: str) -> bool:
    """Whether a verification that carries `state` was taken in, by any replica."""
    return bool(await database.fetchval(_SQL["find_verification"], state))


class SecurityEventInbox:
    """All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(
        self,
        *,
        database: Database,
        effects: SecurityEffects,
        audit: AuditTrail,
        metrics: Metrics,
        failed: FailedRevocations,
        clock: Clock,
        client_id: Callable[[], str],
        forget: Callable[[str], None],
    ) -> None:
        """`forget` is told each user whose grants changed."""
        self._database = database
        self._effects = effects
        self._audit = audit
        self._events = metrics.security_events
        self._failed = failed
        self._clock = clock
        self._client_id = client_id
        self._forget = forget

    async def is_ours(self, client_ids: Sequence[str]) -> bool:
        """Whether one of them is the client in force, or the one of a grant."""
        if self._client_id() in client_ids:
            return True
        return bool(await self._database.fetchval(_SQL["is_client_known"], list(client_ids)))

    async def take(self, token: SecurityEventToken, *, request_id: str | None = None) -> None:
        """Do what a verified token demands, unless it was done before; a failure is reported."""
        kinds = [event.kind.value for event in token.events]
        async with self._failed.reporting(
            ("security event", token.jti),
            "a security event could not be carried out",
            about={"events": kinds},
            counted=[self._events.labels(kind, "failed") for kind in kinds],
            is_done=lambda: self._has_acted(token.jti),
        ):
            use_share(SECURITY_EVENTS)
            await self._take(token, request_id)

    async def _has_acted(self, jti: str) -> bool:
        rows = await self._database.read(_SQL["has_acted"], jti)
        return bool(rows[0]["has_acted"])

    async def _take(self, token: SecurityEventToken, request_id: str | None) -> None:
        done: Sequence[Done] = ()
        try:
            async with self._database.connection() as connection:
                # Before, for nobody may wait for another's lock with a connection in hand.
                accounts = await self._effects.accounts(connection, token)
            async with (
                self._database.exclusively(*map(of_account, accounts)),
                self._database.transaction() as connection,
            ):
                is_new = await connection.fetchval(
                    _SQL["note_token"],
                    token.jti,
                    [event.kind.value for event in token.events],
                    next((event.state for event in token.events if event.state), None),
                    token.issued_at,
                    self._clock.now(),
                )
                done = await self._effects.apply(connection, token) if is_new is not None else ()
        except (StorageUnavailable, asyncio.CancelledError):
            # Cancelled by the deadline, perhaps during the commit.
            self._note_unsettled(done, request_id)
            raise
        if is_new is None:
            self._note_duplicate(token, request_id)
        for each in done:
            self._note(each, request_id)

    def could_not_verify(self, error: GoogleUnavailable | StorageUnavailable) -> None:
        """Note a token of which nobody can say whether it is Google's, or for us, just now."""
        self._events.labels("none", "failed").inc()
        logger.log(
            # Whether it is for us is asked of storage only once the signature is found to be good.
            logging.ERROR if isinstance(error, StorageUnavailable) else logging.WARNING,
            "a security event can't be verified",
            extra={"reason": str(error)},
        )

    def refused(self, reason: str, *, request_id: str | None = None) -> None:
        """Note a token that is not Google's or not for us: anyone could have sent it."""
        self._events.labels("none", reason).inc()
        self._audit.record(
            action="security_event",
            outcome=f"refused:{reason}",
            request_id=request_id,
            from_stranger=True,
        )

    async def purge(self) -> None:
        """Forget what can't come again."""
        before = self._clock.now() - KEPT
        await self._database.execute(_SQL["purge_tokens"], before, _PURGED_AT_ONCE)
        await self._database.execute(_SQL["purge_account_states"], before, _PURGED_AT_ONCE)
        await self._database.execute(_SQL["purge_given_up"], before, _PURGED_AT_ONCE)

    def _note_duplicate(self, token: SecurityEventToken, request_id: str | None) -> None:
        for event in token.events:
            self._events.labels(event.kind.value, "duplicate").inc()
            self._audit.record(
                action="security_event",
                outcome=f"{event.kind.value}:duplicate",
                request_id=request_id,
                # Whoever has seen a token can send it again.
                from_stranger=True,
            )

    def _note_unsettled(self, done: Sequence[Done], request_id: str | None) -> None:
        """The connection was lost, perhaps after the commit: then the token does nothing when it
        comes again, and this is all that is on record of what it did.
        """
        for each in done:
            self._record(each, f"{each.kind.value}:{each.effect.value}:unsettled", request_id)

    def _note(self, done: Done, request_id: str | None) -> None:
        grant = done.grant
        self._events.labels(done.kind.value, done.effect.value).inc()
        self._record(done, f"{done.kind.value}:{done.effect.value}", request_id)
        level = logging.WARNING if done.effect is Effect.NOT_UNDERSTOOD else logging.INFO
        logger.log(
            level,
            "Google told of a security event",
            extra={
                "event": done.kind.value,
                "effect": done.effect.value,
                "user": cut_user_id(grant.user_id) if grant else None,
            },
        )

    def _record(self, done: Done, outcome: str, request_id: str | None) -> None:
        """On record; and what is held of its user is read again."""
        grant = done.grant
        if grant is not None:
            # The other replicas are told by the database.
            self._forget(grant.user_id)
        self._audit.record(
            action="security_event",
            outcome=outcome,
            user_id=grant.user_id if grant else None,
            account_sub=grant.google_sub if grant else done.google_sub,
            scopes=grant.scopes if grant else (),
            request_id=request_id,
        )
