"""Which grant and which scopes a token request means: pure decisions, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.callers.model import Caller
from broker.grants.model import GrantStatus
from broker.grants.rows import StoredGrant
from broker.scopes import missing, shared
from broker.tokens.results import Denial, NotGranted
from broker.tokens.token_request import TokenRequest


@dataclass(frozen=True, slots=True)
class GrantChoice:
    """The grant to use, and the scopes to narrow its token to, as Google names them."""

    stored: StoredGrant
    scopes: tuple[str, ...]


def refused_by_policy(caller: Caller, request: TokenRequest) -> NotGranted | None:
    """Return the refusal if a requested scope is not allowed to this caller."""
    if request.scopes is None:
        return None
    forbidden = missing(request.scopes, caller.scopes)
    return NotGranted(Denial.SCOPE_NOT_ALLOWED, forbidden) if forbidden else None


def choose_grant(
    grants: Sequence[StoredGrant], caller: Caller, request: TokenRequest
) -> GrantChoice | NotGranted:
    """Return the grant and scopes that the request means, or why there are none.

    The scopes are requested ∩ granted ∩ allowed; `grants` are the user's live grants.
    """
    stored = find_grant(grants, request.account)
    if isinstance(stored, NotGranted):
        return stored
    if stored.grant.status is GrantStatus.REAUTHORIZATION_REQUIRED:
        return NotGranted(Denial.REAUTHORIZATION_REQUIRED, google_reason=stored.grant.reason)
    if stored.grant.status is not GrantStatus.ACTIVE:
        return NotGranted(Denial.CONFIRMATION_PENDING)
    wanted = request.scopes if request.scopes is not None else caller.scopes
    lacking = missing(wanted, stored.grant.scopes)
    scopes = shared(shared(stored.grant.scopes, wanted), caller.scopes)
    if not scopes or (request.scopes is not None and lacking):
        return NotGranted(Denial.SCOPE_NOT_GRANTED, lacking)
    return GrantChoice(stored, scopes)


def find_grant(grants: Sequence[StoredGrant], account: str | None) -> StoredGrant | NotGranted:
    """Return the grant of the account, or the only or default one."""
    if account is not None:
        by_sub = [stored for stored in grants if stored.grant.google_sub == account]
        return _only(by_sub or _with_email(grants, account))
    defaults = [stored for stored in grants if stored.grant.is_default]
    return _only(defaults or grants)


def _with_email(grants: Sequence[StoredGrant], email: str) -> Sequence[StoredGrant]:
    """Prefer active grants: an address may have moved from one account to another."""
    named = [stored for stored in grants if _same_email(stored.grant.email, email)]
    return [s for s in named if s.grant.status is GrantStatus.ACTIVE] or named


def is_account(account: str, google_sub: str, email: str) -> bool:
    """True if a request's `account` names this Google account."""
    return account == google_sub or _same_email(email, account)


def _only(grants: Sequence[StoredGrant]) -> StoredGrant | NotGranted:
    if not grants:
        return NotGranted(Denial.GRANT_NOT_FOUND)
    return grants[0] if len(grants) == 1 else NotGranted(Denial.ACCOUNT_AMBIGUOUS)


def _same_email(email: str, account: str) -> bool:
    return email.casefold() == account.casefold()
