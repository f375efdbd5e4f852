"""Ends a trip without a grant: puts it on record, and says whether the same link may help."""

from datetime import timedelta

from broker.clock import Clock
from broker.consent.links import Link, LinkTokens
from broker.consent.outcomes import ConsentOutcome, NotConnected, Refusal
from broker.consent.records import ConsentRecords
from broker.database.database import StorageUnavailable
from broker.google.authorization_errors import explain
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    IdTokenRefused,
)

_LEFT_TO_RETRY = timedelta(seconds=5)


class TripEndings:
    """Each method returns what the browser's answer is made of."""

    def __init__(self, records: ConsentRecords, links: LinkTokens, clock: Clock) -> None:
        self._records = records
        self._links = links
        self._clock = clock

    def refused(self, link: Link, refusal: Refusal, request_id: str | None) -> Refusal:
        """A step that is not taken."""
        self._records.refused(link, refusal, request_id=request_id)
        return refusal

    def refused_stranger(
        self, refusal: Refusal, request_id: str | None, *, user_id: str | None = None
    ) -> Refusal:
        """The same where there is no link; `user_id` must not be what somebody merely says."""
        self._records.stranger_refused(refusal, user_id=user_id, request_id=request_id)
        return refusal

    def declined(self, link: Link, unverified_error: str, request_id: str | None) -> NotConnected:
        """Google said no, or the person did."""
        error = explain(unverified_error)
        return self._ended(link, ConsentOutcome(error.outcome.value), error.code, request_id)

    def failed(self, link: Link, reason: str, request_id: str | None) -> NotConnected:
        """For a reason that has words of its own."""
        return self._ended(link, ConsentOutcome.FAILED, reason, request_id)

    def broken(
        self, link: Link, error: GoogleError | StorageUnavailable, request_id: str | None
    ) -> NotConnected:
        """Something was out of order; the finer cause goes to the log."""
        outcome = ConsentOutcome.FAILED
        return self._ended(link, outcome, _reason(error), request_id, cause=str(error))

    def _ended(
        self,
        link: Link,
        outcome: ConsentOutcome,
        reason: str,
        request_id: str | None,
        *,
        cause: str | None = None,
    ) -> NotConnected:
        can_open = self._clock.now() < link.expires_at - _LEFT_TO_RETRY
        ended = NotConnected(link, outcome, reason, self._links.url(link) if can_open else None)
        self._records.ended(ended, request_id=request_id, cause=cause)
        return ended


def _reason(error: GoogleError | StorageUnavailable) -> str:
    """Which words a failure deserves."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "request_refused"


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (StorageUnavailable, "storage_unavailable"),
    (GoogleUnavailable, "google_unavailable"),
    (GrantRefused, "invalid_grant"),
    (ClientRefused, "client_refused"),
    (IdTokenRefused, "id_token_refused"),
)
