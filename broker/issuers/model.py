"""What the callers file says of an issuer, and the ways in which a JWT of it can be wrong."""

from dataclasses import dataclass

ALGORITHMS = (
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA", "Ed25519",
)  # fmt: skip
"""Signatures with a private key only (RFC 7518, 8037, 9864): whoever verifies can't forge."""


@dataclass(frozen=True, slots=True)
class UserRule:
    """Which JWTs of an issuer stand for an end user."""

    audience: str
    claim: str = "sub"
    """The claim that holds the user id."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer as configured; equal to another if its JWTs are judged alike."""

    url: str
    """What `iss` says, character by character, and where discovery begins."""
    jwks_url: str | None = None
    """Where the keys are, if not where discovery says."""
    ca_file: str | None = None
    """The certificates that it is recognised by, instead of the system's."""
    token_file: str | None = None
    """A bearer token to ask with, as the Kubernetes API may demand."""
    algorithms: tuple[str, ...] = ALGORITHMS
    users: UserRule | None = None


class JwtRefused(Exception):  # noqa: N818  (named for what was done)
    """A JWT proves nothing; `reason` is one of a small, fixed set, and quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the JWT is refused: {reason}")
        self.reason = reason


class IssuerUnavailable(Exception):  # noqa: N818  (named for what is the case)
    """An issuer's keys can't be had; says nothing about the JWT.

    `issuer` is its URL as configured, `reason` a label.
    """

    def __init__(self, issuer: str, reason: str) -> None:
        super().__init__(f"the keys of {issuer} can't be had: {reason}")
        self.issuer = issuer
        self.reason = reason
