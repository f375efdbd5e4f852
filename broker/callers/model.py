"""What is known of a caller: how it proves itself and how far it may go.

Decides, but never refuses: the routes turn a no into an answer.
"""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from broker.limits.rate import TokenBucket

EVERYONE = "*"
_REMEMBERED_USERS = 4096


class Permission(StrEnum):
    """What `can:` may list."""

    TOKENS_READ = "tokens:read"
    LINKS_CREATE = "links:create"
    GRANTS_READ = "grants:read"
    GRANTS_REVOKE = "grants:revoke"


@dataclass(frozen=True, slots=True)
class Workload:
    """The OIDC identity that a caller presents instead of a key; all three are exact."""

    issuer: str
    audience: str
    subject: str


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How much a caller may ask for, of each replica."""

    requests_per_second: float
    burst: int
    """So many at once, after a rest."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One stanza of the callers file, checked; equal to another if it may do the same.

    A reload changes none. It makes a new one where the policy is another, so that what was admitted
    under an object may be kept with it.
    """

    name: str
    key_hashes: frozenset[bytes] = field(repr=False, compare=False)
    """SHA-256 digests; several while a key is being rotated, none if it has only a workload.

    As the stanza was first read: which keys are good now, only the registry knows.
    """
    permissions: frozenset[Permission]
    scopes: tuple[str, ...]
    """The most it may ever get, as written; may be more than the broker itself may ask for."""
    users: tuple[str, ...]
    """Shell-style patterns of the user ids that it may act for."""
    return_to: tuple[str, ...] = ()
    """Compared character by character."""
    require_confirmation: bool = False
    display_name: str | None = None
    """What people know it as."""
    workload: Workload | None = None
    subject_required: bool = False
    """Whether it gets tokens only against a JWT of the end user's own (token exchange)."""
    rate_limit: RateLimit | None = None
    bucket: TokenBucket | None = field(init=False, repr=False, compare=False)
    """What is left of its rate; a changed policy begins with a full one."""
    _matches: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit = self.rate_limit
        bucket = (
            TokenBucket(per_second=limit.requests_per_second, burst=limit.burst) if limit else None
        )
        object.__setattr__(self, "bucket", bucket)
        object.__setattr__(self, "_matches", _user_matcher(self.users))

    @property
    def shown_name(self) -> str:
        """Its name for people."""
        return self.display_name or self.name

    def may(self, permission: Permission) -> bool:
        """Whether `can:` lists it."""
        return permission in self.permissions

    def may_act_for(self, user_id: str) -> bool:
        """Whether a pattern covers this user. Case matters; answers of late are remembered.

        `user_id` has been checked (at most 255 characters), so that the memory stays bounded.
        """
        return self._matches(user_id)


def _user_matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    if EVERYONE in patterns:
        return _anyone
    # `fnmatch.translate` closes each pattern with \Z and uses atomic groups, so that they can be
    # joined, and no pattern makes a match take exponential time.
    matches = re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match

    @lru_cache(maxsize=_REMEMBERED_USERS)
    def is_covered(user_id: str) -> bool:
        return matches(user_id) is not None

    return is_covered


def _anyone(_user_id: str) -> bool:
    return True
