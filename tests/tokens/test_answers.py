"""Each refusal of a token has one HTTP answer."""

from datetime import timedelta

import pytest

from broker.callers.refusals import AccessRefused, RefusalReason
from broker.tokens.answers import DENIALS, OUTAGES, problem_of
from broker.tokens.results import Defect, Denial, NotGranted, Outage, Refusal, Unavailable


@pytest.mark.parametrize(
    ("refusal", "status", "members"),
    [
        (NotGranted(Denial.SCOPE_NOT_ALLOWED, ("b", "a")), 403, {"scopes": ["a", "b"]}),
        (NotGranted(Denial.GRANT_NOT_FOUND), 404, {}),
        (NotGranted(Denial.ACCOUNT_AMBIGUOUS), 409, {}),
        (NotGranted(Denial.CONFIRMATION_PENDING), 409, {}),
        (NotGranted(Denial.SCOPE_NOT_GRANTED, ("a",)), 409, {"missing": ["a"]}),
        (NotGranted(Denial.REAUTHORIZATION_REQUIRED), 409, {}),
        (
            NotGranted(Denial.REAUTHORIZATION_REQUIRED, google_reason="invalid_rapt"),
            409,
            {"reason": "invalid_rapt"},
        ),
    ],
)
def test_a_request_that_is_not_granted(
    refusal: NotGranted, status: int, members: dict[str, object]
) -> None:
    problem = problem_of(refusal)

    assert (problem.status, problem.code) == (status, refusal.code)
    assert (problem.members, problem.retry_after) == (members, None)


@pytest.mark.parametrize("reason", Outage)
@pytest.mark.parametrize(
    ("seconds", "retry_after"), [(0, 1), (0.2, 1), (1, 1), (1.01, 2), (30, 30)]
)
def test_an_outage_says_when_to_retry_in_whole_seconds(
    reason: Outage, seconds: float, retry_after: int
) -> None:
    problem = problem_of(Unavailable(reason, timedelta(seconds=seconds)))

    assert (problem.status, problem.code) == (503, reason.value)
    assert problem.retry_after == retry_after


def test_an_outage_of_google_may_have_an_explanation() -> None:
    second = timedelta(seconds=1)

    assert problem_of(Unavailable(Outage.GOOGLE, second, "Why.")).detail == "Why."
    assert problem_of(Unavailable(Outage.GOOGLE, second)).detail


def test_a_rejected_request_is_answered_as_the_gate_answers_it() -> None:
    problem = problem_of(AccessRefused(RefusalReason.CONCURRENCY_LIMIT, retry_after_seconds=1))

    assert (problem.status, problem.code, problem.retry_after) == (429, "rate_limited", 1)


def test_a_defect_says_nothing_about_itself() -> None:
    problem = problem_of(Defect())

    assert (problem.status, problem.code) == (500, "internal_error")
    assert (problem.members, problem.retry_after) == ({}, None)


@pytest.mark.parametrize("reason", Denial)
def test_every_denial_is_in_the_table(reason: Denial) -> None:
    assert reason in DENIALS


@pytest.mark.parametrize("reason", Outage)
def test_every_outage_is_in_the_table(reason: Outage) -> None:
    assert reason in OUTAGES


@pytest.mark.parametrize(
    "refusal",
    [NotGranted(Denial.GRANT_NOT_FOUND), Unavailable(Outage.CLIENT, timedelta(seconds=5))],
)
def test_metrics_and_audit_have_the_code_of_the_answer(refusal: Refusal) -> None:
    assert refusal.code == problem_of(refusal).code
