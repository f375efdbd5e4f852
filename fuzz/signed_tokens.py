"""JWTs and event tokens with valid signatures and arbitrary claims, and key sets."""

import json
import random
from collections.abc import Callable
from typing import Any

import httpx2
import jwt as pyjwt

from broker.callers.model import Caller
from broker.exchange.subjects import SubjectTokens
from broker.google.errors import SecurityEventRefused
from broker.google.security_events import SecurityEventVerifier
from broker.issuers.key_cache import KeyCache
from broker.issuers.key_set_client import KeySetClient
from broker.issuers.model import Issuer, JwtRefused, UserRule
from broker.issuers.trusted import TrustedIssuers
from broker.issuers.unverified_jwt import UnverifiedJws, has_audience
from broker.issuers.verification_keys import VerificationKey, read_keys
from broker.telemetry.metrics import Metrics
from broker.web.parameters import is_user_id
from fuzz.target import Find, Target, must, of_bytes, run_sync
from tests.support.clock import ManualClock
from tests.support.issuer import SigningKey, private_key

_ISSUER = "https://issuer.example"
_GOOGLE = "https://accounts.google.com"


def signed_targets() -> list[Target]:
    """Return the targets; each has its own keys, and none is fetched."""
    clock = ManualClock()
    now = int(clock.epoch())
    return [
        of_bytes("workload JWT claims", _jwt_check(clock), _claims(now)),
        of_bytes("event token claims", _event_check(clock), _events(now)),
        of_bytes("event token", _event_token_check(clock), _event_tokens(now)),
        of_bytes("key set", _check_key_set, _key_sets()),
    ]


def _claims(now: int) -> list[bytes]:
    usual: dict[str, Any] = {"iss": _ISSUER, "aud": "token-broker", "sub": "user-1", "exp": now + 9}
    others: list[dict[str, Any]] = [
        {"nbf": now, "iat": now + 0.5, "aud": ["token-broker", "other"]},
        {"exp": "soon"},
        {"sub": "", "email": "ada@example.com", "email_verified": True},
        {"exp": 1e300, "iat": None},
        {"may_act": {"sub": "caller"}},
        {"may_act": {"sub": "caller", "iss": _ISSUER}, "events": {}},
    ]
    return [json.dumps(usual | other).encode() for other in ({}, *others)]


class _Registry:
    """Knows no workload."""

    def workloads(self, _issuer: str, _subject: str) -> tuple[()]:
        return ()


def _jwt_check(clock: ManualClock) -> Callable[[bytes], None]:
    issuer = Issuer(_ISSUER, users=UserRule(audience="token-broker"))
    key = SigningKey("key-1", "ES256", private_key("ES256"))
    trusted = _trusting(issuer, key, clock)
    registry: Any = _Registry()
    subjects = SubjectTokens(trusted, registry)
    header = {"alg": "ES256", "kid": key.kid, "typ": "JWT"}
    caller = Caller("caller", frozenset(), frozenset(), (), ())
    kind = "urn:ietf:params:oauth:token-type:jwt"

    def check(data: bytes) -> None:
        token = pyjwt.PyJWS().encode(data, key.private, algorithm="ES256", headers=header)
        try:
            user_id = run_sync(subjects.user_id(token, kind, caller))
        except JwtRefused:
            return
        claims = json.loads(data)
        must(is_user_id(user_id) and claims["sub"] == user_id, "another user")
        must(claims["iss"] == _ISSUER and claims["exp"] > clock.epoch(), "not valid now")
        must(has_audience(claims, "token-broker"), "for another audience")
        must("events" not in claims, "an event")
        may_act = claims.get("may_act", {"sub": "caller"})
        must(may_act["sub"] == "caller" and "iss" not in may_act, "to another caller")

    return check


def _trusting(issuer: Issuer, key: SigningKey, clock: ManualClock) -> TrustedIssuers:
    metrics = Metrics()
    documents = KeySetClient(httpx2.AsyncClient(), metrics)
    trusted = TrustedIssuers(documents, clock, metrics)
    trusted.configure([issuer])
    keys = trusted._by_url[issuer.url].keys
    keys._install(read_keys({"keys": [key.jwk()]}))
    keys._installed_at = keys._fetch._tried_at = clock.epoch()
    return trusted


def _events(now: int) -> list[bytes]:
    risc = "https://schemas.openid.net/secevent/risc/event-type/"
    oauth = "https://schemas.openid.net/secevent/oauth/event-type/"
    subject = {"subject_type": "iss-sub", "iss": _GOOGLE + "/", "sub": "1000"}
    token = {
        "subject_type": "oauth_token",
        "token_type": "refresh_token",
        "token_identifier_alg": "prefix",
        "token": "1//abcdefghijklm",
    }
    events: list[dict[str, Any]] = [
        {risc + "account-disabled": {"subject": subject, "reason": "hijacking"}},
        {oauth + "token-revoked": {"subject": token}},
        {risc + "verification": {"state": "abc"}, oauth + "tokens-revoked": {"subject": subject}},
        {"unknown": {}},
    ]
    usual = {"iss": _GOOGLE + "/", "aud": "client", "iat": now, "jti": "abc", "toe": now - 9}
    return [json.dumps(usual | {"events": event}).encode() for event in events]


def _verifier(clock: ManualClock) -> SecurityEventVerifier:
    async def is_ours(names: object) -> bool:
        return bool(names)

    return SecurityEventVerifier(
        _GOOGLE + "/.well-known/openid-configuration",
        httpx2.AsyncClient(),
        clock,
        Metrics(),
        is_ours=is_ours,
    )


def _event_check(clock: ManualClock) -> Callable[[bytes], None]:
    """Check claims with a valid signature: any payload of a JWS, as joserfc reads it."""
    verifier = _verifier(clock)
    issuers = frozenset({_GOOGLE, _GOOGLE + "/"})

    def check(data: bytes) -> None:
        try:
            claims = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(claims, dict):
            return
        try:
            token = verifier._read(claims, ("client",), issuers)
        except SecurityEventRefused:
            return
        must(token.jti and token.events, "an event without required claims")
        must(token.happened_at <= token.issued_at, "it happened after it was sent")

    return check


class _OneKey:
    """Stands in for Google's keys: one key that never changes."""

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def refresh(self) -> None:
        pass

    async def verify(self, jws: UnverifiedJws) -> VerificationKey:
        if jws.key_id != "google-1":
            raise JwtRefused("unknown_key")
        if not self._key.verify(jws):
            raise JwtRefused("signature")
        return self._key


def _event_tokens(now: int) -> list[bytes]:
    key = private_key("RS256")
    claims = json.loads(_events(now)[0])
    header = {"kid": "google-1"}
    signed = [pyjwt.PyJWS().encode(b"{}", key, "RS256", headers=header)]
    return [
        pyjwt.encode(claims, key, "RS256", headers=header).encode(),
        *(text.encode() for text in signed),
        b"eyJhbGciOiJub25lIiwia2lkIjoiZ29vZ2xlLTEifQ.e30.",  # pragma: allowlist secret
    ]


def _event_token_check(clock: ManualClock) -> Callable[[bytes], None]:
    """Check complete tokens, none of which is from Google."""
    verifier = _verifier(clock)
    (other,) = read_keys({"keys": [SigningKey("google-1", "RS256", private_key("RS256")).jwk()]})
    keys: Any = _OneKey(other)
    assert isinstance(verifier._tokens._keys, KeyCache)
    verifier._tokens._keys = keys

    def check(data: bytes) -> None:
        try:
            run_sync(verifier.verify(data.decode("ascii", "replace").strip()))
        except SecurityEventRefused as error:
            must(error.__cause__ is None, "a refusal quotes")
            return
        raise Find("accepted a token that Google has not signed")

    return check


def _key_sets() -> list[bytes]:
    keys = [SigningKey(name, name, private_key(name)).jwk() for name in ("ES256", "EdDSA", "RS256")]
    samples: list[dict[str, Any]] = [{"keys": [key]} for key in keys]
    return [json.dumps(sample).encode() for sample in (*samples, {"keys": [{"kty": "oct"}, 5]})]


def _check_key_set(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    for key in read_keys(document):
        must(isinstance(key, VerificationKey), "no key")
        for algorithm in ("ES256", "RS256", "EdDSA", "PS512"):
            key.verify(_unsigned(algorithm))


def _unsigned(algorithm: str) -> UnverifiedJws:
    return UnverifiedJws(algorithm, None, None, b"{}", b"a.b", random.Random(1).randbytes(64))
