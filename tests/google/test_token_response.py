"""A token response is checked field by field."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from broker.google.errors import GoogleError, GoogleUnavailable, GrantRefused
from broker.google.token_response import TokenResponse, read_token_response
from broker.secret import Secret
from tests.google.scripted_google import body, oauth_error, tokens

SENT_AT = datetime(2026, 1, 1, tzinfo=UTC)


def _read(answer: httpx2.Response) -> TokenResponse:
    return read_token_response(answer, sent_at=SENT_AT)


def _refusal(answer: httpx2.Response) -> GoogleError:
    with pytest.raises(GoogleError) as caught:
        _read(answer)
    return caught.value


def test_a_valid_response_is_read() -> None:
    answer = _read(tokens(refresh_token="1//r", id_token="e.y.J"))
    assert answer == TokenResponse(
        access_token=Secret("ya29.fresh"),
        expires_at=SENT_AT + timedelta(seconds=3599),
        scopes=("openid", "https://www.googleapis.com/auth/userinfo.email"),
        refresh_token=Secret("1//r"),
        id_token=Secret("e.y.J"),
    )


@pytest.mark.parametrize("absent", [..., None, ""])
def test_omitted_tokens_are_none(absent: object) -> None:
    answer = _read(tokens(refresh_token=absent, id_token=absent))
    assert (answer.refresh_token, answer.id_token) == (None, None)


def test_scopes_may_be_separated_by_any_white_space() -> None:
    assert _read(tokens(scope="openid\nemail\t")).scopes == ("openid", "email")


@pytest.mark.parametrize("absent", [..., None])
def test_omitted_scopes_are_none(absent: object) -> None:
    assert _read(tokens(scope=absent)).scopes is None


@pytest.mark.parametrize("life", [1, 0.5, 43_199, "3600", 3599.0])
def test_a_positive_lifetime_is_accepted(life: object) -> None:
    expected = SENT_AT + timedelta(seconds=float(str(life)))
    assert _read(tokens(expires_in=life)).expires_at == expected


@pytest.mark.parametrize(
    "life",
    [..., None, 0, -1, True, False, "", "0", "-5", "3600.5", "1e3", "soon", " 3600", [3600], {}],
)
def test_a_token_of_unknown_lifetime_is_refused(life: object) -> None:
    assert _refusal(tokens(expires_in=life)).reason == "bad_answer"


@pytest.mark.parametrize("life", ["NaN", "Infinity", "-Infinity", "1e308", "9" * 400, "1e999"])
def test_a_lifetime_out_of_range_is_refused(life: str) -> None:
    text = f'{{"access_token": "a", "token_type": "Bearer", "expires_in": {life}}}'
    assert _refusal(body(text)).reason == "bad_answer"


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER"])
def test_the_token_type_is_compared_without_case(token_type: str) -> None:
    assert _read(tokens(token_type=token_type)).access_token


@pytest.mark.parametrize("token_type", [..., None, "", "mac", "DPoP", 1, ["Bearer"]])
def test_a_token_of_another_type_is_refused(token_type: object) -> None:
    assert _refusal(tokens(token_type=token_type)).reason == "bad_answer"


@pytest.mark.parametrize(
    "token",
    [..., None, "", 1, ["a"], {}, "two words", "line\nbreak", "é", "\ud800", "\x00", "x" * 16_385],
)
def test_an_access_token_that_no_header_can_carry_is_refused(token: object) -> None:
    assert _refusal(tokens(access_token=token)).reason == "bad_answer"


def test_a_token_of_the_greatest_length_is_accepted() -> None:
    assert len(_read(tokens(access_token="x" * 16_384)).access_token.reveal()) == 16_384


@pytest.mark.parametrize("field", ["refresh_token", "id_token"])
@pytest.mark.parametrize("value", [1, ["a"], {"a": 1}, True, "a b", "x" * 16_385])
def test_a_malformed_second_token_refuses_the_whole_response(field: str, value: object) -> None:
    assert _refusal(tokens(**{field: value})).reason == "bad_answer"


@pytest.mark.parametrize("scope", [1, ["openid"], "", " ", 'quo"te', "openid \u00e9", "\ud800"])
def test_a_malformed_scope_refuses_the_whole_response(scope: object) -> None:
    assert _refusal(tokens(scope=scope)).reason == "bad_answer"


def test_a_response_with_an_error_and_a_token_is_refused() -> None:
    assert _refusal(tokens(error="invalid_grant")).reason == "bad_answer"


@pytest.mark.parametrize("text", ["", "[]", "null", '{"access_token": "ya29.cut', "<html>"])
def test_a_success_without_a_json_object_is_unavailability(text: str) -> None:
    error = _refusal(body(text))
    assert (type(error), error.reason) == (GoogleUnavailable, "not_json")


@pytest.mark.parametrize("status", [201, 202, 204, 206, 302])
def test_tokens_with_another_status_than_200_are_refused(status: int) -> None:
    answer = tokens()
    answer.status_code = status
    assert _refusal(answer).reason == "bad_answer"


def test_a_refusal_is_classified() -> None:
    assert type(_refusal(oauth_error("invalid_grant"))) is GrantRefused


def test_unknown_members_are_ignored() -> None:
    assert _read(tokens(expires_at=["odd"], refresh_token_expires_in="odd")).access_token


def test_the_representation_of_a_response_hides_its_tokens() -> None:
    assert "ya29" not in repr(_read(tokens(refresh_token="ya29.r", id_token="ya29.i")))
