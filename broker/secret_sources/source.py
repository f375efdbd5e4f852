"""What all sources of the OAuth client share: their interface, their two errors, their checks."""

from collections.abc import Mapping
from typing import Protocol

from broker.secret import Secret
from broker.secret_sources.client import OAuthClient


class SourceError(Exception):
    """The client can't be read. The message says what is wrong and how to mend it; it holds no
    secret, and neither does anything chained to it.
    """


class SourceUnavailable(SourceError):  # noqa: N818  (a state of the source, as it is spoken of)
    """The source is away for now; asking again later may do."""


class SourceMisconfigured(SourceError):  # noqa: N818
    """The source answers, but has no usable client until somebody mends it."""


class ClientSource(Protocol):
    """Where the OAuth client is kept. No method blocks the event loop."""

    name: str
    """A metric's label: `env`, `file` or `vault`."""

    async def read(self) -> OAuthClient:
        """The client as it is now. Raises `SourceUnavailable` or `SourceMisconfigured`."""
        ...

    async def ping(self) -> None:
        """Return if the source is there. Raises as `read` does."""
        ...

    async def maintain(self) -> None:
        """One round of upkeep, such as renewing a token; cheap when nothing is due. Raises as
        `read` does.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what the source holds."""
        ...


def checked_client(
    fields: Mapping[str, object], *, version: int, place: str, remedy: str
) -> OAuthClient:
    """The client in `client_id` and `client_secret`.

    Raises `SourceMisconfigured` naming the field, the `place` where it was looked for, and the
    `remedy`, if one is missing or can't be a credential (RFC 6749 appendix A.1, A.2).
    """
    found: dict[str, str] = {}
    for name in ("client_id", "client_secret"):
        value = fields.get(name)
        if value is None:
            raise SourceMisconfigured(f"{place} has no field `{name}`: {remedy}")
        if not isinstance(value, str) or not value.strip():
            raise SourceMisconfigured(f"{place}: `{name}` must be a non-empty text: {remedy}")
        found[name] = value.strip()  # A file's last newline is easily stored along.
        if not (found[name].isascii() and found[name].isprintable()):
            raise SourceMisconfigured(
                f"{place}: `{name}` holds a character that no credential has: {remedy}"
            )
    return OAuthClient(found["client_id"], Secret(found["client_secret"]), version)
