"""The check of Google's security events, with tokens made without the stand-in's code."""

import base64
import hashlib
import json
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.probes import assert_hidden, audited, everything_stored
from tests.support.world import ADA, CLIENT_ID, World

TOKENS_REVOKED = "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked"
TOKEN_REVOKED = "https://schemas.openid.net/secevent/oauth/event-type/token-revoked"


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def googles_key(world: World) -> rsa.RSAPrivateKey:
    pem = world.standin.state.keys.current.to_pem()
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def signed(
    world: World,
    claims: dict[str, Any],
    *,
    key: rsa.RSAPrivateKey | None = None,
    header: dict[str, Any] | None = None,
) -> str:
    head = {"alg": "RS256", "kid": world.standin.state.keys.current.kid} | (header or {})
    text = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
    signature = (key or googles_key(world)).sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{encoded(signature)}"


def claims(world: World, event: str = TOKENS_REVOKED, **changes: Any) -> dict[str, Any]:
    issuer = world.standin.base_url + "/"
    subject = {"subject_type": "iss-sub", "iss": issuer, "sub": world.standin.account(ADA).sub}
    return {
        "iss": issuer,
        "aud": CLIENT_ID,
        "iat": int(world.clock.epoch()),
        "jti": uuid4().hex,
        "events": {event: {"subject": subject}},
        **changes,
    }


async def post(world: World, token: str) -> httpx2.Response:
    headers = {"Content-Type": "application/secevent+jwt"}
    return await world.public.post("/auth/google/risc", content=token, headers=headers)


async def statuses(world: World) -> list[str]:
    return [row[0] for row in await world.sql("SELECT status FROM grants ORDER BY user_id")]


async def refused(world: World, token: str, error: str) -> None:
    what_matters = "SELECT status, version, sealed_refresh_token FROM grants"
    before = await world.sql(what_matters)
    answer = await post(world, token)
    assert (answer.status_code, answer.json()["err"]) == (400, error)
    assert await world.sql(what_matters) == before
    assert (await world.token()).status_code == 200


async def test_check_40_a_bad_signature_aud_or_iss_is_refused_without_effect(
    world: World,
) -> None:
    await world.connect()
    foreign_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = claims(world)
    await refused(world, signed(world, good, key=foreign_key), "authentication_failed")
    await refused(world, signed(world, good)[:-8] + "AAAAAAAA", "authentication_failed")
    await refused(world, signed(world, good, header={"kid": "unknown"}), "invalid_key")
    await refused(world, signed(world, claims(world, aud="another")), "invalid_audience")
    await refused(world, signed(world, claims(world, iss="https://evil.example")), "invalid_issuer")
    assert len(await audited(world, "security_event", "refused:bad_signature", count=2)) == 2
    # The same token, unchanged, is applied: nothing of the refused ones was stored.
    assert (await post(world, signed(world, good))).status_code == 202
    assert await statuses(world) == ["reauthorization_required"]


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "RS512"}, {"crit": ["b64"]}])
async def test_check_40_no_other_signature_is_accepted(
    world: World, header: dict[str, Any]
) -> None:
    await world.connect()
    token = signed(world, claims(world), header=header)
    assert (await post(world, token)).status_code == 400
    assert (await post(world, token.rpartition(".")[0] + ".")).status_code == 400
    assert await statuses(world) == ["active"]


async def test_check_40_a_duplicate_jti_acts_once(world: World) -> None:
    await world.connect()
    token = signed(world, claims(world))
    assert (await post(world, token)).status_code == 202
    await world.connect()
    for again in (token, signed(world, claims(world, jti=json_of(token)["jti"]))):
        assert (await post(world, again)).status_code == 202
    assert await statuses(world) == ["active"]
    assert len(await audited(world, "security_event", "tokens-revoked:erased")) == 1


@pytest.mark.parametrize("by", ["prefix", "hash_base64_sha512_sha512"])
async def test_check_40_token_revoked_by_prefix_and_by_hash_find_the_grant(
    world: World, by: str
) -> None:
    await world.connect("named")
    token = world.standin.issued.refresh_tokens[-1]
    await world.connect("other")
    twice = hashlib.sha512(hashlib.sha512(token.encode()).digest()).digest()
    subject = {
        "subject_type": "oauth_token",
        "token_type": "refresh_token",
        "token_identifier_alg": by,
        "token": token[:16] if by == "prefix" else base64.b64encode(twice).decode(),
    }
    event = claims(world, events={TOKEN_REVOKED: {"subject": subject}})
    assert (await post(world, signed(world, event))).status_code == 202
    assert await statuses(world) == ["reauthorization_required", "active"]
    (row,) = await world.sql("SELECT sealed_refresh_token FROM grants WHERE user_id = 'named'")
    assert row[0] is None
    assert (await world.token("named")).json()["code"] == "reauthorization_required"
    assert (await world.token("other")).status_code == 200


async def test_check_40_the_stored_fingerprints_reveal_no_token(world: World) -> None:
    await world.connect()
    token = world.standin.issued.refresh_tokens[-1]
    twice = hashlib.sha512(hashlib.sha512(token.encode()).digest()).digest()
    stored = await everything_stored(world)
    assert_hidden(token[:16], stored)
    assert twice.hex() not in stored
    assert base64.b64encode(twice).decode() not in stored


def json_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    document: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return document
