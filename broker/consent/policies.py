"""What the callers file and the list of scopes of now say about a link that was made a while ago.

A policy that became stricter counts at once, and one that became looser does not loosen a link.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from broker.callers.model import Caller, Permission
from broker.consent.links import Link
from broker.google.scopes import IDENTITY_SCOPES, canonical, missing


class LinkPolicies:
    """Judges links each time that a browser comes with one."""

    def __init__(
        self,
        named: Callable[[str], Caller | None],
        allowed_scopes: Collection[str],
        own_pages: Collection[str] = (),
    ) -> None:
        """`named` finds a caller in the callers file that is in force; no link may ask for more
        than `allowed_scopes`; links of the broker's own lead back to `own_pages`.
        """
        self._named = named
        self._allowed_scopes = frozenset(allowed_scopes)
        self._own_pages = frozenset(own_pages)

    def applied(self, link: Link) -> Link | None:
        """The link as it may be used now; nothing if its caller could not make it any more.

        It must be confirmed if it was made so or if the policy says so by now. A `return_to` that
        is no longer listed is dropped, and with it a link whose code would have to go there.
        """
        caller = self._named(link.caller)
        if caller is None or not self._may_make(caller, link):
            return None
        confirm = link.confirm or caller.require_confirmation
        # The code that would confirm it is for the caller, never for a page of the broker's.
        listed = caller.return_to if confirm else (*caller.return_to, *self._own_pages)
        return_to = link.return_to if link.return_to in listed else None
        if confirm and return_to is None:
            return None
        return replace(link, return_to=return_to, confirm=confirm)

    def shown_name(self, link: Link) -> str:
        """What people know the link's caller as."""
        caller = self._named(link.caller)
        return caller.shown_name if caller is not None else link.caller

    def _may_make(self, caller: Caller, link: Link) -> bool:
        # `GOOGLE_SCOPES` may have become shorter at a restart, or be so at another replica.
        beyond = (
            *missing(link.scopes, caller.scopes),
            *missing(link.scopes, self._allowed_scopes),
        )
        return (
            caller.may(Permission.LINKS_CREATE)
            and caller.may_act_for(link.user_id)
            and all(canonical(scope) in IDENTITY_SCOPES for scope in beyond)
        )
