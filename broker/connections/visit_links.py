"""Links to the page: signed and short-lived. That each is good once is for the table to say."""

import re
from datetime import UTC, datetime
from enum import Enum, auto
from uuid import UUID

from broker.connections.visits import Visit
from broker.crypto.signing import SIGNATURE_LENGTH, Signer

PAGE_PATH = "/connections"

_TOKEN_LIMIT = 128
_TOKEN = re.compile(
    rf"(?P<id>[0-9a-f]{{32}})\.(?P<expiry>[0-9]{{1,12}})\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}"
)


class LinkFault(Enum):
    """Why a link token is not accepted."""

    NOT_OURS = auto()
    EXPIRED = auto()


class VisitLinks:
    """Makes and reads links to the page."""

    def __init__(self, signer: Signer, origin: str) -> None:
        """`origin` is where browsers reach the public listener."""
        self._signer = signer
        self._origin = origin

    def url(self, visit: Visit) -> str:
        """Where to send the user's browser."""
        expiry = int(visit.link_expires_at.timestamp())
        token = self._signer.sign(f"{visit.id.hex}.{expiry}")
        return f"{self._origin}{PAGE_PATH}?link={token}"

    def read(self, unverified: str, *, now: datetime) -> UUID | LinkFault:
        """The visit's id, if the broker made this token and it has not expired."""
        match = _TOKEN.fullmatch(unverified) if len(unverified) <= _TOKEN_LIMIT else None
        if match is None or self._signer.verify(unverified) is None:
            return LinkFault.NOT_OURS
        if now >= datetime.fromtimestamp(int(match["expiry"]), UTC):
            return LinkFault.EXPIRED
        return UUID(hex=match["id"])
