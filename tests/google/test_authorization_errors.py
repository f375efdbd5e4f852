"""Google's authorization errors, and who can resolve them."""

import pytest

from broker.google.errors import Actor, AuthorizationOutcome, explain_authorization_error

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
def test_each_authorization_error_names_who_can_resolve_it(code: str, actor: Actor) -> None:
    error = explain_authorization_error(code)
    assert (error.code, error.actor) == (code, actor)


def test_access_denied_is_a_denial() -> None:
    assert explain_authorization_error("access_denied").outcome is AuthorizationOutcome.DENIED


@pytest.mark.parametrize("code", [code for code, _ in LISTED if code != "access_denied"])
def test_every_other_error_is_a_failure(code: str) -> None:
    assert explain_authorization_error(code).outcome is AuthorizationOutcome.FAILED


@pytest.mark.parametrize("code", [None, "", "new_code", "<script>alert(1)</script>", "x" * 10_000])
def test_an_unknown_code_is_never_repeated(code: str | None) -> None:
    assert explain_authorization_error(code).code == "unknown_error"
