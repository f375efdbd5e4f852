"""An issuer's keys over real HTTP: fetched, refreshed, kept during an outage, at a bounded rate."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.issuers.key_set_client import KeySetClient
from broker.issuers.model import Issuer, IssuerUnavailable, JwtRefused
from broker.issuers.trusted import (
    KEYS_AGE,
    STALE_AT_MOST,
    UNKNOWN_KEY_FETCHES,
    UNKNOWN_KEY_SPAN,
    TrustedIssuers,
    VerifiedJwt,
)
from broker.issuers.unverified_jwt import read_unverified
from broker.outbound.cached_fetch import RETRY_WITHOUT
from broker.outbound.http_client import LONGEST_RESPONSE, bounded_client
from broker.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer, oidc_issuer, self_signed
from tests.support.waiting import eventually

Verify = Callable[[str], Awaitable[VerifiedJwt]]
_DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def trusted(
    issuer: OidcIssuer, clock: ManualClock, metrics: Metrics
) -> AsyncIterator[TrustedIssuers]:
    async with bounded_client() as http:
        trusted = TrustedIssuers(KeySetClient(http, metrics), clock, metrics)
        trusted.configure([Issuer(issuer.url)])
        yield trusted
        await trusted.aclose()


@pytest.fixture
def verify(trusted: TrustedIssuers) -> Verify:
    async def verified(token: str) -> VerifiedJwt:
        return await trusted.verify(read_unverified(token.encode(), at_most=16_384))

    return verified


async def refusal(verified: Awaitable[VerifiedJwt]) -> str:
    with pytest.raises(JwtRefused) as caught:
        await verified
    return caught.value.reason


async def absence(verified: Awaitable[VerifiedJwt]) -> str:
    with pytest.raises(IssuerUnavailable) as caught:
        await verified
    return caught.value.reason


def _is_asked(issuer: OidcIssuer) -> Callable[[], Awaitable[bool]]:
    async def is_asked() -> bool:
        return bool(issuer.requests)

    return is_asked


@pytest.mark.parametrize("media_type", ["application/jwk-set+json", "application/json"])
async def test_keys_are_accepted_with_either_media_type(
    issuer: OidcIssuer, verify: Verify, media_type: str
) -> None:
    """The issuer answers 406 to a request that does not accept its media type."""
    status, _, body = issuer.answer("/keys")
    issuer.answers["/keys"] = (status, {"Content-Type": media_type}, body)
    assert (await verify(issuer.mint())).claims["iss"] == issuer.url


async def test_concurrent_verifications_share_one_fetch(issuer: OidcIssuer, verify: Verify) -> None:
    tokens = [issuer.mint(sub=str(number)) for number in range(50)]
    await asyncio.gather(*map(verify, tokens))
    assert issuer.requests == [_DISCOVERY, "/keys"]


async def test_a_cancelled_caller_does_not_cancel_the_fetch_of_the_others(
    issuer: OidcIssuer, verify: Verify
) -> None:
    issuer.may_answer.clear()
    first, second = (asyncio.ensure_future(verify(issuer.mint())) for _ in range(2))
    await eventually(_is_asked(issuer))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    issuer.may_answer.set()
    assert (await second).claims["iss"] == issuer.url
    assert issuer.fetches() == 1


async def test_a_fetch_that_began_before_the_key_was_published_does_not_decide(
    issuer: OidcIssuer, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.may_answer.clear()
    old, before = issuer.mint(), [issuer.answer(path) for path in (_DISCOVERY, "/keys")]
    answer = issuer.answer
    monkeypatch.setattr(issuer, "answer", lambda path: before.pop(0) if before else answer(path))
    first = asyncio.ensure_future(verify(old))
    await eventually(_is_asked(issuer))
    issuer.rotate()
    second = asyncio.ensure_future(verify(issuer.mint()))
    await asyncio.sleep(0)
    issuer.may_answer.set()
    assert (await first).claims["iss"] == (await second).claims["iss"] == issuer.url
    assert issuer.fetches() == 2


async def test_a_new_key_is_fetched_when_it_is_used(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    await verify(issuer.mint())
    issuer.rotate(keep=True)
    clock.advance(UNKNOWN_KEY_SPAN)
    await verify(issuer.mint())
    assert issuer.fetches() == 2


async def test_a_new_key_is_accepted_immediately_however_young_the_others_are(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    await trusted.refresh_keys()
    for _ in range(UNKNOWN_KEY_FETCHES):
        issuer.rotate()
        await verify(issuer.mint())


async def test_unknown_key_ids_cause_a_bounded_number_of_fetches(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    await verify(issuer.mint())
    for spans in (1, 2):
        for number in range(200):
            token = issuer.mint(headers={"kid": f"random-{number}"})
            assert await refusal(verify(token)) == "unknown_key"
        assert issuer.fetches() == 1 + spans * UNKNOWN_KEY_FETCHES
        clock.advance(UNKNOWN_KEY_SPAN)


async def test_keys_are_fetched_again_before_they_are_needed(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    await trusted.refresh_keys()
    await trusted.refresh_keys()
    assert issuer.fetches() == 1
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert issuer.fetches() == 2
    await verify(issuer.mint())
    assert issuer.fetches() == 2


async def test_a_removed_key_is_no_longer_in_force(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    old = issuer.mint()
    verified = await verify(old)
    issuer.rotate()
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert not verified.key.in_force
    assert await refusal(verify(old)) == "unknown_key"


async def test_an_unchanged_key_stays_the_same_object(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    verified = await verify(issuer.mint())
    issuer.rotate(keep=True)
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert verified.key.in_force
    assert (await verify(issuer.mint(key=issuer.keys[0]))).key is verified.key


async def test_a_new_key_with_the_same_id_replaces_the_old_one(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    old = issuer.mint()
    verified = await verify(old)
    kid = issuer.keys[0].kid
    fresh = issuer.rotate()
    issuer.keys = [type(fresh)(kid, fresh.algorithm, fresh.private)]
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert not verified.key.in_force
    assert await refusal(verify(old)) == "signature"
    await verify(issuer.mint())


@pytest.mark.parametrize("kid", ["one for all", None])
async def test_a_new_key_with_a_known_id_is_accepted_immediately(
    issuer: OidcIssuer, verify: Verify, kid: str | None
) -> None:
    issuer.keys = [replace(issuer.keys[0], kid="one for all")]
    old = issuer.mint(headers={"kid": kid})
    verified = await verify(old)
    issuer.keys = [replace(issuer.rotate(), kid="one for all")]
    fresh = await verify(issuer.mint(headers={"kid": kid}))
    assert (verified.key.in_force, fresh.key.in_force) == (False, True)
    assert await refusal(verify(old)) == "signature"


async def test_bad_signatures_cause_a_bounded_number_of_fetches(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    head, _, _ = issuer.mint().rpartition(".")
    for spans in (1, 2):
        for _ in range(50):
            assert await refusal(verify(f"{head}.{'A' * 342}")) == "signature"
        assert issuer.fetches() == 1 + spans * UNKNOWN_KEY_FETCHES
        clock.advance(UNKNOWN_KEY_SPAN)


async def test_a_bad_signature_is_refused_also_while_the_issuer_is_unavailable(
    issuer: OidcIssuer, verify: Verify
) -> None:
    good = issuer.mint()
    await verify(good)
    issuer.break_down()
    head, _, _ = good.rpartition(".")
    assert await refusal(verify(f"{head}.{'A' * 342}")) == "signature"
    await verify(good)


async def test_cached_keys_stay_in_use_during_an_outage_for_a_bounded_time(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    verified = await verify(issuer.mint())
    issuer.break_down()
    clock.advance(STALE_AT_MOST - timedelta(seconds=1))
    await trusted.refresh_keys()
    await verify(issuer.mint())
    assert verified.key.in_force
    clock.advance(timedelta(seconds=2))
    assert await absence(verify(issuer.mint())) == "http_503"
    assert not verified.key.in_force


async def test_keys_that_were_never_fetched_are_retried_soon(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    issuer.break_down()
    for _ in range(20):
        assert await absence(verify(issuer.mint())) == "http_503"
    assert issuer.requests == [_DISCOVERY]
    issuer.answers.clear()
    clock.advance(RETRY_WITHOUT)
    await verify(issuer.mint())


async def test_a_new_key_during_an_outage_is_unavailability(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    await verify(issuer.mint())
    issuer.break_down()
    issuer.rotate(keep=True)
    clock.advance(UNKNOWN_KEY_SPAN)
    assert await absence(verify(issuer.mint())) == "http_503"
    with pytest.raises(IssuerUnavailable):
        await trusted.ping()
    issuer.answers.clear()
    clock.advance(UNKNOWN_KEY_SPAN)
    await verify(issuer.mint())
    await trusted.ping()


async def test_an_empty_key_set_removes_all_keys(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    verified = await verify(issuer.mint())
    issuer.answers["/keys"] = (200, {}, b'{"keys": []}')
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert not verified.key.in_force
    assert await absence(verify(issuer.mint())) == "no_usable_key"


def _redirect(issuer: OidcIssuer) -> None:
    issuer.answers["/keys"] = (302, {"Location": "/elsewhere"}, b"")
    issuer.answers["/elsewhere"] = issuer.answer("/keys")


BAD_ANSWERS: list[tuple[str, Callable[[OidcIssuer], Any]]] = [
    ("http_302", _redirect),
    ("http_404", lambda issuer: issuer.answers.update({"/keys": (404, {}, b"")})),
    ("bad_answer", lambda issuer: issuer.answers.update({"/keys": (200, {}, b"<html>")})),
    ("bad_answer", lambda issuer: issuer.answers.update({"/keys": (200, {}, b"[]")})),
    (
        "bad_answer",
        lambda issuer: issuer.answers.update({"/keys": (200, {}, b'{"keys":[],"keys":[]}')}),
    ),
    ("bad_answer", lambda issuer: issuer.answers.update({"/keys": (200, {}, b"[" * 100_000)})),
    ("bad_jwks", lambda issuer: issuer.answers.update({"/keys": (200, {}, b'{"keys":{}}')})),
    (
        "too_long",
        lambda issuer: issuer.answers.update({"/keys": (200, {}, b" " * (LONGEST_RESPONSE + 1))}),
    ),
    ("other_issuer", lambda issuer: issuer.discovery.update(issuer=issuer.url + "/")),
    ("other_issuer", lambda issuer: issuer.discovery.update(issuer=None)),
    ("bad_discovery", lambda issuer: issuer.discovery.update(jwks_uri=None)),
    ("bad_discovery", lambda issuer: issuer.discovery.update(jwks_uri="http://keys.example/")),
    ("bad_discovery", lambda issuer: issuer.discovery.update(jwks_uri="file:///etc/passwd")),
    ("connect", lambda issuer: issuer.discovery.update(jwks_uri="http://127.0.0.1:1/keys")),
]


@pytest.mark.parametrize(("reason", "spoil"), BAD_ANSWERS)
async def test_an_invalid_response_yields_no_key(
    issuer: OidcIssuer, verify: Verify, reason: str, spoil: Callable[[OidcIssuer], Any]
) -> None:
    spoil(issuer)
    assert await absence(verify(issuer.mint())) == reason
    assert "/elsewhere" not in issuer.requests


async def test_a_fetch_ends_at_its_deadline(
    issuer: OidcIssuer, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.issuers.key_set_client.DEADLINE", timedelta(milliseconds=200))
    issuer.may_answer.clear()
    assert await absence(verify(issuer.mint())) == "timeout"


async def test_a_configured_key_url_replaces_discovery(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    trusted.configure([Issuer(issuer.url, jwks_url=issuer.jwks_url)])
    await verify(issuer.mint())
    assert issuer.requests == ["/keys"]


async def test_only_the_configured_algorithms_are_accepted(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    trusted.configure([Issuer(issuer.url, algorithms=("ES256",))])
    assert await refusal(verify(issuer.mint())) == "algorithm"
    assert issuer.requests == []


async def test_an_expired_jwt_causes_no_fetch(issuer: OidcIssuer, verify: Verify) -> None:
    assert await refusal(verify(issuer.mint(exp=1))) == "expired"
    assert issuer.requests == []


async def test_a_bearer_token_is_read_each_time_and_sent_to_the_issuer_only(
    issuer: OidcIssuer,
    trusted: TrustedIssuers,
    verify: Verify,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    trusted.configure([Issuer(issuer.url, token_file=str(file))])
    await verify(issuer.mint())
    file.write_text("second")
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert issuer.authorizations == ["Bearer first"] * 2 + ["Bearer second"] * 2
    with oidc_issuer(clock) as elsewhere:
        elsewhere.keys = issuer.keys
        issuer.discovery["jwks_uri"] = elsewhere.jwks_url
        clock.advance(KEYS_AGE)
        await trusted.refresh_keys()
        assert elsewhere.authorizations == [None]
    await trusted.ping()


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff\xfe", b"line\nline"])
async def test_an_unreadable_bearer_token_is_reported(
    issuer: OidcIssuer,
    trusted: TrustedIssuers,
    verify: Verify,
    tmp_path: Path,
    content: bytes | None,
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    trusted.configure([Issuer(issuer.url, token_file=str(file))])
    assert await absence(verify(issuer.mint())) == "token_file"


async def test_an_issuer_is_verified_with_the_certificates_of_its_file(
    clock: ManualClock, trusted: TrustedIssuers, verify: Verify, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    with oidc_issuer(clock, certificate=certificate) as issuer:
        trusted.configure([Issuer(issuer.url)])
        assert await absence(verify(issuer.mint())) == "connect"
        assert issuer.requests == []
        trusted.configure([Issuer(issuer.url, ca_file=str(certificate[0]))])
        await verify(issuer.mint())
        assert issuer.fetches() == 1


async def test_unreadable_certificates_are_reported(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, tmp_path: Path
) -> None:
    trusted.configure([Issuer(issuer.url, ca_file=str(tmp_path / "ca.crt"))])
    assert await absence(verify(issuer.mint())) == "ca_file"


async def test_a_removed_issuer_is_no_longer_trusted(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    verified = await verify(issuer.mint())
    in_force = []
    for issuers in ([Issuer(issuer.url)], [Issuer(issuer.url, algorithms=("RS256",))], []):
        trusted.configure(issuers)
        in_force.append(verified.key.in_force)
    assert in_force == [True, False, False]
    assert await refusal(verify(issuer.mint())) == "issuer"


async def test_a_fetch_that_ends_after_the_removal_brings_no_key_into_force(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    issuer.may_answer.clear()
    asked = asyncio.ensure_future(verify(issuer.mint()))
    await eventually(_is_asked(issuer))
    trusted.configure([])
    issuer.may_answer.set()
    assert not (await asked).key.in_force


async def test_fetches_are_counted_and_the_gauge_shows_availability(
    issuer: OidcIssuer,
    trusted: TrustedIssuers,
    metrics: Metrics,
    clock: ManualClock,
) -> None:
    def sample(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"issuer": issuer.url, **labels})

    await trusted.refresh_keys()
    assert sample("broker_issuer_up") == 1
    issuer.break_down()
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert sample("broker_issuer_up") == 0
    assert sample("broker_issuer_requests_total", outcome="ok") == 1
    assert sample("broker_issuer_requests_total", outcome="http_503") == 1
    trusted.configure([])
    assert sample("broker_issuer_up") is None


@pytest.mark.parametrize("kid", ["enc", "ops", "alg"])
async def test_unusable_keys_of_a_set_are_ignored(
    issuer: OidcIssuer, verify: Verify, kid: str
) -> None:
    good = issuer.keys[0].jwk()
    issuer.extra_jwks = [
        {"kty": "quantum"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 1, "e": 2},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "off the curve"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": good["n"][:43]},
        {**good, "kid": 5},
        {**good, "kid": "enc", "use": "enc"},
        {**good, "kid": "ops", "key_ops": ["encrypt"]},
        {**good, "kid": "alg", "alg": "RSA-OAEP"},
    ]
    await verify(issuer.mint())
    assert await refusal(verify(issuer.mint(headers={"kid": kid}))) == "unknown_key"


async def test_a_jwt_without_key_id_is_verified_with_the_only_fitting_key(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    issuer.rotate("ES256", keep=True)
    token = issuer.mint(headers={"kid": None})
    await verify(token)
    issuer.rotate("ES256", keep=True)
    clock.advance(KEYS_AGE)
    await trusted.refresh_keys()
    assert await refusal(verify(token)) == "unknown_key"


def test_the_test_issuer_publishes_an_rsa_key(issuer: OidcIssuer) -> None:
    assert json.loads(issuer.answer("/keys")[2])["keys"][0]["kty"] == "RSA"
