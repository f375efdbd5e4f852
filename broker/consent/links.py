"""Connect links: what one asks for, and the signed, short-lived token that stands for it in a URL.

Being one-time and bound to a browser is the table's business; being untampered is settled here.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from urllib.parse import quote, urlsplit
from uuid import UUID

from broker.crypto.signing import SIGNATURE_LENGTH, Signer

LINK_LIFE = timedelta(minutes=10)

LINK_TOKEN_LIMIT = 128
"""Characters; a longer one is not ours, and not worth an HMAC."""

_TOKEN = re.compile(
    rf"(?P<id>[0-9a-f]{{32}})\.(?P<expiry>[0-9]{{1,12}})\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}"
)


@dataclass(frozen=True, slots=True)
class Link:
    """One connect link, as the table holds it."""

    id: UUID
    caller: str
    """Whoever asked for it."""
    user_id: str
    scopes: tuple[str, ...]
    """To be asked of Google, identity scopes included."""
    redirect_uri: str
    return_to: str | None
    login_hint: str | None
    force_consent: bool
    """Google must ask again: without that it would send no refresh token."""
    expires_at: datetime
    """For opening it; a browser that is at Google by then may still come back."""
    completed_at: datetime | None
    confirm: bool = False
    """What is consented to counts once the caller has confirmed whose session it was."""
    browser_hash: bytes | None = None
    """Whose it is, once a browser has opened it."""

    @property
    def origin(self) -> str:
        """Where it leads to, and where its browser comes back to."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def is_https(self) -> bool:
        """Whether its browser comes back over https, or over plain http on loopback."""
        return urlsplit(self.redirect_uri).scheme == "https"


class LinkFault(Enum):
    """Why a link token is not accepted."""

    NOT_OURS = auto()
    EXPIRED = auto()


class LinkTokens:
    """Makes and reads the `link=` of connect URLs."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def issue(self, link: Link) -> str:
        """The token: the link's id and expiry, signed together with the user's id."""
        expiry = str(int(link.expires_at.timestamp()))
        bindings = _bindings(link.user_id)
        return self._signer.sign(f"{link.id.hex}.{expiry}", bound_to=bindings[link.confirm])

    def url(self, link: Link) -> str:
        """Where to send the user's browser: on the origin that it will come back to."""
        user = quote(link.user_id, safe="")
        return f"{link.origin}/auth/google/authorize/{user}?link={self.issue(link)}"

    def read(self, unverified: str, *, user_id: str, now: datetime) -> UUID | LinkFault:
        """The link's id, if the broker made this token for this user and it has not expired."""
        if len(unverified) > LINK_TOKEN_LIMIT:
            return LinkFault.NOT_OURS
        match = _TOKEN.fullmatch(unverified)
        if match is None or not any(
            self._signer.verify(unverified, bound_to=binding) for binding in _bindings(user_id)
        ):
            return LinkFault.NOT_OURS
        if now >= datetime.fromtimestamp(int(match["expiry"]), UTC):
            return LinkFault.EXPIRED
        return UUID(hex=match["id"])

    def must_be_confirmed(self, unverified: str, *, user_id: str) -> bool:
        """Whether the broker made this token, for this user, as one that has to be confirmed."""
        plain_and_confirmed = _bindings(user_id)
        return self._signer.verify(unverified, bound_to=plain_and_confirmed[True]) is not None


def _bindings(user_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a plain link and one with confirmation are signed together with.

    They differ so that a replica of a release which knows no confirmation opens none of those.
    """
    return (user_id,), (user_id, "confirm")
