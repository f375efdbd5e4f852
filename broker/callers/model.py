"""A caller: its credentials and its policy.

Decides what a caller may do; refuses nothing itself.
"""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from broker.limits.rate import Gcra

EVERYONE = "*"
_REMEMBERED_USERS = 4096


class Permission(StrEnum):
    """The values of `can:`."""

    TOKENS_READ = "tokens:read"
    LINKS_CREATE = "links:create"
    GRANTS_READ = "grants:read"
    GRANTS_REVOKE = "grants:revoke"


@dataclass(frozen=True, slots=True)
class Workload:
    """The OIDC identity that a caller proves instead of a key; all three are compared exactly."""

    issuer: str
    audience: str
    subject: str


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The rate limit of a caller, per replica."""

    requests_per_second: float
    burst: int
    """Requests that may come together after a rest."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One valid stanza of the callers file; equal to another if both have the same policy.

    Immutable: a reload makes a new object for a changed policy, so that what was admitted under an
    object may be cached with it.
    """

    name: str
    key_hashes: frozenset[bytes] = field(repr=False, compare=False)
    """SHA-256 digests; several while a key is being rotated, none for a workload without a key.

    As of the first reading of the stanza: only the registry has the keys that are valid now.
    """
    permissions: frozenset[Permission]
    scopes: tuple[str, ...]
    """The most it may get, as written; may exceed what the broker itself may request."""
    users: tuple[str, ...]
    """Shell-style patterns of user ids."""
    return_to: tuple[str, ...] = ()
    """Compared character by character."""
    require_confirmation: bool = False
    display_name: str | None = None
    """Shown to people."""
    workload: Workload | None = None
    subject_required: bool = False
    """True if it gets tokens by token exchange only, with a JWT of the end user's own."""
    rate_limit: RateLimit | None = None
    gcra: Gcra | None = field(init=False, repr=False, compare=False)
    """The state of the rate limit; a changed policy begins with a full burst."""
    _matches: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit = self.rate_limit
        gcra = Gcra(per_second=limit.requests_per_second, burst=limit.burst) if limit else None
        object.__setattr__(self, "gcra", gcra)
        object.__setattr__(self, "_matches", _user_matcher(self.users))

    @property
    def shown_name(self) -> str:
        """The name shown to people."""
        return self.display_name or self.name

    def may(self, permission: Permission) -> bool:
        """True if `can:` lists the permission."""
        return permission in self.permissions

    def may_act_for(self, user_id: str) -> bool:
        """True if a pattern matches this user, with case. Recent results are cached.

        `user_id` is valid (at most 255 characters), so the memory is bounded.
        """
        return self._matches(user_id)


def _user_matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    if EVERYONE in patterns:
        return _anyone
    # `fnmatch.translate` ends each pattern with \Z and uses atomic groups: they can be joined, and
    # no pattern makes a match take exponential time.
    matches = re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match

    @lru_cache(maxsize=_REMEMBERED_USERS)
    def is_covered(user_id: str) -> bool:
        return matches(user_id) is not None

    return is_covered


def _anyone(_user_id: str) -> bool:
    return True
