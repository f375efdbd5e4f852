"""Security event tokens: every input is read or refused, and nothing else is raised."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.google.errors import GoogleUnavailable, SecurityEventRefused
from broker.google.http import google_http_client
from broker.google.security_events import (
    EVENT_TYPES,
    EventKind,
    SecurityEventToken,
    SecurityEventVerifier,
    TokenDigest,
    TokenPrefix,
    read_event,
    read_risc_configuration,
    risc_configuration_url,
)
from broker.telemetry.metrics import Metrics
from devstack.google_standin.keys import KeyRing, rs256
from tests.support.clock import ManualClock

ISSUER = "https://accounts.google.com/"
KEYS = KeyRing()
NOW = int(ManualClock().epoch())

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
SUBJECTS = st.dictionaries(
    st.sampled_from(["subject_type", "format", "iss", "sub", "email", "token", "token_type"]),
    st.sampled_from(["iss-sub", "oauth_token", ISSUER, "prefix", "refresh_token"]) | JSON,
)
PAYLOADS = st.dictionaries(st.sampled_from(["subject", "reason", "state"]), SUBJECTS | JSON)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.just(ISSUER) | JSON,
        "aud": st.just("client") | JSON,
        "iat": st.just(NOW) | JSON,
        "toe": JSON,
        "jti": st.just("jti") | JSON,
        "sub_id": SUBJECTS | JSON,
        "events": st.dictionaries(st.sampled_from(sorted(EVENT_TYPES)) | st.text(), PAYLOADS)
        | JSON,
    },
)


async def _is_ours(client_ids: Sequence[str]) -> bool:
    return "client" in client_ids


def google(request: httpx2.Request) -> httpx2.Response:
    """Answer with the RISC configuration or the keys."""
    if request.url.path == "/.well-known/risc-configuration":
        return httpx2.Response(
            200, json={"issuer": ISSUER, "jwks_uri": "https://www.googleapis.com/certs"}
        )
    return httpx2.Response(200, json=KEYS.jwks())


def verify(token: str) -> SecurityEventToken | None:
    """Return the contents of a token, or None if it is refused."""

    async def verified() -> SecurityEventToken | None:
        async with google_http_client(httpx2.MockTransport(google)) as http:
            verifier = SecurityEventVerifier(
                "https://accounts.google.com/.well-known/openid-configuration",
                http,
                ManualClock(),
                Metrics(),
                is_ours=_is_ours,
            )
            try:
                return await verifier.verify(token)
            except SecurityEventRefused:
                return None

    return asyncio.run(verified())


@settings(max_examples=150, deadline=None)
@given(CLAIMS)
def test_any_signed_token_is_read_or_refused(claims: dict[str, Any]) -> None:
    token = verify(rs256(KEYS.current, claims))
    if token is not None:
        assert token.jti.isprintable()
        assert token.happened_at <= token.issued_at
        # What goes into the database must be text to it.
        json.dumps([token.jti, token.audience, str(token.events)]).encode()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=99).map(lambda raw: raw.decode("latin-1")))
def test_any_unsigned_text_is_refused(text: str) -> None:
    assert verify(text) is None


@settings(max_examples=300, deadline=None)
@given(st.text(), PAYLOADS, JSON)
def test_any_payload_can_be_read(uri: str, payload: dict[str, Any], sub_id: Any) -> None:
    event = read_event(uri, payload, issuers={ISSUER}, sub_id=sub_id)
    assert event.kind is EventKind.UNKNOWN
    for text in (event.state or "", getattr(event.subject, "sub", "")):
        assert text.encode() is not None
        assert "\0" not in text


def test_a_valid_token_is_read() -> None:
    claims = {
        "iss": ISSUER,
        "aud": ["other", "client"],
        "iat": NOW,
        "toe": NOW - 60,
        "jti": "one",
        "events": {
            next(iter(EVENT_TYPES)): {
                "subject": {"subject_type": "iss-sub", "iss": ISSUER, "sub": "123"}
            }
        },
    }
    token = verify(rs256(KEYS.current, claims))
    assert token is not None
    assert token.audience == ("other", "client")
    assert (token.issued_at - token.happened_at).total_seconds() == 60


def test_the_representation_of_a_token_subject_hides_it() -> None:
    assert "abc" not in repr(TokenPrefix("abc"))
    assert "abc" not in repr(TokenDigest(b"abc"))


@pytest.mark.parametrize(
    ("discovery", "expected"),
    [
        (
            "https://accounts.google.com/.well-known/openid-configuration",
            "https://accounts.google.com/.well-known/risc-configuration",
        ),
        (
            "http://127.0.0.1:9000/.well-known/openid-configuration?x=1#y",
            "http://127.0.0.1:9000/.well-known/risc-configuration",
        ),
    ],
)
def test_the_configuration_has_the_origin_of_the_discovery_document(
    discovery: str, expected: str
) -> None:
    assert risc_configuration_url(discovery) == expected


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"issuer": ISSUER},
        {"issuer": "", "jwks_uri": "https://x.example"},
        {"issuer": "/", "jwks_uri": "https://x.example"},
        {"issuer": ISSUER, "jwks_uri": "http://x.example"},
        {"issuer": ISSUER, "jwks_uri": ["https://x.example"]},
    ],
)
def test_an_invalid_configuration_is_unavailability(
    document: dict[str, Any],
) -> None:
    with pytest.raises(GoogleUnavailable):
        read_risc_configuration(document)
