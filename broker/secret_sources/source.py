"""The OAuth client, and the interface, errors and checks of its sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """The broker's registration at Google, as it was read once."""

    client_id: str
    client_secret: Secret
    version: int
    """Vault's KV version; for the other sources 1, 2, … for each change that was read."""

    def has_credentials_of(self, other: "OAuthClient") -> bool:
        """True if id and secret are equal, whatever the versions are."""
        return self.client_id == other.client_id and self.client_secret == other.client_secret


class SourceError(Exception):
    """The client cannot be read.

    The message says what is wrong and how to fix it. Neither it nor a chained exception holds a
    secret.
    """


class SourceUnavailable(SourceError):  # noqa: N818  (a state of the source)
    """The source is temporarily unavailable; a later read may succeed."""


class SourceMisconfigured(SourceError):  # noqa: N818
    """The source responds, but has no usable client until an operator fixes it."""


class ClientSource(Protocol):
    """Where the OAuth client is kept. No method blocks the event loop."""

    name: str
    """A metric's label: `env`, `file` or `vault`."""

    async def read(self) -> OAuthClient:
        """Return the current client. Raises `SourceUnavailable` or `SourceMisconfigured`."""
        ...

    async def ping(self) -> None:
        """Check that the source is available. Raises as `read` does."""
        ...

    async def maintain(self) -> None:
        """Do what is due, such as renewing a token; cheap if nothing is. Raises as `read` does."""
        ...

    async def aclose(self) -> None:
        """Release the source's resources."""
        ...


def client_from_fields(
    fields: Mapping[str, object], *, version: int, place: str, remedy: str
) -> OAuthClient:
    """Return the client in the fields `client_id` and `client_secret`.

    Raises `SourceMisconfigured` if a field is missing or cannot be a credential (RFC 6749 appendix
    A.1, A.2); the message names the field, the `place` it was read from, and the `remedy`.
    """
    found: dict[str, str] = {}
    for name in ("client_id", "client_secret"):
        value = fields.get(name)
        if value is None:
            raise SourceMisconfigured(f"{place} has no field `{name}`: {remedy}")
        if not isinstance(value, str) or not value.strip():
            raise SourceMisconfigured(f"{place}: `{name}` must be a non-empty text: {remedy}")
        found[name] = value.strip()  # The last newline of a file is easily stored too.
        if not (found[name].isascii() and found[name].isprintable()):
            raise SourceMisconfigured(
                f"{place}: `{name}` holds a character that no credential has: {remedy}"
            )
    return OAuthClient(found["client_id"], Secret(found["client_secret"]), version)
