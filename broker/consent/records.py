"""What each consent leaves behind: an audit record, a count, a log line; no secret in any."""

import logging

from broker.consent.links import Link
from broker.consent.outcomes import Connected, Ended, Refusal
from broker.telemetry.audit import AuditTrail
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class ConsentRecords:
    """Notes how consents ended, and which attempts on a known link were refused."""

    def __init__(self, audit: AuditTrail, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def ended(self, ended: Ended, *, request_id: str | None) -> None:
        """A trip is over, in whichever way."""
        connected = ended if isinstance(ended, Connected) else None
        self._metrics.consents.labels(outcome=ended.outcome.value).inc()
        self._audit.record(
            action="consent",
            outcome=f"{ended.outcome}:{ended.reason}" if ended.reason else ended.outcome.value,
            caller=ended.link.caller,
            user_id=ended.link.user_id,
            account_sub=connected.grant.google_sub if connected else None,
            scopes=connected.grant.scopes if connected else ended.link.scopes,
            request_id=request_id,
        )
        logger.info(
            "a consent ended",
            extra={
                "outcome": ended.outcome.value,
                "reason": ended.reason,
                "caller": ended.link.caller,
                "user": cut_user_id(ended.link.user_id),
                "request_id": request_id,
            },
        )

    def refused(self, link: Link, refusal: Refusal, *, request_id: str | None) -> None:
        """A step was not taken: somebody may be trying a link that is over, or another's."""
        self._audit.record(
            action="consent",
            outcome=f"refused:{refusal}",
            caller=link.caller,
            user_id=link.user_id,
            scopes=link.scopes,
            request_id=request_id,
        )
        logger.warning(
            "a step of a consent was refused",
            extra={
                "reason": refusal.value,
                "user": cut_user_id(link.user_id),
                "request_id": request_id,
            },
        )
