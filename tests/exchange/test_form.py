"""The form of the token endpoint, as tables."""

import pytest

from broker.exchange.errors import OAuthError
from broker.exchange.form import Form, is_google, parse_form


@pytest.mark.parametrize(
    ("body", "parameters", "targets"),
    [
        (b"", {}, ()),
        (b"grant_type=a", {"grant_type": "a"}, ()),
        (b"scope=a+b&account=x%40example.com", {"scope": "a b", "account": "x@example.com"}, ()),
        (b"scope=", {"scope": ""}, ()),
        (b"name=%C3%A9", {"name": "é"}, ()),
        (b"resource=a&audience=b&resource=c", {}, ("a", "b", "c")),
        (b"resource=&audience=b", {}, ("b",)),
        (b"&".join(b"p%d=1" % n for n in range(50)), {f"p{n}": "1" for n in range(50)}, ()),
    ],
)
def test_a_form_is_read(body: bytes, parameters: dict[str, str], targets: tuple[str, ...]) -> None:
    assert parse_form(body) == Form(parameters, targets)


@pytest.mark.parametrize(
    ("body", "description"),
    [
        (b"scope", "malformed"),
        (b"&", "malformed"),
        (b"a=1&&b=2", "malformed"),
        ("scope=é".encode(), "malformed"),
        (b"scope=%ff", "malformed"),
        (b"&".join(b"p%d=1" % n for n in range(51)), "malformed"),
        (b"scope=a&scope=b", "more than once"),
        (b"scope=&scope=", "more than once"),
        (b"secret-name=a&secret-name=b", "more than once"),
    ],
)
def test_a_malformed_form_is_refused_without_quoting_it(body: bytes, description: str) -> None:
    with pytest.raises(OAuthError) as refused:
        parse_form(body)

    error = refused.value
    assert (error.error, error.status, error.code) == ("invalid_request", 400, "invalid_request")
    assert description in error.description
    assert "secret" not in error.description
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("parameters", "value"), [({}, None), ({"scope": ""}, None), ({"scope": "a"}, "a")]
)
def test_a_parameter_without_a_value_counts_as_omitted(
    parameters: dict[str, str], value: str | None
) -> None:
    form = Form(parameters, ())

    assert form.get("scope") == value
    if value is None:
        with pytest.raises(OAuthError, match="scope is missing"):
            form.required("scope")
    else:
        assert form.required("scope") == value


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://www.googleapis.com/auth/calendar", True),
        ("https://googleapis.com", True),
        ("https://oauth2.google.com:443/x", True),
        ("www.googleapis.com", True),
        ("GoogleApis.com", True),
        ("http://www.googleapis.com", False),
        ("https://googleapis.com.evil.example", False),
        ("https://evilgoogleapis.com", False),
        ("https://user@googleapis.com", False),
        ("https://googleapis.com/#fragment", False),
        ("https://googleapis.com:port", False),
        ("https://[", False),
        ("https://", False),
        ("token-broker", False),
    ],
)
def test_a_target_is_google_or_one_of_its_apis(target: str, expected: bool) -> None:
    assert is_google(target) is expected
