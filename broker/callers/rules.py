"""What a single value of the callers file must be, and the words for it when it is not.

A rule returns its complaint, or None; it sees no other value and touches no state.
"""

import re

from broker.callers.keys import could_be_key, quote
from broker.callers.model import Permission
from broker.callers.walker import suggest
from broker.issuers.model import ALGORITHMS
from broker.settings import is_secure_url

NEED_SCOPES = frozenset({Permission.TOKENS_READ, Permission.LINKS_CREATE})
"""What a caller can only do with scopes of its own."""

SECURE_URL = "https (plain http only on a loopback host)"
_MAX_PATTERN = 255
_MAX_DISPLAY_NAME = 80
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
_URL = re.compile(r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")  # RFC 3986, no <>"{}|\^`


def name_fault(name: str) -> str | None:
    """A caller's name: it becomes a metric's label and goes into logs and audit records."""
    if not _NAME.fullmatch(name):
        return (
            f"{quote(name)} can't be a name: 1 to 64 letters, digits, dots, dashes and "
            "underscores, beginning with a letter or digit"
        )
    if could_be_key(name):
        return "this name looks like a key; choose another"
    return None


def permission_fault(text: str) -> str | None:
    """A word of `can`."""
    if text in tuple(Permission):
        return None
    return f"unknown permission {quote(text)}; {suggest(text, Permission)}"


def key_hash_fault(text: str) -> str:
    """Why this is no key's hash; never shows what it is."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return "a hash needs its kind before it: sha256:<hex>"
    if text.lower().startswith("sha256:"):
        return "sha256: must be followed by exactly 64 hex digits"
    if re.match(r"(?i)(sha(1|224|384|512)|md5|bcrypt|argon2\w*)[:=]", text):
        return "only sha256:<hex> is read here"
    return (
        "not a hash (sha256:<hex>). If it is the key itself, it must not be in this file: treat it "
        "as exposed, and put its hash here (`broker callers hash` asks for a key and prints it)"
    )


def scope_fault(scope: str) -> str | None:
    """One scope's name, RFC 6749 §3.3."""
    if re.search(r"\s", scope.strip()):
        return f"{quote(scope)} holds several scopes; make each an item of its own"
    if not _SCOPE.fullmatch(scope):
        return f"{quote(scope)} is not a scope's name"
    if "*" in scope:
        return f"{quote(scope)}: scopes have no patterns; name each one"
    return None


def pattern_fault(pattern: str) -> str | None:
    """A shell-style pattern of user ids."""
    if not pattern:
        return 'must not be empty; for all users, write "*"'
    if len(pattern) > _MAX_PATTERN:
        return f"longer than {_MAX_PATTERN} characters, as no user id is"
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in pattern):
        return "has a control character, which no user id has"
    return None


def return_to_fault(url: str) -> str | None:
    """An address that a browser may be sent back to, compared character by character."""
    if not _URL.fullmatch(url) or not is_secure_url(url):
        return f"{quote(url)} must be an absolute address, {SECURE_URL}"
    if "*" in url:
        return f"{quote(url)}: addresses are compared exactly; patterns don't work"
    if "#" in url or "@" in url.split("/", 3)[2]:
        return f"{quote(url)} must have no fragment and no user name"
    return None


def issuer_fault(url: str) -> str | None:
    """An OIDC issuer's identifier (OpenID Connect Discovery §3), compared exactly with `iss`."""
    if not _URL.fullmatch(url) or not is_secure_url(url):
        return f"{quote(url)} must be an absolute address, {SECURE_URL}"
    if "?" in url or "#" in url or "@" in url.split("/", 3)[2]:
        return f"{quote(url)} must have no query, no fragment and no user name"
    return None


def jwks_url_fault(url: str) -> str | None:
    """Where an issuer's keys are found."""
    if not _URL.fullmatch(url) or not is_secure_url(url) or "@" in url.split("/", 3)[2]:
        return f"must be an absolute address, {SECURE_URL}"
    return None


def algorithm_fault(name: str) -> str | None:
    """A signature algorithm that an issuer may use."""
    if name in ALGORITHMS:
        return None
    if name.lower() == "none" or name.upper().startswith("HS"):
        return f"{quote(name)} proves nothing: whoever can verify it can forge it"
    return f"unknown algorithm {quote(name)}; {suggest(name, ALGORITHMS)}"


def path_fault(path: str) -> str | None:
    """A file on the broker's machine."""
    if not path.startswith("/") or not path.isprintable():
        return "must be the absolute path of a file"
    return None


def display_name_fault(text: str) -> str | None:
    """What people are shown as a caller's name."""
    if len(text) > _MAX_DISPLAY_NAME:
        return f"longer than {_MAX_DISPLAY_NAME} characters"
    return text_fault(text)


def text_fault(text: str) -> str | None:
    """Any words at all, but some."""
    return None if text.strip() and text.isprintable() else "must be printable text, and not empty"
