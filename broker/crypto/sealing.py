"""Seals secrets for storage with AES-256-GCM, each bound to its row and column.

A ciphertext that was moved to another row or column, or sealed with a key that is no longer
configured, does not open. There is no weaker fallback.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.crypto.keys import derive_key
from broker.secret import Secret

_NONCE_BYTES = 12
_FORMAT = b"\x01"


class UnsealingError(Exception):
    """A stored secret does not open: its key is not configured, or it was moved or altered."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext and the id of the key that opens it."""

    key_id: str
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class SealingKey:
    """An AES-256 key and its id, which is stored beside each ciphertext."""

    id: str
    cipher: AESGCM


def local_sealing_keys(secret_keys: Sequence[Secret]) -> list[SealingKey]:
    """Derive one sealing key from each `SECRET_KEY`. The ids reveal nothing about the keys."""
    return [
        SealingKey(
            id="local:" + derive_key(secret_key, "sealing key id")[:8].hex(),
            cipher=AESGCM(derive_key(secret_key, "sealing")),
        )
        for secret_key in secret_keys
    ]


class Sealer:
    """Seals with the first key; opens with any."""

    def __init__(self, keys: Sequence[SealingKey]) -> None:
        if not keys:
            raise ValueError("no key to seal with")
        self._current = keys[0]
        self._by_id = {key.id: key for key in keys}

    @property
    def current_key_id(self) -> str:
        """The id of the key that seals from now on."""
        return self._current.id

    def seal(self, secret: Secret, *, place: Sequence[str]) -> Sealed:
        """Seal for one place: table, column, and the values that identify the row permanently."""
        nonce = os.urandom(_NONCE_BYTES)
        associated_data = _associated_data(self._current.id, place)
        ciphertext = self._current.cipher.encrypt(nonce, secret.reveal().encode(), associated_data)
        return Sealed(self._current.id, _FORMAT + nonce + ciphertext)

    def open(self, sealed: Sealed, *, place: Sequence[str]) -> Secret:
        """Return the secret that was sealed for exactly this place. Raises `UnsealingError`."""
        key = self._by_id.get(sealed.key_id)
        if key is None:
            raise UnsealingError("the key that sealed this is not configured")
        box = sealed.ciphertext
        if box[:1] != _FORMAT:
            raise UnsealingError("unknown sealing format")
        nonce, ciphertext = box[1 : 1 + _NONCE_BYTES], box[1 + _NONCE_BYTES :]
        try:
            plaintext = key.cipher.decrypt(nonce, ciphertext, _associated_data(key.id, place))
        except (InvalidTag, ValueError) as error:
            raise UnsealingError("altered, or not from this row and column") from error
        return Secret(plaintext.decode())


def _associated_data(key_id: str, place: Sequence[str]) -> bytes:
    """Return the associated data (NIST SP 800-38D), unambiguous for any content of the parts."""
    return json.dumps([key_id, *place]).encode()
