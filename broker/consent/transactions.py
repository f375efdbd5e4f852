"""One trip to Google and back: the state, nonce and PKCE verifier that belong to it alone.

Making them is all that happens here; that each is used once is the table's business.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from broker.crypto.signing import SIGNATURE_LENGTH, Signer
from broker.secret import Secret

TRANSACTION_LIFE = timedelta(minutes=10)

_RANDOM_BYTES = 32
_STATE = re.compile(rf"[A-Za-z0-9_-]{{43}}\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Transaction:
    """What must come back from Google unaltered, and what proves to Google that we asked."""

    state: str = field(repr=False)
    """As sent: 256 random bits, signed."""
    nonce: str = field(repr=False)
    code_verifier: Secret
    """RFC 7636 §4.1."""
    scopes: tuple[str, ...]
    """What Google is asked for."""
    consent_prompted: bool
    """Whether Google was told to ask anew, so that a refresh token must come."""

    @property
    def state_hash(self) -> bytes:
        """The name under which the table knows it."""
        return hash_state(self.state)

    def secrets(self, owner: Sequence[str]) -> Secret:
        """What the table holds sealed; with whose trip it is, which also stands beside it."""
        members = {
            "nonce": self.nonce,
            "code_verifier": self.code_verifier.reveal(),
            "owner": list(owner),
        }
        return Secret(json.dumps(members))


def stored_transaction(
    state: str,
    stored: Secret,
    *,
    owner: Sequence[str],
    scopes: tuple[str, ...],
    consent_prompted: bool,
) -> Transaction | None:
    """The transaction again, from what the table held; nothing where it was begun for another."""
    members = json.loads(stored.reveal())
    # Trips that a replica of 0.1.0 began name nobody.
    if members.get("owner", list(owner)) != list(owner):
        return None
    verifier = Secret(members["code_verifier"])
    return Transaction(state, members["nonce"], verifier, scopes, consent_prompted)


def hash_state(state: str) -> bytes:
    """SHA-256: whoever reads the table can't answer in Google's name."""
    return hashlib.sha256(state.encode()).digest()


class Transactions:
    """Makes transactions, and knows its own state again."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def new(self, *, scopes: tuple[str, ...], consent_prompted: bool) -> Transaction:
        """A transaction that shares nothing with any other."""
        return Transaction(
            state=self._signer.sign(secrets.token_urlsafe(_RANDOM_BYTES)),
            nonce=secrets.token_urlsafe(_RANDOM_BYTES),
            code_verifier=Secret(secrets.token_urlsafe(_RANDOM_BYTES)),
            scopes=scopes,
            consent_prompted=consent_prompted,
        )

    def has_made(self, unverified_state: str) -> bool:
        """Whether the broker made this state; it may still be used up or somebody else's."""
        return (
            _STATE.fullmatch(unverified_state) is not None
            and self._signer.verify(unverified_state) is not None
        )
