"""The policies that apply to a connect link now: the callers file in force, and `GOOGLE_SCOPES`.

A stricter policy applies to existing links immediately; a looser one does not loosen them.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from broker.callers.model import Caller, Permission
from broker.consent.links import ConnectLink
from broker.scopes import IDENTITY_SCOPES, canonical, missing, shared


class LinkPolicies:
    """Checks links, and who may create them, against the current policies."""

    def __init__(
        self,
        find_caller: Callable[[str], Caller | None],
        allowed_scopes: Collection[str],
        own_pages: Collection[str] = (),
    ) -> None:
        """`find_caller` reads the callers file in force. No link may request more than
        `allowed_scopes`. Links that the broker creates itself return to `own_pages`.
        """
        self._find_caller = find_caller
        self._allowed_scopes = frozenset(allowed_scopes)
        self._own_pages = frozenset(own_pages)

    def find_caller(self, name: str) -> Caller | None:
        """Return a caller of the callers file in force."""
        return self._find_caller(name)

    def shown_name(self, caller_name: str) -> str:
        """Return the display name of a caller."""
        caller = self._find_caller(caller_name)
        return caller.shown_name if caller is not None else caller_name

    def linking_caller(self, name: str, user_id: str) -> Caller | None:
        """Return the caller if it may create links for this user now."""
        caller = self._find_caller(name)
        if caller is None or not caller.may(Permission.LINKS_CREATE):
            return None
        return caller if caller.may_act_for(user_id) else None

    def apply(self, link: ConnectLink) -> ConnectLink | None:
        """Return the link as it may be used now. None if its caller could not create it any more.

        It must be confirmed if it was created so, or if the policy now demands it. A `return_to`
        that is no longer listed is dropped, and with it a link whose confirmation code would go
        there.
        """
        caller = self.linking_caller(link.caller, link.user_id)
        if caller is None or not self._may_request(caller, link):
            return None
        confirm = link.confirm or caller.require_confirmation
        # The confirmation code is for the caller, never for a page of the broker's.
        listed = caller.return_to if confirm else (*caller.return_to, *self._own_pages)
        return_to = link.return_to if link.return_to in listed else None
        if confirm and return_to is None:
            return None
        return replace(link, return_to=return_to, confirm=confirm)

    def is_own_page(self, address: str | None) -> bool:
        """True if `address` is a page of the broker's own."""
        return address in self._own_pages

    def allowed_of(self, scopes: Collection[str], caller: Caller) -> tuple[str, ...]:
        """Return those of `scopes` that links of this caller may request now."""
        return shared(shared(scopes, self._allowed_scopes), caller.scopes)

    def _may_request(self, caller: Caller, link: ConnectLink) -> bool:
        # `GOOGLE_SCOPES` may be shorter since a restart, or on another replica.
        beyond = (
            *missing(link.scopes, caller.scopes),
            *missing(link.scopes, self._allowed_scopes),
        )
        return all(canonical(scope) in IDENTITY_SCOPES for scope in beyond)
