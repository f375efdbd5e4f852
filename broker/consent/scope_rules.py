"""What is requested of Google, and how much of its answer counts, given the user's earlier grants.

Pure decisions: nothing here reads or stores.

Google adds what the account has granted before (`include_granted_scopes`). A server that does not
would return a token for the new scopes alone, and the grant would lose scopes that its user was not
asked about. What Google adds may also be what the same account allowed this project for another
user of the product, or through another client; this user was not asked for that either.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from broker.consent.authorization_requests import AuthorizationParameters, ConsumedRequest
from broker.consent.links import ConnectLink
from broker.grants.model import Consent, Grant, GrantStatus
from broker.grants.pending_consents.model import PendingConsent
from broker.scopes import IDENTITY_SCOPES, canonical, is_within, missing, shared

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EarlierGrants:
    """A user's grants and pending consents as one read found them, after the code exchange."""

    grants: Sequence[Grant]
    """Revoked ones too."""
    pending: Sequence[PendingConsent] = ()
    """Read only for a link that must be confirmed."""


class ScopeRules:
    """Decides which scopes to request, and with which prompt."""

    def __init__(self, client_id: Callable[[], str], allowed_scopes: Iterable[str]) -> None:
        """`client_id` returns the id of the current OAuth client."""
        self._client_id = client_id
        self._allowed_scopes = tuple(allowed_scopes)

    def first_parameters(
        self, link: ConnectLink, grants: Iterable[Grant]
    ) -> AuthorizationParameters:
        """Return the parameters of a link's first authorization request.

        Google need not prompt only if the link names an account whose grant has all scopes of the
        link: for scopes beyond the grant it prompts anyway, and only with `prompt=consent` is it
        sure to send a refresh token that covers them.
        """
        named = self.named_grant(link, grants)
        if named is None:
            return AuthorizationParameters(link.scopes, link.login_hint, prompt_consent=True)
        scopes = (*link.scopes, *missing(self._requestable(named), link.scopes))
        prompt = link.force_consent or not is_within(link.scopes, named.scopes)
        return AuthorizationParameters(scopes, link.login_hint, prompt_consent=prompt)

    def named_grant(self, link: ConnectLink, grants: Iterable[Grant]) -> Grant | None:
        """Return the working grant that the link's `login_hint` names, by `sub` or email."""
        hint = link.login_hint
        if hint is None:
            return None
        named = (
            grant
            for grant in self._working(grants)
            if is_named(hint, grant.google_sub, grant.email)
        )
        return next(named, None)

    def parameters_to_keep_scopes(
        self, consumed: ConsumedRequest, consent: Consent, grants: Iterable[Grant]
    ) -> AuthorizationParameters | None:
        """Return the parameters of one more request if the account's grant would lose scopes that
        were not requested. None if it would lose nothing.

        Once all are requested, the user may decline some of them, and that counts.
        """
        requested = consumed.request.scopes
        for grant in self._working(grants):
            if grant.google_sub == consent.google_sub:
                lost = missing(self._requestable(grant), consent.scopes)
                not_requested = missing(lost, requested)
                if not_requested:
                    scopes = (*requested, *not_requested)
                    return AuthorizationParameters(scopes, consent.google_sub, prompt_consent=True)
        return None

    def _working(self, grants: Iterable[Grant]) -> Iterable[Grant]:
        client_id = self._client_id()
        return (
            grant
            for grant in grants
            if grant.status is GrantStatus.ACTIVE and grant.client_id == client_id
        )

    def _requestable(self, grant: Grant) -> tuple[str, ...]:
        """The grant's scopes that any link may request, without those that are always requested."""
        allowed = shared(grant.scopes, self._allowed_scopes)
        return tuple(scope for scope in allowed if canonical(scope) not in IDENTITY_SCOPES)


def account_mismatch(link: ConnectLink, consent: Consent, grants: Iterable[Grant]) -> str | None:
    """Return the reason if the account is not the one that the link names; else None.

    An unverified address, which anyone may have claimed, names no account: then only the `sub`
    does (OpenID Connect Core §5.7).
    """
    hint = link.login_hint
    if hint is None or hint == consent.google_sub:
        return None
    # The account's grant may still have an address that the account had before.
    known_addresses = [
        consent.email,
        *(grant.email for grant in grants if grant.google_sub == consent.google_sub),
    ]
    if not any(is_named(hint, consent.google_sub, address) for address in known_addresses):
        return "account_mismatch"
    return None if consent.is_email_verified else "address_not_verified"


def limited_to_requested(
    consumed: ConsumedRequest, consent: Consent, earlier: EarlierGrants
) -> Consent:
    """Return the consent with those of its scopes that this user was asked for, now or before.

    Its access token is dropped if it carries more: it must not be handed out.
    """
    asked_now = (*consumed.request.scopes, *_pending_scopes(consumed.link, consent, earlier))
    granted = _granted_scopes(consent, earlier)
    scopes = shared(consent.scopes, (*asked_now, *granted))
    earlier_scopes = missing(scopes, asked_now)
    if scopes == consent.scopes:
        return replace(consent, earlier_scopes=earlier_scopes)
    unrequested = missing(consent.scopes, scopes)
    # Also happens where Google names a scope differently in its answer than in the request.
    logger.info(
        "scopes left out of a consent: this user was not asked for them",
        extra={"event": "unrequested_scopes_left_out", "scopes": " ".join(unrequested)},
    )
    return replace(
        consent,
        scopes=scopes,
        access_token=None,
        unrequested_scopes=unrequested,
        earlier_scopes=earlier_scopes,
    )


def _granted_scopes(consent: Consent, earlier: EarlierGrants) -> tuple[str, ...]:
    """The scopes of the user's grant of this account."""
    return tuple(
        scope
        for grant in earlier.grants
        if grant.google_sub == consent.google_sub and grant.status is not GrantStatus.REVOKED
        for scope in grant.scopes
    )


def _pending_scopes(link: ConnectLink, consent: Consent, earlier: EarlierGrants) -> tuple[str, ...]:
    """The scopes of what is pending for this account.

    It is not known yet in whose session a pending consent was given. So it counts only for a link
    that must be confirmed as well, by the same caller.
    """
    if not link.confirm:
        return ()
    return tuple(
        scope
        for pending in earlier.pending
        if pending.google_sub == consent.google_sub and pending.caller == link.caller
        for scope in pending.scopes
    )


def is_named(hint: str, google_sub: str, email: str) -> bool:
    """True if a `login_hint` means this account."""
    return hint == google_sub or hint.casefold() == email.casefold()
