"""Callers' keys: generation, hashes, and quoting that keeps keys out of messages.

A plain SHA-256 suffices because a key is 256 random bits: it cannot be guessed.
"""

import hashlib
import re
import secrets

KEY_PREFIX = "tb_"
"""Marks a key for secret scanners and for `could_be_key`."""

_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_CREDENTIAL = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1, b64token
_MIN_LENGTH = 22  # 128 bits in base64
_SHOWN_LENGTH = 80


def new_key() -> str:
    """Return a new key of 256 random bits. It is stored nowhere."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """Return the hash of a key for the callers file: `sha256:` and 64 hex digits."""
    return format_digest(hashlib.sha256(key.encode()).digest())


def format_digest(digest: bytes) -> str:
    """Return a SHA-256 digest as the callers file has it."""
    return f"sha256:{digest.hex()}"


def key_fault(key: str) -> str | None:
    """Return why a key of the operator's own must not be used, if so; never shows it."""
    if not _CREDENTIAL.fullmatch(key):
        return "a key has only letters, digits and - . _ ~ + / =, no spaces"
    if len(key) < _MIN_LENGTH:
        return f"a key of fewer than {_MIN_LENGTH} characters can be guessed from its hash"
    return None


def parse_key_hash(text: str) -> bytes | None:
    """Return the digest of `sha256:<hex>`, or None for anything else."""
    match = _HASH.fullmatch(text)
    return bytes.fromhex(match[1]) if match else None


def could_be_key(text: str) -> bool:
    """True if a text contains something that may be a secret, the broker's or another's.

    Errs on the side of hiding; words joined by dots and dashes pass.
    """
    if re.search(KEY_PREFIX + r"[A-Za-z0-9_-]{6}", text):
        return True
    for run in re.findall(r"[A-Za-z0-9]{20,}|[A-Za-z0-9+/=_-]{32,}", text):
        has_digit = re.search(r"\d", run)
        is_unbroken = run.isalnum()
        if has_digit and (is_unbroken or (run.lower() != run and run.upper() != run)):
            return True
    return False


def quote(text: str) -> str:
    """Return the operator's text quoted for a message: cut, and hidden if it may be a key."""
    if could_be_key(text):
        return f"(a value of {len(text)} characters, not shown)"
    shown = text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"
    return ascii(shown) if not shown.isprintable() else repr(shown)
