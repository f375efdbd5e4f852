"""Whatever is sent as a JWT, it is taken apart or refused, and nothing else happens."""

import base64
import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from broker.issuers.model import ALGORITHMS, JwtRefused
from broker.issuers.unverified import UnverifiedJwt, read_unverified

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
def test_any_bytes_are_refused_and_break_nothing(token: bytes) -> None:
    jwt = _read(token)
    assert jwt is None or jwt.algorithm in ALGORITHMS


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_any_segments_are_refused_and_break_nothing(
    header: bytes, claims: bytes, signature: bytes
) -> None:
    jwt = _read(b".".join(map(_segment, (header, claims, signature))))
    assert jwt is None or jwt.signature == signature


@given(_HEADERS, st.dictionaries(st.sampled_from(["iss", "sub", "exp", "a"]), _JSON))
def test_what_is_taken_apart_names_an_algorithm_that_proves_something(
    header: dict[str, object], claims: dict[str, object]
) -> None:
    token = b".".join(_segment(json.dumps(part).encode()) for part in (header, claims)) + b".eA"
    jwt = _read(token)
    if jwt is not None:
        assert jwt.algorithm == header["alg"]
        assert jwt.claims == claims
        assert jwt.key_id is None or isinstance(jwt.key_id, str)
        assert not {"crit", "b64", "cty"} & header.keys()
