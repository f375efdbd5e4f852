"""Metrics, log lines and audit records of security events."""

import logging
from collections.abc import Sequence

from broker.audit.trail import AuditTrail
from broker.database.database import StorageUnavailable
from broker.google.errors import GoogleUnavailable
from broker.google.security_events import SecurityEventToken
from broker.security_events.decisions import AppliedEffect, Effect
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class SecurityEventRecords:
    """Records the outcome of each token. Nothing here waits."""

    def __init__(self, audit: AuditTrail, metrics: Metrics) -> None:
        self._audit = audit
        self.counter = metrics.security_events

    def unverifiable(self, error: GoogleUnavailable | StorageUnavailable) -> None:
        """Record a token that can't be verified now; Google sends it again."""
        self.counter.labels("none", "failed").inc()
        logger.log(
            # Storage is read only after the signature was found to be good.
            logging.ERROR if isinstance(error, StorageUnavailable) else logging.WARNING,
            "a security event can't be verified now",
            extra={"event": "security_event_unverifiable", "reason": str(error)},
        )

    def refused(self, reason: str, *, request_id: str | None = None) -> None:
        """Record a token that is not Google's or not for this broker: anyone could have sent it."""
        self.counter.labels("none", reason).inc()
        self._audit.record(
            action="security_event",
            outcome=f"refused:{reason}",
            request_id=request_id,
            unauthenticated=True,
        )

    def duplicate(self, token: SecurityEventToken, request_id: str | None) -> None:
        """Record a token that was applied before."""
        for event in token.events:
            self.counter.labels(event.kind.value, "duplicate").inc()
            self._audit.record(
                action="security_event",
                outcome=f"{event.kind.value}:duplicate",
                request_id=request_id,
                # Anyone who has seen a token can send it again.
                unauthenticated=True,
            )

    def unsettled(self, done: Sequence[AppliedEffect], request_id: str | None) -> None:
        """Record effects whose commit has an unknown outcome.

        If they were committed, the token has no effect when it arrives again, and this record is
        the only one.
        """
        for each in done:
            self._record(each, f"{each.kind.value}:{each.effect.value}:unsettled", request_id)

    def applied(self, done: AppliedEffect, request_id: str | None) -> None:
        """Record an effect."""
        self.counter.labels(done.kind.value, done.effect.value).inc()
        self._record(done, f"{done.kind.value}:{done.effect.value}", request_id)
        logger.log(
            logging.WARNING if done.effect is Effect.NOT_UNDERSTOOD else logging.INFO,
            "Google sent a security event",
            extra={
                "event": "security_event_applied",
                "kind": done.kind.value,
                "effect": done.effect.value,
                "user": cut_user_id(done.grant.user_id) if done.grant else None,
            },
        )

    def _record(self, done: AppliedEffect, outcome: str, request_id: str | None) -> None:
        grant = done.grant
        self._audit.record(
            action="security_event",
            outcome=outcome,
            user_id=grant.user_id if grant else None,
            account_sub=grant.google_sub if grant else done.google_sub,
            scopes=grant.scopes if grant else (),
            request_id=request_id,
        )
