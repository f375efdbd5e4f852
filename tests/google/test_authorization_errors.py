"""Google's authorization errors, and whose turn it is."""

import pytest

from broker.google.authorization_errors import Actor, ConsentOutcome, explain

LISTED = [
    ("access_denied", Actor.USER),
    ("admin_policy_enforced", Actor.ADMINISTRATOR),
    ("disallowed_useragent", Actor.USER),
    ("org_internal", Actor.USER),
    ("invalid_client", Actor.OPERATOR),
    ("deleted_client", Actor.OPERATOR),
    ("redirect_uri_mismatch", Actor.OPERATOR),
    ("invalid_grant", Actor.USER),
    ("invalid_request", Actor.OPERATOR),
]


@pytest.mark.parametrize(("code", "actor"), LISTED)
def test_each_error_tells_whose_turn_it_is(code: str, actor: Actor) -> None:
    error = explain(code)
    assert (error.code, error.actor) == (code, actor)


def test_a_refusal_by_the_user_is_a_denial() -> None:
    assert explain("access_denied").outcome is ConsentOutcome.DENIED


@pytest.mark.parametrize("code", [code for code, _ in LISTED if code != "access_denied"])
def test_every_other_error_is_a_failure(code: str) -> None:
    assert explain(code).outcome is ConsentOutcome.FAILED


@pytest.mark.parametrize("code", [None, "", "new_code", "<script>alert(1)</script>", "x" * 10_000])
def test_an_unknown_code_is_never_repeated(code: str | None) -> None:
    assert explain(code).code == "unknown_error"
