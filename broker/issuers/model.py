"""A JWT issuer as the callers file configures it, and the errors of its JWTs and keys."""

from dataclasses import dataclass

from broker.outbound.cached_fetch import ServerUnavailable

ALGORITHMS = (
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA", "Ed25519",
)  # fmt: skip
"""Asymmetric signatures only (RFC 7518, 8037, 9864): a verifier cannot forge them."""


@dataclass(frozen=True, slots=True)
class UserRule:
    """The rule for JWTs of an issuer that identify an end user."""

    audience: str
    claim: str = "sub"
    """The claim that holds the user id."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A configured issuer; equal to another if both judge JWTs alike."""

    url: str
    """Compared with `iss` character by character; discovery begins here."""
    jwks_url: str | None = None
    """URL of the key set; None if discovery names it."""
    ca_file: str | None = None
    """The certificates to trust instead of the system's."""
    token_file: str | None = None
    """A bearer token for the issuer's documents, as the Kubernetes API may demand."""
    algorithms: tuple[str, ...] = ALGORITHMS
    users: UserRule | None = None


class JwtRefused(Exception):  # noqa: N818  (the broker refuses it)
    """A JWT fails a check; `reason` is one of a small, fixed set and quotes nothing of the JWT."""

    def __init__(self, reason: str, *, claim: str | None = None) -> None:
        """`claim` is the claim that fails, where it is one."""
        super().__init__(f"the JWT is refused: {reason}")
        self.reason = reason
        self.claim = claim


class IssuerUnavailable(ServerUnavailable):
    """An issuer's keys cannot be fetched; says nothing about the JWT.

    `issuer` is the configured URL, `reason` a label.
    """

    def __init__(self, issuer: str, reason: str) -> None:
        super().__init__(f"the keys of {issuer} are unavailable: {reason}")
        self.issuer = issuer
        self.reason = reason
