"""What each step of a consent leaves behind: an audit record, a count, a log line; no secrets.

A step that ends without a grant is recorded by the method that also returns its result.
"""

import logging
from datetime import timedelta

from broker.audit.trail import AuditTrail
from broker.clock import Clock
from broker.consent.consent_outcomes import (
    AwaitingConfirmation,
    Connected,
    ConsentOutcome,
    ConsentRefusal,
    ConsentResult,
    NotConnected,
)
from broker.consent.links import ConnectLink, LinkTokens
from broker.database.database import StorageUnavailable
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    IdTokenRefused,
    explain_authorization_error,
)
from broker.grants.model import Grant, GrantStatus
from broker.grants.pending_consents.model import PendingConsent
from broker.grants.pending_consents.store import ConfirmationFailure
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_PENDING = GrantStatus.PENDING_CONFIRMATION.value

_LEFT_TO_RETRY = timedelta(seconds=5)
"""A link that expires sooner is not offered again."""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (StorageUnavailable, "storage_unavailable"),
    (GoogleUnavailable, "google_unavailable"),
    (GrantRefused, "invalid_grant"),
    (ClientRefused, "client_refused"),
    (IdTokenRefused, "id_token_refused"),
)


class ConsentRecords:
    """Records how steps of a consent ended."""

    def __init__(
        self, audit: AuditTrail, metrics: Metrics, links: LinkTokens, clock: Clock
    ) -> None:
        """`links` makes the URL of a link that may be opened once more."""
        self._audit = audit
        self._metrics = metrics
        self._links = links
        self._clock = clock

    # Steps of a browser.

    def refused(
        self, link: ConnectLink, refusal: ConsentRefusal, request_id: str | None
    ) -> ConsentRefusal:
        """Record a refused step; return the refusal. The link may be over, or another browser's."""
        has_record = self._audit.record(
            action="consent",
            outcome=f"refused:{refusal}",
            caller=link.caller,
            user_id=link.user_id,
            scopes=link.scopes,
            request_id=request_id,
            unauthenticated=True,
        )
        if has_record:
            logger.warning(
                "a step of a consent was refused",
                extra={
                    "event": "consent_step_refused",
                    "reason": refusal.value,
                    "user": cut_user_id(link.user_id),
                    "request_id": request_id,
                },
            )
        return refusal

    def refused_without_link(
        self, refusal: ConsentRefusal, request_id: str | None, *, user_id: str | None = None
    ) -> ConsentRefusal:
        """Record a refused step that leads to no link; return the refusal.

        `user_id` must be verified: a signature names the user, not just the request.
        """
        self._audit.record(
            action="consent",
            outcome=f"refused:{refusal}",
            user_id=user_id,
            request_id=request_id,
            unauthenticated=True,
        )
        return refusal

    def declined(
        self, link: ConnectLink, unverified_error: str, request_id: str | None
    ) -> NotConnected:
        """Record an authorization error: the user or Google declined."""
        error = explain_authorization_error(unverified_error)
        return self._not_connected(
            link, ConsentOutcome(error.outcome.value), error.code, request_id
        )

    def failed(self, link: ConnectLink, reason: str, request_id: str | None) -> NotConnected:
        """Record a failure that has a page text of its own."""
        return self._not_connected(link, ConsentOutcome.FAILED, reason, request_id)

    def failed_by(
        self, link: ConnectLink, error: GoogleError | StorageUnavailable, request_id: str | None
    ) -> NotConnected:
        """Record a failed call to Google or PostgreSQL; the detailed cause is only logged."""
        return self._not_connected(
            link, ConsentOutcome.FAILED, _reason(error), request_id, cause=str(error)
        )

    def stored(
        self, result: Connected | AwaitingConfirmation, request_id: str | None
    ) -> Connected | AwaitingConfirmation:
        """Record a consent that became a grant or a pending consent."""
        self._ended(result, request_id)
        return result

    def _not_connected(
        self,
        link: ConnectLink,
        outcome: ConsentOutcome,
        reason: str,
        request_id: str | None,
        *,
        cause: str | None = None,
    ) -> NotConnected:
        can_open = self._clock.now() < link.expires_at - _LEFT_TO_RETRY
        result = NotConnected(link, outcome, reason, self._links.url(link) if can_open else None)
        self._ended(result, request_id, cause)
        return result

    def _ended(
        self, result: ConsentResult, request_id: str | None, cause: str | None = None
    ) -> None:
        grant = None if isinstance(result, NotConnected) else result.grant
        outcome = _PENDING if isinstance(result, AwaitingConfirmation) else result.outcome.value
        self._metrics.consents.labels(outcome=outcome).inc()
        has_record = self._audit.record(
            action="consent",
            outcome=f"{outcome}:{result.reason}" if result.reason else outcome,
            caller=result.link.caller,
            user_id=result.link.user_id,
            account_sub=grant.google_sub if grant else None,
            scopes=grant.scopes if grant else result.link.scopes,
            request_id=request_id,
            # One link can fail any number of times, and succeed once.
            unauthenticated=grant is None,
        )
        if not has_record:
            return
        if cause is not None:
            logger.warning(
                "a consent failed",
                extra={"event": "consent_failed", "cause": cause, "request_id": request_id},
            )
        logger.info(
            "a consent ended",
            extra={
                "event": "consent_ended",
                "outcome": outcome,
                "reason": result.reason,
                "caller": result.link.caller,
                "user": cut_user_id(result.link.user_id),
                "request_id": request_id,
            },
        )

    # Confirmations by callers.

    def confirmed(self, grant: Grant, *, caller: str, request_id: str | None) -> None:
        """Record that a pending consent became a grant."""
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

    def confirmation_refused(
        self,
        failure: ConfirmationFailure,
        *,
        caller: str,
        user_id: str | None,
        request_id: str | None,
    ) -> None:
        """Record a confirmation that had no effect."""
        self._audit.record(
            action="confirmation",
            outcome=f"confirmation_invalid:{failure}",
            caller=caller,
            user_id=user_id,
            request_id=request_id,
        )
        logger.warning(
            "a confirmation was refused",
            extra={
                "event": "confirmation_refused",
                "reason": failure.value,
                "caller": caller,
                "request_id": request_id,
            },
        )

    def confirmation_expired(self, pending: PendingConsent) -> None:
        """Record that a pending consent was erased, because no confirmation came in time."""
        self._metrics.consents.labels(outcome="unconfirmed").inc()
        self._audit.record(
            action="confirmation",
            outcome="expired",
            caller=pending.caller,
            user_id=pending.user_id,
            account_sub=pending.google_sub,
            scopes=pending.scopes,
        )


def _reason(error: GoogleError | StorageUnavailable) -> str:
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "request_refused"
