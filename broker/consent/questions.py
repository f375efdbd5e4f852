"""What Google is asked for on a trip: what the link says, and what must not get lost by asking.

Google adds what the account has granted before (`include_granted_scopes`); a server that does not
would give a token for the new scopes alone, and the grant would shrink unnoticed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.consent.links import Link
from broker.consent.store import Trip
from broker.google.scopes import IDENTITY_SCOPES, canonical, is_within, missing, shared
from broker.grants.model import Grant, GrantStatus
from broker.grants.store import Consent, GrantStore
from broker.secret_sources.current import CurrentClient


@dataclass(frozen=True, slots=True)
class Question:
    """What to put to Google."""

    scopes: tuple[str, ...]
    """The link's own first, then those that the account's grant has already."""
    login_hint: str | None
    prompts: bool
    """Whether Google must ask the person, and so send a refresh token."""


class Questions:
    """Decides by what the user has granted so far. All raise `StorageUnavailable`."""

    def __init__(
        self, grants: GrantStore, current: CurrentClient, allowed_scopes: Iterable[str]
    ) -> None:
        self._grants = grants
        self._current = current
        self._allowed_scopes = tuple(allowed_scopes)

    async def about(self, link: Link) -> Question:
        """The first question of a link.

        Only for an account that the link names, and whose grant has it all, Google need not ask the
        person: for scopes beyond the grant it asks anyway, and only with `prompt=consent` is it
        sure to send a refresh token that has them.
        """
        named = await self.named_account(link)
        if named is None:
            return Question(link.scopes, link.login_hint, prompts=True)
        scopes = (*link.scopes, *missing(self._askable(named), link.scopes))
        prompts = link.force_consent or not is_within(link.scopes, named.scopes)
        return Question(scopes, link.login_hint, prompts)

    async def again(self, trip: Trip, consent: Consent) -> Question | None:
        """What to ask of this account once more, if its grant would lose what was not asked for.

        Asked with everything, and so on record, the person may well take some of it back.
        """
        for grant in await self._working(consent.user_id):
            if grant.google_sub == consent.google_sub:
                lost = missing(self._askable(grant), consent.scopes)
                unasked = missing(lost, trip.transaction.scopes)
                if unasked:
                    scopes = (*trip.transaction.scopes, *unasked)
                    return Question(scopes, consent.google_sub, prompts=True)
        return None

    async def named_account(self, link: Link) -> Grant | None:
        """The working grant that the link's `login_hint` names, by `sub` or email."""
        if link.login_hint is None:
            return None
        named = [
            grant
            for grant in await self._working(link.user_id)
            if is_named(link.login_hint, grant.google_sub, grant.email)
        ]
        return named[0] if named else None

    async def mismatch(self, link: Link, consent: Consent) -> str | None:
        """Why the account is not the one that the link names, if it names one; else nothing.

        An address that anybody may have claimed is no name: only `sub` is one then (OpenID Connect
        Core §5.7).
        """
        hint = link.login_hint
        if hint is None or hint == consent.google_sub:
            return None
        if not await self._has_address(hint, link, consent):
            return "account_mismatch"
        return None if consent.is_email_theirs else "address_not_verified"

    async def _has_address(self, address: str, link: Link, consent: Consent) -> bool:
        """Whether the account has it; its grant may still show one that it had before."""
        if is_named(address, consent.google_sub, consent.email):
            return True
        grants = await self._grants.list(link.user_id)
        return any(
            grant.google_sub == consent.google_sub
            and is_named(address, grant.google_sub, grant.email)
            for grant in grants
        )

    async def _working(self, user_id: str) -> Sequence[Grant]:
        client_id = self._current.client.client_id
        return [
            stored.grant
            for stored in await self._grants.find(user_id)
            if stored.grant.status is GrantStatus.ACTIVE and stored.grant.client_id == client_id
        ]

    def _askable(self, grant: Grant) -> tuple[str, ...]:
        """What the grant has and any link may ask for; who the user is, is always asked."""
        allowed = shared(grant.scopes, self._allowed_scopes)
        return tuple(scope for scope in allowed if canonical(scope) not in IDENTITY_SCOPES)


def is_named(hint: str, google_sub: str, email: str) -> bool:
    """Whether a `login_hint` means this account."""
    return hint == google_sub or hint.casefold() == email.casefold()
