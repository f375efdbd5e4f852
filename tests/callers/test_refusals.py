"""Refusals of the gate, and the HTTP answer to each."""

import pytest

from broker.callers.answers import problem_of
from broker.callers.model import Permission
from broker.callers.refusals import AccessRefused, RefusalReason

ANSWERS = [
    (RefusalReason.CREDENTIAL_IN_URL, 400, "invalid_request", None),
    (RefusalReason.PARAMETERS_IN_URL, 400, "invalid_request", None),
    (RefusalReason.UNAUTHENTICATED, 401, "unauthenticated", None),
    (RefusalReason.INVALID_JWT, 401, "unauthenticated", None),
    (RefusalReason.ISSUER_UNAVAILABLE, 503, "issuer_unavailable", 2),
    (RefusalReason.PERMISSION_MISSING, 403, "forbidden", None),
    (RefusalReason.SUBJECT_REQUIRED, 403, "forbidden", None),
    (RefusalReason.USER_NOT_ALLOWED, 403, "forbidden", None),
    (RefusalReason.RATE_LIMIT, 429, "rate_limited", 3),
    (RefusalReason.CONCURRENCY_LIMIT, 429, "rate_limited", 3),
    (RefusalReason.FAILED_AUTHENTICATIONS, 429, "rate_limited", 3),
    (RefusalReason.FORM_LIMIT, 429, "rate_limited", 3),
]


def test_every_reason_has_an_answer() -> None:
    assert {reason for reason, *_ in ANSWERS} == set(RefusalReason)


@pytest.mark.parametrize(("reason", "status", "code", "retry_after"), ANSWERS)
def test_each_refusal_has_its_answer(
    reason: RefusalReason, status: int, code: str, retry_after: int | None
) -> None:
    refused = AccessRefused(reason, retry_after_seconds=2.1)
    problem = problem_of(refused)
    assert (problem.status, problem.code, problem.retry_after) == (status, code, retry_after)
    assert refused.code == code


def test_each_detail_is_different() -> None:
    details = {problem_of(AccessRefused(reason)).detail for reason in RefusalReason}
    assert len(details) == len(RefusalReason)


def test_a_missing_permission_is_named() -> None:
    refused = AccessRefused(RefusalReason.PERMISSION_MISSING, permission=Permission.GRANTS_REVOKE)
    assert "grants:revoke" in problem_of(refused).detail


@pytest.mark.parametrize(
    ("reason", "challenge"),
    [
        (RefusalReason.UNAUTHENTICATED, "Bearer"),
        (RefusalReason.INVALID_JWT, 'Bearer error="invalid_token"'),
    ],
)
def test_a_refused_credential_gets_a_challenge(reason: RefusalReason, challenge: str) -> None:
    assert problem_of(AccessRefused(reason)).challenge == challenge


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (RefusalReason.CREDENTIAL_IN_URL, "invalid_request:credential_in_url"),
        (RefusalReason.PARAMETERS_IN_URL, "invalid_request:parameters_in_url"),
        (RefusalReason.UNAUTHENTICATED, "unauthenticated"),
        (RefusalReason.INVALID_JWT, "unauthenticated"),
        (RefusalReason.USER_NOT_ALLOWED, "forbidden"),
        (RefusalReason.ISSUER_UNAVAILABLE, "issuer_unavailable"),
    ],
)
def test_an_audit_outcome_is_the_code_and_for_urls_the_reason(
    reason: RefusalReason, outcome: str
) -> None:
    assert AccessRefused(reason).audit_outcome == outcome
