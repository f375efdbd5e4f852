"""Scope names as Google has them: which are the same, which are missing.

Decides nothing about who may have a scope.
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
"""Canonical names of the scopes without which an account stays unknown."""

_SCOPE_NAME = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")


def canonical(scope: str) -> str:
    """The one name by which scopes are compared; a name without aliases is its own."""
    return _ALIASES.get(scope, scope)


def is_scope_name(text: str) -> bool:
    """Whether a scope may be called that at all (RFC 6749 §3.3)."""
    return _SCOPE_NAME.fullmatch(text) is not None


def parse_scopes(text: str) -> tuple[str, ...]:
    """The names in a space-separated list, as written and in order, each once.

    Other white space separates nothing (RFC 6749 §3.3), and is no part of a scope's name either.
    """
    return tuple(dict.fromkeys(name for name in text.split(" ") if name))


def missing(asked: Iterable[str], granted: Iterable[str]) -> tuple[str, ...]:
    """What was asked for and not granted, named as asked."""
    held = _canonical_set(granted)
    return tuple(scope for scope in asked if canonical(scope) not in held)


def shared(a: Iterable[str], b: Iterable[str]) -> tuple[str, ...]:
    """The names from `a` that `b` has too, under whichever name."""
    other = _canonical_set(b)
    return tuple(scope for scope in a if canonical(scope) in other)


def is_within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Whether `outer` has all of `inner`.

    Only names are compared: `calendar` does not contain `calendar.readonly`.
    """
    return not missing(inner, outer)


def _canonical_set(scopes: Iterable[str]) -> frozenset[str]:
    return frozenset(map(canonical, scopes))
