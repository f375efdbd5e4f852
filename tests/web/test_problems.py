"""Every problem of the contract: status, code, JSON object, headers."""

import json

import pytest

from broker.web import problems
from broker.web.problems import Problem, problem_response

CONTRACT: dict[str, tuple[Problem, int]] = {
    "invalid_request": (problems.invalid_request("scope", "No."), 400),
    "unauthenticated": (problems.unauthenticated(), 401),
    "forbidden": (problems.forbidden("No."), 403),
    "scope_not_allowed": (problems.scope_not_allowed(["b", "a"]), 403),
    "grant_not_found": (problems.grant_not_found(), 404),
    "reauthorization_required": (problems.reauthorization_required("invalid_rapt"), 409),
    "scope_not_granted": (problems.scope_not_granted(["b", "a"]), 409),
    "confirmation_pending": (problems.confirmation_pending(), 409),
    "account_ambiguous": (problems.account_ambiguous(), 409),
    "google_unavailable": (problems.google_unavailable(7), 503),
    "storage_unavailable": (problems.storage_unavailable(), 503),
    "client_misconfigured": (problems.client_misconfigured(), 503),
}
EVERY = pytest.mark.parametrize(("code", "expected"), CONTRACT.items(), ids=CONTRACT)


@EVERY
def test_status_and_code_match_the_contract(code: str, expected: tuple[Problem, int]) -> None:
    problem, status = expected
    assert (problem.status, problem.code) == (status, code)


@EVERY
def test_the_response_is_a_problem_as_in_rfc_9457(code: str, expected: tuple[Problem, int]) -> None:
    response = problem_response(expected[0], "id-1")
    body = json.loads(bytes(response.body))
    assert response.status_code == body["status"] == expected[1]
    assert response.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"urn:token-broker:problem:{code}"
    assert body["code"] == code
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == "id-1"


@EVERY
def test_no_response_may_be_cached(code: str, expected: tuple[Problem, int]) -> None:
    assert problem_response(expected[0]).headers["cache-control"] == "no-store"


@EVERY
def test_only_temporary_failures_have_retry_after(code: str, expected: tuple[Problem, int]) -> None:
    retry_after = problem_response(expected[0]).headers.get("retry-after")
    assert (retry_after is not None and int(retry_after) >= 1) == (expected[1] == 503)


@EVERY
def test_only_a_missing_credential_is_challenged(code: str, expected: tuple[Problem, int]) -> None:
    challenge = problem_response(expected[0]).headers.get("www-authenticate")
    assert challenge == ("Bearer" if code == "unauthenticated" else None)


def test_retry_after_is_in_seconds() -> None:
    response = problem_response(problems.google_unavailable(7))
    assert response.headers["retry-after"] == "7"


def test_an_invalid_request_names_the_field() -> None:
    assert problems.invalid_request("min_ttl", "No.").body()["field"] == "min_ttl"


def test_an_invalid_request_may_have_another_status() -> None:
    assert problems.invalid_request("body", "No.", status=413).status == 413


def test_scopes_are_sorted() -> None:
    assert problems.scope_not_allowed(["b", "a"]).body()["scopes"] == ["a", "b"]
    assert problems.scope_not_granted(["b", "a"]).body()["missing"] == ["a", "b"]


def test_a_reason_is_shown_if_there_is_one() -> None:
    assert problems.reauthorization_required("invalid_rapt").body()["reason"] == "invalid_rapt"
    assert "reason" not in problems.reauthorization_required(None).body()


def test_without_a_request_there_is_no_request_id() -> None:
    assert "request_id" not in problems.unauthenticated().body()


def test_a_problem_can_be_raised_and_has_a_text() -> None:
    with pytest.raises(Problem, match=r"^403 forbidden: Not you\.$"):
        raise problems.forbidden("Not you.")
