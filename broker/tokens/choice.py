"""Which grant and which scopes a request means; pure decisions, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.callers.model import Caller
from broker.google.scopes import missing, shared
from broker.grants.model import GrantStatus
from broker.grants.rows import StoredGrant
from broker.tokens.cache.token_cache import TokenRequest
from broker.web.problems import (
    Problem,
    account_ambiguous,
    confirmation_pending,
    grant_not_found,
    reauthorization_required,
    scope_not_allowed,
    scope_not_granted,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The grant to use, and the scopes to narrow its token to, as Google named them."""

    stored: StoredGrant
    scopes: tuple[str, ...]


def refused_by_policy(caller: Caller, request: TokenRequest) -> Problem | None:
    """The refusal when a scope is asked for that this caller may never have."""
    if request.scopes is None:
        return None
    forbidden = missing(request.scopes, caller.scopes)
    return scope_not_allowed(forbidden) if forbidden else None


def choose(
    grants: Sequence[StoredGrant], caller: Caller, request: TokenRequest
) -> Choice | Problem:
    """The grant and scopes that the request means, or why there are none.

    The scopes are requested ∩ granted ∩ allowed; `grants` are the user's live ones.
    """
    stored = grant_meant(grants, request.account)
    if isinstance(stored, Problem):
        return stored
    if stored.grant.status is GrantStatus.REAUTHORIZATION_REQUIRED:
        return reauthorization_required(stored.grant.reason)
    if stored.grant.status is not GrantStatus.ACTIVE:
        return confirmation_pending()
    wanted = request.scopes if request.scopes is not None else caller.scopes
    lacking = missing(wanted, stored.grant.scopes)
    scopes = shared(shared(stored.grant.scopes, wanted), caller.scopes)
    if not scopes or (request.scopes is not None and lacking):
        return scope_not_granted(lacking)
    return Choice(stored, scopes)


def grant_meant(grants: Sequence[StoredGrant], account: str | None) -> StoredGrant | Problem:
    """The grant of the account, or the only or default one; the refusal if there is none."""
    if account is not None:
        by_sub = [stored for stored in grants if stored.grant.google_sub == account]
        return _only(by_sub or _with_email(grants, account))
    defaults = [stored for stored in grants if stored.grant.is_default]
    return _only(defaults or grants)


def _with_email(grants: Sequence[StoredGrant], email: str) -> Sequence[StoredGrant]:
    """An address may have changed hands: of several accounts, those that still work are meant."""
    named = [stored for stored in grants if _same_email(stored.grant.email, email)]
    return [s for s in named if s.grant.status is GrantStatus.ACTIVE] or named


def is_account(account: str, google_sub: str, email: str) -> bool:
    """Whether a request's `account` is this one."""
    return account == google_sub or _same_email(email, account)


def _only(grants: Sequence[StoredGrant]) -> StoredGrant | Problem:
    if not grants:
        return grant_not_found()
    return grants[0] if len(grants) == 1 else account_ambiguous()


def _same_email(email: str, account: str) -> bool:
    return email.casefold() == account.casefold()
