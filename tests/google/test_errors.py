"""The meaning of each error response of the token endpoint."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    RequestRefused,
    ScopeRefused,
    classify_token_error,
)
from tests.google.scripted_google import body, oauth_error

HTML = "<!DOCTYPE html><title>Sorry...</title>"


def test_invalid_grant_is_a_refused_grant() -> None:
    error = classify_token_error(oauth_error("invalid_grant"))
    assert (type(error), error.reason) == (GrantRefused, "invalid_grant")


def test_an_expired_session_is_reported_by_its_subtype() -> None:
    error = classify_token_error(oauth_error("invalid_grant", error_subtype="invalid_rapt"))
    assert (type(error), error.reason) == (GrantRefused, "invalid_rapt")


@pytest.mark.parametrize("subtype", ["ya29.secret", 7, None, ["invalid_rapt"], {}])
def test_an_unknown_subtype_is_not_repeated(subtype: object) -> None:
    error = classify_token_error(oauth_error("invalid_grant", error_subtype=subtype))
    assert (type(error), error.reason) == (GrantRefused, "invalid_grant")


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 408, 429, 500, 502, 503, 504])
def test_invalid_grant_with_another_status_than_400_is_no_verdict(status: int) -> None:
    assert type(classify_token_error(oauth_error("invalid_grant", status))) is GoogleUnavailable


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    "code",
    [
        "invalid_client",
        "unauthorized_client",
        "deleted_client",
        "disabled_client",
        "redirect_uri_mismatch",
        "org_internal",
    ],
)
def test_errors_for_the_operator_are_a_refused_client(code: str, status: int) -> None:
    error = classify_token_error(oauth_error(code, status))
    assert (type(error), error.reason) == (ClientRefused, code)


def test_invalid_scope_is_a_refused_scope() -> None:
    assert type(classify_token_error(oauth_error("invalid_scope"))) is ScopeRefused


@pytest.mark.parametrize("code", ["invalid_request", "unsupported_grant_type", "access_denied"])
def test_other_known_refusals_keep_their_code(code: str) -> None:
    error = classify_token_error(oauth_error(code))
    assert (type(error), error.reason) == (RequestRefused, code)


def test_an_unknown_code_is_a_refused_request_without_the_code() -> None:
    error = classify_token_error(oauth_error("ya29_is_not_a_code"))
    assert (type(error), error.reason) == (RequestRefused, "unknown_error")


@pytest.mark.parametrize("status", [408, 500, 501, 502, 503, 504, 529])
@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "backend_error"])
def test_a_temporary_status_is_unavailability_whatever_the_body(code: str, status: int) -> None:
    error = classify_token_error(oauth_error(code, status))
    assert (type(error), error.reason) == (GoogleUnavailable, f"http_{status}")


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    "members",
    [
        {"code": "internal_failure"},
        {"code": "invalid_grant", "error_description": "internal_failure"},
        {"code": "temporarily_unavailable"},
    ],
)
def test_a_4xx_with_an_internal_error_of_googles_is_unavailability(
    members: dict[str, str], status: int
) -> None:
    answer = oauth_error(**members, status=status)
    assert type(classify_token_error(answer)) is GoogleUnavailable


def test_a_403_with_a_page_is_unavailability() -> None:
    error = classify_token_error(body(HTML, "text/html; charset=UTF-8", 403))
    assert (type(error), error.reason) == (GoogleUnavailable, "html_403")


def test_a_page_with_a_json_media_type_is_still_a_page() -> None:
    error = classify_token_error(body("\n " + HTML, "application/json", 403))
    assert (type(error), error.reason) == (GoogleUnavailable, "html_403")


def test_an_error_without_a_json_media_type_is_no_verdict() -> None:
    error = classify_token_error(body('{"error": "invalid_grant"}', "text/plain", 400))
    assert (type(error), error.reason) == (GoogleUnavailable, "not_json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '["invalid_grant"]',
        '"invalid_grant"',
        '{"error": "invalid_grant"',
        "\xff",
        "[" * 50_000,
        "1" * 5_000,
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_4xx_without_a_json_object_is_no_verdict(text: str, status: int) -> None:
    error = classify_token_error(body(text, status=status))
    assert (type(error), error.reason) == (GoogleUnavailable, "not_json")


@pytest.mark.parametrize("code", [None, 400, True, "", ["invalid_grant"], {"status": "DENIED"}])
def test_an_error_that_is_not_a_string_is_no_verdict(code: object) -> None:
    error = classify_token_error(oauth_error(code))
    assert (type(error), error.reason) == (GoogleUnavailable, "bad_answer")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_bad_answer(status: int) -> None:
    answer = httpx2.Response(status, headers={"Location": "https://elsewhere.test/"})
    error = classify_token_error(answer)
    assert (type(error), error.reason) == (GoogleUnavailable, "bad_answer")


@pytest.mark.parametrize(
    "answer",
    [oauth_error("anything", 429), oauth_error("rate_limit_exceeded", 403)],
    ids=["status", "code"],
)
def test_rate_limits_are_unavailability(answer: httpx2.Response) -> None:
    error = classify_token_error(answer)
    assert (type(error), error.reason) == (GoogleUnavailable, "rate_limited")


def _retry_after(value: str, **headers: str) -> timedelta | None:
    error = classify_token_error(
        httpx2.Response(429, headers={"Retry-After": value, **headers}, json={})
    )
    assert isinstance(error, GoogleUnavailable)
    return error.retry_after


def test_retry_after_in_seconds_is_kept() -> None:
    assert _retry_after("17") == timedelta(seconds=17)


def test_retry_after_as_a_date_is_relative_to_googles_clock() -> None:
    there = datetime(2020, 5, 1, tzinfo=UTC)
    then = format_datetime(there + timedelta(seconds=40), usegmt=True)
    assert _retry_after(then, Date=format_datetime(there, usegmt=True)) == timedelta(seconds=40)


def test_retry_after_as_a_date_without_googles_clock_is_relative_to_now() -> None:
    then = datetime.now(UTC) + timedelta(seconds=60)
    wish = _retry_after(format_datetime(then, usegmt=True))
    assert wish is not None
    assert timedelta(seconds=50) < wish <= timedelta(seconds=60)


def test_a_past_date_means_no_pause() -> None:
    assert _retry_after("Fri, 01 May 2020 00:00:00 GMT") == timedelta(0)


@pytest.mark.parametrize("value", ["99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_very_long_retry_after_is_cut(value: str) -> None:
    assert _retry_after(value) == timedelta(hours=1)


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "١٢", "Fri, 99 May 2020 00:00:00 GMT"])
def test_a_malformed_retry_after_is_none(value: str) -> None:
    answer = httpx2.Response(429, headers=[(b"Retry-After", value.encode())], json={})
    error = classify_token_error(answer)
    assert isinstance(error, GoogleUnavailable)
    assert error.retry_after is None


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
@pytest.mark.parametrize(
    "code", ["invalid_grant", "invalid_client", "invalid_scope", "1//refresh-token", "internal"]
)
def test_the_message_quotes_nothing_of_the_response(code: str, status: int) -> None:
    error = classify_token_error(
        oauth_error(code, status, error_description="1//refresh-token", error_uri="ya29.token")
    )
    assert isinstance(error, GoogleError)
    text = f"{error} {error!r} {error.args}"
    assert "1//" not in text
    assert "ya29" not in text


@pytest.mark.parametrize(
    ("answer", "is_general"),
    [
        (oauth_error("rate_limit_exceeded", 429), False),
        (oauth_error("rate_limit_exceeded", 403), False),
        (body(HTML, "text/html; charset=UTF-8", 403), False),
        (body(HTML, "text/html; charset=UTF-8", 502), True),
        (oauth_error("internal_failure", 400), True),
        (oauth_error("backend_error", 500), True),
    ],
)
def test_failures_of_one_account_differ_from_general_failures(
    answer: httpx2.Response, is_general: bool
) -> None:
    error = classify_token_error(answer)
    assert isinstance(error, GoogleUnavailable)
    assert error.is_general is is_general
