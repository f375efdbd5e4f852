"""The HTTP answer to each refusal of a token: one table."""

from collections.abc import Callable, Mapping

from broker.backoff import retry_after
from broker.callers.answers import problem_of as access_problem_of
from broker.callers.refusals import AccessRefused
from broker.tokens.results import Defect, Denial, NotGranted, Outage, Refusal, Unavailable
from broker.web.problems import (
    Problem,
    account_ambiguous,
    client_misconfigured,
    confirmation_pending,
    google_unavailable,
    grant_not_found,
    internal_error,
    reauthorization_required,
    scope_not_allowed,
    scope_not_granted,
    storage_unavailable,
)


def problem_of(refusal: Refusal | Defect) -> Problem:
    """Return the problem of the contract that answers a refusal."""
    if isinstance(refusal, NotGranted):
        return DENIALS[refusal.reason](refusal)
    if isinstance(refusal, Unavailable):
        return OUTAGES[refusal.reason](refusal)
    if isinstance(refusal, AccessRefused):
        return access_problem_of(refusal)
    return internal_error()


DENIALS: Mapping[Denial, Callable[[NotGranted], Problem]] = {
    Denial.SCOPE_NOT_ALLOWED: lambda refusal: scope_not_allowed(refusal.scopes),
    Denial.GRANT_NOT_FOUND: lambda _: grant_not_found(),
    Denial.ACCOUNT_AMBIGUOUS: lambda _: account_ambiguous(),
    Denial.CONFIRMATION_PENDING: lambda _: confirmation_pending(),
    Denial.SCOPE_NOT_GRANTED: lambda refusal: scope_not_granted(refusal.scopes),
    Denial.REAUTHORIZATION_REQUIRED: lambda refusal: reauthorization_required(
        refusal.google_reason
    ),
}

OUTAGES: Mapping[Outage, Callable[[Unavailable], Problem]] = {
    Outage.GOOGLE: lambda outage: (
        google_unavailable(retry_after(outage.retry_after))
        if outage.explanation is None
        else google_unavailable(retry_after(outage.retry_after), outage.explanation)
    ),
    Outage.STORAGE: lambda outage: storage_unavailable(retry_after(outage.retry_after)),
    Outage.CLIENT: lambda outage: client_misconfigured(retry_after(outage.retry_after)),
}
