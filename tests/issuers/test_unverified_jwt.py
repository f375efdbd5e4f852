"""Parsing of JWTs and checks of claims: every input is parsed or refused."""

import base64
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.issuers.model import ALGORITHMS, JwtRefused
from broker.issuers.unverified_jwt import (
    CLOCK_SKEW,
    UnverifiedJwt,
    check_times,
    has_audience,
    is_unambiguous,
    numeric_date,
    read_unverified,
    read_unverified_jws,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "cty", "crit", "b64", "jwk", "x"]),
    _JSON | st.sampled_from([*ALGORITHMS, "none", "HS256", "JWT", "at+jwt"]),
)


def _read(token: bytes) -> UnverifiedJwt | None:
    with suppress(JwtRefused):
        return read_unverified(token, at_most=4096)
    return None


def _segment(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(token: bytes) -> None:
    jwt = _read(token)
    assert jwt is None or jwt.algorithm in ALGORITHMS


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_any_segments_are_parsed_or_refused(header: bytes, claims: bytes, signature: bytes) -> None:
    jwt = _read(b".".join(map(_segment, (header, claims, signature))))
    assert jwt is None or jwt.signature == signature


@given(_HEADERS, st.dictionaries(st.sampled_from(["iss", "sub", "exp", "a"]), _JSON))
def test_a_parsed_jwt_has_an_asymmetric_algorithm_and_its_claims(
    header: dict[str, object], claims: dict[str, object]
) -> None:
    token = b".".join(_segment(json.dumps(part).encode()) for part in (header, claims)) + b".eA"
    jwt = _read(token)
    if jwt is not None:
        assert jwt.algorithm == header["alg"]
        assert jwt.claims == claims
        assert jwt.key_id is None or isinstance(jwt.key_id, str)
        assert not {"crit", "b64", "cty"} & header.keys()


def _token(header: dict[str, Any], claims: object = None, signature: bytes = b"x") -> bytes:
    parts = (json.dumps(header).encode(), json.dumps(claims or {}).encode(), signature)
    return b".".join(map(_segment, parts))


GOOD = {"alg": "RS256", "kid": "one"}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (b"", "malformed"),
        (b"a.b", "malformed"),
        (b"e30.e30", "malformed"),
        (b"e30.e30.x", "malformed"),
        (b"e30=.e30.eA", "malformed"),
        (b"e30.e31.eA", "malformed"),
        (b"W10.e30.eA", "malformed"),
        (_token(GOOD) + b"A" * 5000, "too_long"),
        (_token({}), "algorithm"),
        (_token({"alg": "none"}, signature=b""), "algorithm"),
        (_token({"alg": "HS256"}), "algorithm"),
        (_token({"alg": ["RS256"]}), "algorithm"),
        (_token(GOOD | {"crit": []}), "critical_header"),
        (_token(GOOD | {"b64": True}), "critical_header"),
        (_token(GOOD | {"zip": "DEF"}), "critical_header"),
        (_token(GOOD | {"enc": "A256GCM"}), "critical_header"),
        (_token(GOOD | {"kid": 1}), "malformed"),
        (_token(GOOD | {"typ": 1}), "malformed"),
        (_token(GOOD | {"typ": "logout+jwt"}), "type"),
        (_token(GOOD | {"cty": "JWT"}), "type"),
        (_token(GOOD, [1]), "malformed"),
        (_token(GOOD, {"events": {}}), "type"),
    ],
)
def test_each_defect_of_a_jwt_has_its_reason(token: bytes, reason: str) -> None:
    with pytest.raises(JwtRefused) as caught:
        read_unverified(token, at_most=4096)
    assert caught.value.reason == reason


@pytest.mark.parametrize("typ", ["JWT", "jwt", "application/JWT", "at+jwt", "JOSE"])
def test_the_type_is_compared_as_a_media_type(typ: str) -> None:
    jwt = read_unverified(_token(GOOD | {"typ": typ}), at_most=4096)
    assert jwt.type == typ.lower().removeprefix("application/")


def test_a_repeated_header_parameter_is_refused() -> None:
    header = _segment(b'{"alg": "RS256", "alg": "RS256"}')
    with pytest.raises(JwtRefused, match="malformed"):
        read_unverified(header + b".e30.eA", at_most=4096)


def test_a_jws_may_carry_any_payload_and_without_types_any_type() -> None:
    token = b".".join(map(_segment, (b'{"alg": "RS256", "typ": "x", "cty": "y"}', b"no JSON", b"")))
    jws = read_unverified_jws(token, at_most=4096, algorithms=("RS256",))
    assert (jws.payload, jws.signature, jws.key_id) == (b"no JSON", b"", None)


@pytest.mark.parametrize(
    ("aud", "expected"),
    [
        ("a", True),
        (["a"], True),
        (["b", "a"], True),
        ("A", False),
        ("a ", False),
        ([], False),
        (["b"], False),
        (["a", 1], False),
        ({"a": True}, False),
        (None, False),
    ],
)
def test_an_audience_is_compared_exactly(aud: object, expected: bool) -> None:
    assert has_audience({"aud": aud}, "a") is expected


def test_without_an_audience_there_is_no_match() -> None:
    assert not has_audience({}, "a")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (-1, -1.0),
        (True, None),
        ("1", None),
        (None, None),
        ([1], None),
        (math.nan, None),
        (math.inf, None),
        (10**400, None),
    ],
)
def test_a_numeric_date_is_a_finite_number(value: object, expected: float | None) -> None:
    assert numeric_date(value) == expected


NOW = 1_000_000.0
SKEW = CLOCK_SKEW.total_seconds()


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW + 0.5},
        {"exp": NOW + 9, "nbf": NOW, "iat": NOW},
        {"exp": NOW + 9, "nbf": NOW + SKEW, "iat": NOW + SKEW},
        {"exp": NOW + 9, "iat": 0},
    ],
)
def test_a_jwt_is_valid_from_nbf_to_exp(claims: dict[str, Any]) -> None:
    assert check_times(claims, NOW) == claims["exp"]


@pytest.mark.parametrize(
    ("claims", "reason", "claim"),
    [
        ({}, "no_expiry", "exp"),
        ({"exp": None}, "malformed", "exp"),
        ({"exp": "soon"}, "malformed", "exp"),
        ({"exp": math.nan}, "malformed", "exp"),
        ({"exp": NOW}, "expired", "exp"),
        ({"exp": NOW - SKEW}, "expired", "exp"),
        ({"exp": NOW + 9, "nbf": NOW + SKEW + 1}, "not_yet", "nbf"),
        ({"exp": NOW + 9, "iat": NOW + SKEW + 1}, "not_yet", "iat"),
        ({"exp": NOW + 9, "nbf": None}, "malformed", "nbf"),
        ({"exp": NOW + 9, "iat": True}, "malformed", "iat"),
    ],
)
def test_each_defect_of_the_times_has_its_reason_and_claim(
    claims: dict[str, Any], reason: str, claim: str
) -> None:
    with pytest.raises(JwtRefused) as caught:
        check_times(claims, NOW)
    assert (caught.value.reason, caught.value.claim) == (reason, claim)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.com", True),
        ("에이다", True),
        ("a b", False),
        ("a\u00a0b", False),
        ("a\u200bb", False),
        ("a\u3164b", False),
        ("line\nbreak", False),
        ("\u202eabc", False),
    ],
)
def test_an_identifier_is_unambiguous(text: str, expected: bool) -> None:
    assert is_unambiguous(text) is expected
