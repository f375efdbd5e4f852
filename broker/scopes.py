"""The scope grammar, and the comparison of scopes: which are the same, which are missing.

Does not decide who may have a scope.
"""

import re
from collections.abc import Iterable

PREFIX = "https://www.googleapis.com/auth/"
_ALIASES = {
    "email": PREFIX + "userinfo.email",
    "profile": PREFIX + "userinfo.profile",
}
"""Google grants the short OpenID names under their long ones (GOOGLE.md, granular consent)."""

IDENTITY_SCOPES = frozenset({"openid", _ALIASES["email"]})
"""Canonical names of the scopes that identify the account."""

_SCOPE_NAME = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")


def canonical(scope: str) -> str:
    """Return the name by which scopes are compared; a name without aliases is its own."""
    return _ALIASES.get(scope, scope)


def is_scope_name(text: str) -> bool:
    """True if a scope may have this name (RFC 6749 §3.3), of at most 512 characters."""
    return _SCOPE_NAME.fullmatch(text) is not None


def parse_scopes(text: str) -> tuple[str, ...]:
    """Return the names in a space-separated list, as written and in order, each once.

    Other white space is no separator (RFC 6749 §3.3), and not valid in a name either.
    """
    return tuple(dict.fromkeys(name for name in text.split(" ") if name))


def missing(requested: Iterable[str], granted: Iterable[str]) -> tuple[str, ...]:
    """Return the requested scopes that are not granted, named as requested."""
    held = _canonical_set(granted)
    return tuple(scope for scope in requested if canonical(scope) not in held)


def shared(a: Iterable[str], b: Iterable[str]) -> tuple[str, ...]:
    """Return the names of `a` that `b` includes, under whichever alias."""
    other = _canonical_set(b)
    return tuple(scope for scope in a if canonical(scope) in other)


def is_within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """True if `outer` includes all of `inner`.

    Compares names only: `calendar` does not include `calendar.readonly`.
    """
    return not missing(inner, outer)


def _canonical_set(scopes: Iterable[str]) -> frozenset[str]:
    return frozenset(map(canonical, scopes))
