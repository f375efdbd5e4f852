"""Each refusal has one error of RFC 6749 or RFC 8693 at the token endpoint."""

import json
from datetime import timedelta

import pytest

from broker.callers.refusals import AccessRefused, RefusalReason
from broker.exchange.errors import (
    ACCESS_REFUSALS,
    DENIALS,
    OAuthError,
    error_response,
    from_malformed,
    from_refusal,
)
from broker.tokens.results import Denial, NotGranted, Outage, Unavailable
from broker.web.problems import invalid_request


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (Denial.SCOPE_NOT_ALLOWED, "invalid_scope"),
        (Denial.SCOPE_NOT_GRANTED, "invalid_scope"),
        (Denial.GRANT_NOT_FOUND, "invalid_grant"),
        (Denial.REAUTHORIZATION_REQUIRED, "invalid_grant"),
        (Denial.CONFIRMATION_PENDING, "invalid_grant"),
        (Denial.ACCOUNT_AMBIGUOUS, "invalid_request"),
    ],
)
def test_a_request_that_is_not_granted(reason: Denial, error: str) -> None:
    refused = from_refusal(NotGranted(reason))

    assert (refused.error, refused.status, refused.code) == (error, 400, reason.value)
    assert (refused.retry_after, refused.challenge) == (None, None)


@pytest.mark.parametrize("reason", Outage)
def test_an_outage_is_temporary(reason: Outage) -> None:
    refused = from_refusal(Unavailable(reason, timedelta(seconds=4.2)))

    assert (refused.error, refused.status) == ("temporarily_unavailable", 503)
    assert (refused.code, refused.retry_after) == (reason.value, 5)


@pytest.mark.parametrize(
    ("reason", "error", "status"),
    [
        (RefusalReason.CREDENTIAL_IN_URL, "invalid_request", 400),
        (RefusalReason.PARAMETERS_IN_URL, "invalid_request", 400),
        (RefusalReason.UNAUTHENTICATED, "invalid_client", 401),
        (RefusalReason.INVALID_JWT, "invalid_client", 401),
        (RefusalReason.ISSUER_UNAVAILABLE, "temporarily_unavailable", 503),
        (RefusalReason.PERMISSION_MISSING, "unauthorized_client", 400),
        (RefusalReason.SUBJECT_REQUIRED, "invalid_request", 400),
        (RefusalReason.USER_NOT_ALLOWED, "invalid_request", 400),
        (RefusalReason.RATE_LIMIT, "temporarily_unavailable", 429),
        (RefusalReason.CONCURRENCY_LIMIT, "temporarily_unavailable", 429),
        (RefusalReason.FAILED_AUTHENTICATIONS, "temporarily_unavailable", 429),
        (RefusalReason.FORM_LIMIT, "temporarily_unavailable", 429),
    ],
)
def test_a_refusal_of_the_gate(reason: RefusalReason, error: str, status: int) -> None:
    gate = AccessRefused(reason, retry_after_seconds=2)

    refused = from_refusal(gate)

    assert (refused.error, refused.status, refused.code) == (error, status, gate.code)
    assert (refused.challenge is not None) == (status == 401)
    assert (refused.retry_after is not None) == (status in (429, 503))


@pytest.mark.parametrize("reason", Denial)
def test_every_denial_is_in_the_table(reason: Denial) -> None:
    assert reason in DENIALS


@pytest.mark.parametrize("reason", RefusalReason)
def test_every_refusal_of_the_gate_is_in_the_table(reason: RefusalReason) -> None:
    assert reason in ACCESS_REFUSALS


@pytest.mark.parametrize(
    ("refusal", "members"),
    [
        (NotGranted(Denial.SCOPE_NOT_ALLOWED, ("a",)), {"scopes": ["a"]}),
        (NotGranted(Denial.SCOPE_NOT_GRANTED, ("a",)), {"missing": ["a"]}),
        (
            NotGranted(Denial.REAUTHORIZATION_REQUIRED, google_reason="invalid_rapt"),
            {"reason": "invalid_rapt"},
        ),
    ],
)
def test_an_error_has_the_members_of_the_problem(
    refusal: NotGranted, members: dict[str, object]
) -> None:
    assert from_refusal(refusal).members == members


@pytest.mark.parametrize("status", [400, 413])
def test_a_malformed_request_keeps_its_status(status: int) -> None:
    refused = from_malformed(invalid_request("body", "Too long.", status=status))

    assert (refused.error, refused.status) == ("invalid_request", status)
    assert (refused.code, refused.members) == ("invalid_request", {"field": "body"})


def test_an_error_is_a_json_answer_that_is_not_stored() -> None:
    error = OAuthError(
        "invalid_client", 'Not "known"\n', 401, "unauthenticated", {"field": "x"}, 3, "Bearer"
    )

    response = error_response(error, "id-1")

    assert response.status_code == 401
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert response.headers["retry-after"] == "3"
    assert response.headers["www-authenticate"] == "Bearer"
    assert json.loads(bytes(response.body)) == {
        "error": "invalid_client",
        "error_description": "Not 'known''",
        "code": "unauthenticated",
        "field": "x",
        "request_id": "id-1",
    }
