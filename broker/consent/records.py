"""What each consent leaves behind: an audit record, a count, a log line; no secret in any."""

import logging

from broker.audit.trail import AuditTrail
from broker.consent.links import Link
from broker.consent.outcomes import Ended, NotConnected, Refusal, Waiting
from broker.grants.model import Grant, GrantStatus
from broker.grants.pending.rows import PendingConsent
from broker.grants.pending.store import Unconfirmed
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_WAITS = GrantStatus.PENDING_CONFIRMATION.value


class ConsentRecords:
    """Notes how consents ended, and which attempts on a known link were refused."""

    def __init__(self, audit: AuditTrail, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def ended(self, ended: Ended, *, request_id: str | None, cause: str | None = None) -> None:
        """A trip is over, in whichever way; the finer cause goes to the log alone."""
        grant = None if isinstance(ended, NotConnected) else ended.grant
        outcome = _WAITS if isinstance(ended, Waiting) else ended.outcome.value
        self._metrics.consents.labels(outcome=outcome).inc()
        has_record = self._audit.record(
            action="consent",
            outcome=f"{outcome}:{ended.reason}" if ended.reason else outcome,
            caller=ended.link.caller,
            user_id=ended.link.user_id,
            account_sub=grant.google_sub if grant else None,
            scopes=grant.scopes if grant else ended.link.scopes,
            request_id=request_id,
            # With one link it can go wrong any number of times, and right once.
            from_stranger=grant is None,
        )
        if not has_record:
            return
        if cause is not None:
            logger.warning("a consent failed", extra={"cause": cause, "request_id": request_id})
        logger.info(
            "a consent ended",
            extra={
                "outcome": outcome,
                "reason": ended.reason,
                "caller": ended.link.caller,
                "user": cut_user_id(ended.link.user_id),
                "request_id": request_id,
            },
        )

    def confirmed(self, grant: Grant, *, caller: str, request_id: str | None) -> None:
        """A consent that waited has taken effect."""
        self._metrics.consents.labels(outcome="connected").inc()
        self._audit.record(
            action="confirmation",
            outcome="ok",
            caller=caller,
            user_id=grant.user_id,
            account_sub=grant.google_sub,
            scopes=grant.scopes,
            request_id=request_id,
        )

    def not_confirmed(
        self, fault: Unconfirmed, *, caller: str, user_id: str | None, request_id: str | None
    ) -> None:
        """A caller tried, in vain."""
        self._audit.record(
            action="confirmation",
            outcome=f"confirmation_invalid:{fault}",
            caller=caller,
            user_id=user_id,
            request_id=request_id,
        )
        logger.warning(
            "a confirmation was refused",
            extra={"reason": fault.value, "caller": caller, "request_id": request_id},
        )

    def unconfirmed(self, pending: PendingConsent) -> None:
        """Nobody confirmed it in time: it is erased."""
        self._metrics.consents.labels(outcome="unconfirmed").inc()
        self._audit.record(
            action="confirmation",
            outcome="expired",
            caller=pending.caller,
            user_id=pending.user_id,
            account_sub=pending.google_sub,
            scopes=pending.scopes,
        )

    def stranger_refused(
        self, refusal: Refusal, *, user_id: str | None, request_id: str | None
    ) -> None:
        """Somebody came with nothing that leads to a link; the user only if the broker said so."""
        self._audit.record(
            action="consent",
            outcome=f"refused:{refusal}",
            user_id=user_id,
            request_id=request_id,
            from_stranger=True,
        )

    def refused(self, link: Link, refusal: Refusal, *, request_id: str | None) -> None:
        """A step was not taken: somebody may be trying a link that is over, or another's."""
        has_record = self._audit.record(
            action="consent",
            outcome=f"refused:{refusal}",
            caller=link.caller,
            user_id=link.user_id,
            scopes=link.scopes,
            request_id=request_id,
            from_stranger=True,
        )
        if has_record:
            logger.warning(
                "a step of a consent was refused",
                extra={
                    "reason": refusal.value,
                    "user": cut_user_id(link.user_id),
                    "request_id": request_id,
                },
            )
