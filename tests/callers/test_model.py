"""Decisions about what a caller may do."""

import time

import pytest

from broker.callers.model import Caller, Permission


def caller_for(*users: str, permissions: frozenset[Permission] = frozenset()) -> Caller:
    return Caller("c", frozenset({b"\x01" * 32}), permissions, (), users)


@pytest.mark.parametrize(
    ("patterns", "user_id", "expected"),
    [
        (["*"], "anyone", True),
        (["*"], "", True),
        (["team-*"], "team-1", True),
        (["team-*"], "Team-1", False),
        (["team-*"], "my-team-1", False),
        (["u?"], "u12", False),
        (["a", "b[0-9]"], "b7", True),
        (["a", "b[!0-9]"], "b7", False),
        (["a.c"], "abc", False),
        (["a*"], "a\nb", True),
        (["a|b"], "a", False),
        (["[", "x"], "[", True),
    ],
)
def test_a_caller_may_act_for_the_users_that_its_patterns_match(
    patterns: list[str], user_id: str, expected: bool
) -> None:
    caller = caller_for(*patterns)

    assert [caller.may_act_for(user_id), caller.may_act_for(user_id)] == [expected, expected]


def test_without_patterns_a_caller_may_act_for_no_user() -> None:
    assert not caller_for().may_act_for("")


def test_matching_takes_no_exponential_time() -> None:
    caller = caller_for("*a" * 60 + "b")
    began = time.thread_time()

    assert not caller.may_act_for("a" * 255)
    assert time.thread_time() - began < 0.5


def test_a_caller_has_only_the_listed_permissions() -> None:
    caller = caller_for("*", permissions=frozenset({Permission.TOKENS_READ}))

    assert [p for p in Permission if caller.may(p)] == [Permission.TOKENS_READ]


def test_the_representation_of_a_caller_omits_its_hashes() -> None:
    assert "\\x01" not in repr(caller_for("*"))
