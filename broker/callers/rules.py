"""Checks of single values in the callers file; each returns a problem's text, or None.

A rule sees no other value and has no state.
"""

import re

from broker.callers.checked_yaml import suggest
from broker.callers.keys import could_be_key, quote
from broker.callers.model import Permission
from broker.issuers.model import ALGORITHMS
from broker.scopes import is_scope_name
from broker.settings import is_secure_url

NEED_SCOPES = frozenset({Permission.TOKENS_READ, Permission.LINKS_CREATE})
"""Permissions that are useless without scopes."""

SECURE_URL = "https (plain http only on a loopback host)"
_MAX_PATTERN = 255
_MAX_DISPLAY_NAME = 80
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URL = re.compile(r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")  # RFC 3986, no <>"{}|\^`


def name_fault(name: str) -> str | None:
    """Check a caller's name, which becomes a label of metrics and is in logs and audit records."""
    if not _NAME.fullmatch(name):
        return (
            f"{quote(name)} can't be a name: 1 to 64 letters, digits, dots, dashes and "
            "underscores, beginning with a letter or digit"
        )
    if could_be_key(name):
        return "this name looks like a key; choose another"
    return None


def permission_fault(text: str) -> str | None:
    """Check an item of `can`."""
    if text in tuple(Permission):
        return None
    return f"unknown permission {quote(text)}; {suggest(text, Permission)}"


def key_hash_fault(text: str) -> str:
    """Return why this is not the hash of a key; never shows it."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return "a hash needs its kind before it: sha256:<hex>"
    if text.lower().startswith("sha256:"):
        return "sha256: must be followed by exactly 64 hex digits"
    if re.match(r"(?i)(sha(1|224|384|512)|md5|bcrypt|argon2\w*)[:=]", text):
        return "only sha256:<hex> is accepted"
    return (
        "not a hash (sha256:<hex>). If it is the key itself, it must not be in this file: treat it "
        "as exposed, and put its hash here (`broker callers hash` asks for a key and prints it)"
    )


def scope_fault(scope: str) -> str | None:
    """Check the name of one scope (RFC 6749 §3.3)."""
    if re.search(r"\s", scope.strip()):
        return f"{quote(scope)} contains several scopes; make each an item of its own"
    if not is_scope_name(scope):
        return f"{quote(scope)} is not a scope's name"
    if "*" in scope:
        return f"{quote(scope)}: scopes have no patterns; list each one"
    return None


def pattern_fault(pattern: str) -> str | None:
    """Check a shell-style pattern of user ids."""
    if not pattern:
        return 'must not be empty; for all users, write "*"'
    if len(pattern) > _MAX_PATTERN:
        return f"longer than {_MAX_PATTERN} characters, which no user id is"
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in pattern):
        return "has a control character, which no user id has"
    return None


def return_to_fault(url: str) -> str | None:
    """Check a URL that a browser may return to; it is compared character by character."""
    if not _URL.fullmatch(url) or not is_secure_url(url):
        return f"{quote(url)} must be an absolute address, {SECURE_URL}"
    if "*" in url:
        return f"{quote(url)}: addresses are compared exactly; patterns don't work"
    if "#" in url or "@" in url.split("/", 3)[2]:
        return f"{quote(url)} must have no fragment and no user name"
    return None


def issuer_fault(url: str) -> str | None:
    """Check an issuer's identifier (OpenID Connect Discovery §3), compared exactly with `iss`."""
    if not _URL.fullmatch(url) or not is_secure_url(url):
        return f"{quote(url)} must be an absolute address, {SECURE_URL}"
    if "?" in url or "#" in url or "@" in url.split("/", 3)[2]:
        return f"{quote(url)} must have no query, no fragment and no user name"
    return None


def jwks_url_fault(url: str) -> str | None:
    """Check the URL of an issuer's key set."""
    if not _URL.fullmatch(url) or not is_secure_url(url) or "@" in url.split("/", 3)[2]:
        return f"must be an absolute address, {SECURE_URL}"
    return None


def algorithm_fault(name: str) -> str | None:
    """Check a signature algorithm."""
    if name in ALGORITHMS:
        return None
    if name.lower() == "none" or name.upper().startswith("HS"):
        return f"{quote(name)} proves nothing: anyone who can verify it can forge it"
    return f"unknown algorithm {quote(name)}; {suggest(name, ALGORITHMS)}"


def path_fault(path: str) -> str | None:
    """Check the path of a file on the broker's machine."""
    if not path.startswith("/") or not path.isprintable():
        return "must be the absolute path of a file"
    return None


def display_name_fault(text: str) -> str | None:
    """Check the name of a caller that people see."""
    if len(text) > _MAX_DISPLAY_NAME:
        return f"longer than {_MAX_DISPLAY_NAME} characters"
    return text_fault(text)


def text_fault(text: str) -> str | None:
    """Check a text that must only be printable and not empty."""
    return None if text.strip() and text.isprintable() else "must be printable text, and not empty"
