"""An issuer's keys over real HTTP: found, renewed, served on, given up; at a bounded rate."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.issuers.documents import IssuerDocuments
from broker.issuers.issuer_keys import (
    KEYS_AGE,
    RETRY_WITHOUT,
    STALE_AT_MOST,
    UNKNOWN_KEY_LOOKS,
    UNKNOWN_KEY_SPAN,
)
from broker.issuers.model import Issuer, IssuerUnavailable, JwtRefused
from broker.issuers.trusted import TrustedIssuers, VerifiedJwt
from broker.issuers.unverified import read_unverified
from broker.outbound.client import LONGEST_ANSWER, bounded_client
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
        trusted = TrustedIssuers(IssuerDocuments(http, metrics), clock, metrics)
        trusted.follow([Issuer(issuer.url)])
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
async def test_keys_are_taken_as_either_media_type(
    issuer: OidcIssuer, verify: Verify, media_type: str
) -> None:
    """The issuer refuses a request that does not accept what it has."""
    status, _, body = issuer.answer("/keys")
    issuer.answers["/keys"] = (status, {"Content-Type": media_type}, body)
    assert (await verify(issuer.mint())).claims["iss"] == issuer.url


async def test_many_at_once_share_one_look(issuer: OidcIssuer, verify: Verify) -> None:
    tokens = [issuer.mint(sub=str(number)) for number in range(50)]
    await asyncio.gather(*map(verify, tokens))
    assert issuer.requests == [_DISCOVERY, "/keys"]


async def test_who_goes_away_does_not_end_the_look_for_others(
    issuer: OidcIssuer, verify: Verify
) -> None:
    issuer.held.clear()
    first, second = (asyncio.ensure_future(verify(issuer.mint())) for _ in range(2))
    await eventually(_is_asked(issuer))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    issuer.held.set()
    assert (await second).claims["iss"] == issuer.url
    assert issuer.fetches() == 1


async def test_a_look_that_began_before_the_key_was_there_does_not_decide(
    issuer: OidcIssuer, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.held.clear()
    old, before = issuer.mint(), [issuer.answer(path) for path in (_DISCOVERY, "/keys")]
    answer = issuer.answer
    monkeypatch.setattr(issuer, "answer", lambda path: before.pop(0) if before else answer(path))
    first = asyncio.ensure_future(verify(old))
    await eventually(_is_asked(issuer))
    issuer.rotate()
    second = asyncio.ensure_future(verify(issuer.mint()))
    await asyncio.sleep(0)
    issuer.held.set()
    assert (await first).claims["iss"] == (await second).claims["iss"] == issuer.url
    assert issuer.fetches() == 2


async def test_a_new_key_is_found_when_it_is_used(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    await verify(issuer.mint())
    issuer.rotate(keep=True)
    clock.advance(UNKNOWN_KEY_SPAN)
    await verify(issuer.mint())
    assert issuer.fetches() == 2


async def test_a_new_key_counts_at_once_however_fresh_the_others_are(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    await trusted.round()
    for _ in range(UNKNOWN_KEY_LOOKS):
        issuer.rotate()
        await verify(issuer.mint())


async def test_unknown_key_ids_have_the_issuer_asked_seldom(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    await verify(issuer.mint())
    for spans in (1, 2):
        for number in range(200):
            token = issuer.mint(headers={"kid": f"random-{number}"})
            assert await refusal(verify(token)) == "unknown_key"
        assert issuer.fetches() == 1 + spans * UNKNOWN_KEY_LOOKS
        clock.advance(UNKNOWN_KEY_SPAN)


async def test_keys_are_looked_at_again_beforehand(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    await trusted.round()
    await trusted.round()
    assert issuer.fetches() == 1
    clock.advance(KEYS_AGE)
    await trusted.round()
    assert issuer.fetches() == 2
    await verify(issuer.mint())
    assert issuer.fetches() == 2


async def test_a_key_that_was_taken_out_is_no_longer_in_force(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    old = issuer.mint()
    verified = await verify(old)
    issuer.rotate()
    clock.advance(KEYS_AGE)
    await trusted.round()
    assert not verified.key.in_force
    assert await refusal(verify(old)) == "unknown_key"


async def test_a_key_that_stays_is_the_same_object(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    verified = await verify(issuer.mint())
    issuer.rotate(keep=True)
    clock.advance(KEYS_AGE)
    await trusted.round()
    assert verified.key.in_force
    assert (await verify(issuer.mint(key=issuer.keys[0]))).key is verified.key


async def test_another_key_under_the_same_id_is_another_key(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    old = issuer.mint()
    verified = await verify(old)
    kid = issuer.keys[0].kid
    fresh = issuer.rotate()
    issuer.keys = [type(fresh)(kid, fresh.algorithm, fresh.private)]
    clock.advance(KEYS_AGE)
    await trusted.round()
    assert not verified.key.in_force
    assert await refusal(verify(old)) == "signature"
    await verify(issuer.mint())


@pytest.mark.parametrize("kid", ["one for all", None])
async def test_a_key_by_the_name_of_another_counts_at_once(
    issuer: OidcIssuer, verify: Verify, kid: str | None
) -> None:
    issuer.keys = [replace(issuer.keys[0], kid="one for all")]
    old = issuer.mint(headers={"kid": kid})
    verified = await verify(old)
    issuer.keys = [replace(issuer.rotate(), kid="one for all")]
    fresh = await verify(issuer.mint(headers={"kid": kid}))
    assert (verified.key.in_force, fresh.key.in_force) == (False, True)
    assert await refusal(verify(old)) == "signature"


async def test_signatures_that_do_not_fit_have_the_issuer_asked_seldom(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    head, _, _ = issuer.mint().rpartition(".")
    for spans in (1, 2):
        for _ in range(50):
            assert await refusal(verify(f"{head}.{'A' * 342}")) == "signature"
        assert issuer.fetches() == 1 + spans * UNKNOWN_KEY_LOOKS
        clock.advance(UNKNOWN_KEY_SPAN)


async def test_a_signature_that_does_not_fit_is_refused_though_the_issuer_is_away(
    issuer: OidcIssuer, verify: Verify
) -> None:
    good = issuer.mint()
    await verify(good)
    issuer.break_down()
    head, _, _ = good.rpartition(".")
    assert await refusal(verify(f"{head}.{'A' * 342}")) == "signature"
    await verify(good)


async def test_keys_serve_on_while_the_issuer_is_away_but_not_for_ever(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    verified = await verify(issuer.mint())
    issuer.break_down()
    clock.advance(STALE_AT_MOST - timedelta(seconds=1))
    await trusted.round()
    await verify(issuer.mint())
    assert verified.key.in_force
    clock.advance(timedelta(seconds=2))
    assert await absence(verify(issuer.mint())) == "http_503"
    assert not verified.key.in_force


async def test_an_issuer_that_was_never_there_is_asked_again_soon(
    issuer: OidcIssuer, verify: Verify, clock: ManualClock
) -> None:
    issuer.break_down()
    for _ in range(20):
        assert await absence(verify(issuer.mint())) == "http_503"
    assert issuer.requests == [_DISCOVERY]
    issuer.answers.clear()
    clock.advance(RETRY_WITHOUT)
    await verify(issuer.mint())


async def test_a_new_key_while_the_issuer_is_away_is_nobodys_fault(
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


async def test_an_issuer_that_takes_all_keys_out_is_believed(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    verified = await verify(issuer.mint())
    issuer.answers["/keys"] = (200, {}, b'{"keys": []}')
    clock.advance(KEYS_AGE)
    await trusted.round()
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
        lambda issuer: issuer.answers.update({"/keys": (200, {}, b" " * (LONGEST_ANSWER + 1))}),
    ),
    ("other_issuer", lambda issuer: issuer.discovery.update(issuer=issuer.url + "/")),
    ("other_issuer", lambda issuer: issuer.discovery.update(issuer=None)),
    ("bad_discovery", lambda issuer: issuer.discovery.update(jwks_uri=None)),
    ("bad_discovery", lambda issuer: issuer.discovery.update(jwks_uri="http://keys.example/")),
    ("bad_discovery", lambda issuer: issuer.discovery.update(jwks_uri="file:///etc/passwd")),
    ("connect", lambda issuer: issuer.discovery.update(jwks_uri="http://127.0.0.1:1/keys")),
]


@pytest.mark.parametrize(("reason", "spoil"), BAD_ANSWERS)
async def test_an_answer_that_is_not_as_it_should_be_yields_no_key(
    issuer: OidcIssuer, verify: Verify, reason: str, spoil: Callable[[OidcIssuer], Any]
) -> None:
    spoil(issuer)
    assert await absence(verify(issuer.mint())) == reason
    assert "/elsewhere" not in issuer.requests


async def test_an_issuer_that_hangs_is_given_up(
    issuer: OidcIssuer, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.issuers.documents.DEADLINE", timedelta(milliseconds=200))
    issuer.held.clear()
    assert await absence(verify(issuer.mint())) == "timeout"


async def test_a_configured_key_url_makes_discovery_needless(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    trusted.follow([Issuer(issuer.url, jwks_url=issuer.jwks_url)])
    await verify(issuer.mint())
    assert issuer.requests == ["/keys"]


async def test_only_the_listed_algorithms_count(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    trusted.follow([Issuer(issuer.url, algorithms=("ES256",))])
    assert await refusal(verify(issuer.mint())) == "algorithm"
    assert issuer.requests == []


async def test_what_is_expired_costs_the_issuer_nothing(issuer: OidcIssuer, verify: Verify) -> None:
    assert await refusal(verify(issuer.mint(exp=1))) == "expired"
    assert issuer.requests == []


async def test_a_bearer_token_is_read_anew_and_shown_to_the_issuer_only(
    issuer: OidcIssuer,
    trusted: TrustedIssuers,
    verify: Verify,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    trusted.follow([Issuer(issuer.url, token_file=str(file))])
    await verify(issuer.mint())
    file.write_text("second")
    clock.advance(KEYS_AGE)
    await trusted.round()
    assert issuer.authorizations == ["Bearer first"] * 2 + ["Bearer second"] * 2
    with oidc_issuer(clock) as elsewhere:
        elsewhere.keys = issuer.keys
        issuer.discovery["jwks_uri"] = elsewhere.jwks_url
        clock.advance(KEYS_AGE)
        await trusted.round()
        assert elsewhere.authorizations == [None]
    await trusted.ping()


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff\xfe", b"line\nline"])
async def test_a_bearer_token_that_cannot_be_read_is_told(
    issuer: OidcIssuer,
    trusted: TrustedIssuers,
    verify: Verify,
    tmp_path: Path,
    content: bytes | None,
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    trusted.follow([Issuer(issuer.url, token_file=str(file))])
    assert await absence(verify(issuer.mint())) == "token_file"


async def test_an_issuer_is_recognised_by_the_certificates_in_its_file(
    clock: ManualClock, trusted: TrustedIssuers, verify: Verify, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    with oidc_issuer(clock, certificate=certificate) as issuer:
        trusted.follow([Issuer(issuer.url)])
        assert await absence(verify(issuer.mint())) == "connect"
        assert issuer.requests == []
        trusted.follow([Issuer(issuer.url, ca_file=str(certificate[0]))])
        await verify(issuer.mint())
        assert issuer.fetches() == 1


async def test_certificates_that_cannot_be_read_are_told(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, tmp_path: Path
) -> None:
    trusted.follow([Issuer(issuer.url, ca_file=str(tmp_path / "ca.crt"))])
    assert await absence(verify(issuer.mint())) == "ca_file"


async def test_an_issuer_that_is_no_longer_trusted_is_forgotten(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    verified = await verify(issuer.mint())
    in_force = []
    for issuers in ([Issuer(issuer.url)], [Issuer(issuer.url, algorithms=("RS256",))], []):
        trusted.follow(issuers)
        in_force.append(verified.key.in_force)
    assert in_force == [True, False, False]
    assert await refusal(verify(issuer.mint())) == "issuer"


async def test_a_look_that_ends_too_late_brings_nothing_into_force(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify
) -> None:
    issuer.held.clear()
    asked = asyncio.ensure_future(verify(issuer.mint()))
    await eventually(_is_asked(issuer))
    trusted.follow([])
    issuer.held.set()
    assert not (await asked).key.in_force


async def test_looks_are_counted_and_the_gauge_tells(
    issuer: OidcIssuer,
    trusted: TrustedIssuers,
    metrics: Metrics,
    clock: ManualClock,
) -> None:
    def sample(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"issuer": issuer.url, **labels})

    await trusted.round()
    assert sample("broker_issuer_up") == 1
    issuer.break_down()
    clock.advance(KEYS_AGE)
    await trusted.round()
    assert sample("broker_issuer_up") == 0
    assert sample("broker_issuer_requests_total", outcome="ok") == 1
    assert sample("broker_issuer_requests_total", outcome="http_503") == 1
    trusted.follow([])
    assert sample("broker_issuer_up") is None


async def test_a_key_set_with_strange_company_is_read_all_the_same(
    issuer: OidcIssuer, verify: Verify
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
    for kid in ("enc", "ops", "alg"):
        assert await refusal(verify(issuer.mint(headers={"kid": kid}))) == "unknown_key"


async def test_a_jwt_without_a_key_id_means_the_only_key_that_fits(
    issuer: OidcIssuer, trusted: TrustedIssuers, verify: Verify, clock: ManualClock
) -> None:
    issuer.rotate("ES256", keep=True)
    token = issuer.mint(headers={"kid": None})
    await verify(token)
    issuer.rotate("ES256", keep=True)
    clock.advance(KEYS_AGE)
    await trusted.round()
    assert await refusal(verify(token)) == "unknown_key"


def test_the_answers_of_the_tests_issuer_are_json(issuer: OidcIssuer) -> None:
    assert json.loads(issuer.answer("/keys")[2])["keys"][0]["kty"] == "RSA"
