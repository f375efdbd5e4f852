"""Attacks with tokens made by PyJWT, and by hand where PyJWT refuses."""

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.probes import audited
from tests.support.security_events import everything, post, state
from tests.support.world import ADA, CLIENT_ID, World

OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
ACTIVE = [("user-1", "active", None, True)]
REVOKED = [("user-1", "reauthorization_required", "google_tokens_revoked", False)]


def subject(world: World) -> dict[str, Any]:
    sub = world.standin.account(ADA).sub
    return {"subject": {"subject_type": "iss-sub", "iss": world.standin.base_url + "/", "sub": sub}}


def claims(world: World, **changes: Any) -> dict[str, Any]:
    return {
        "iss": world.standin.base_url + "/",
        "aud": CLIENT_ID,
        "iat": int(world.clock.epoch()),
        "jti": uuid4().hex,
        "events": {OAUTH + "tokens-revoked": subject(world)},
        **changes,
    }


def key_of(world: World) -> rsa.RSAPrivateKey:
    pem = world.standin.state.keys.current.to_pem().encode()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def signed(world: World, payload: dict[str, Any], **header: Any) -> str:
    head = {"kid": world.standin.state.keys.current.kid, **header}
    return jwt.encode(payload, key_of(world), algorithm="RS256", headers=head)


def signed_by_hand(world: World, header: str, payload: str) -> str:
    """Sign raw texts that no library would produce; `KID` stands for the key's id."""
    header = header.replace("KID", world.standin.state.keys.current.kid)
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (header, payload)]
    signature = key_of(world).sign(b".".join(parts), padding.PKCS1v15(), hashes.SHA256())
    parts.append(base64.urlsafe_b64encode(signature).rstrip(b"="))
    return b".".join(parts).decode()


@pytest.mark.parametrize(
    ("typ", "reason"),
    [
        *((typ, "typ") for typ in ("at+jwt", "logout+jwt", "dpop+jwt", "JOSE", "")),
        (7, "malformed"),
        (["JWT"], "malformed"),
        ({}, "malformed"),
    ],
)
async def test_a_token_that_google_signed_for_another_purpose_is_refused(
    world: World, typ: Any, reason: str
) -> None:
    await world.connect()
    before = await everything(world)
    header = json.dumps({"alg": "RS256", "kid": "KID", "typ": typ})
    answer = await post(world, signed_by_hand(world, header, json.dumps(claims(world))))
    assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
    assert await everything(world) == before
    assert await audited(world, "security_event", f"refused:{reason}")


@pytest.mark.parametrize(
    "typ", ["JWT", "secevent+jwt", "application/secevent+jwt", "SECEVENT+JWT", None]
)
async def test_each_allowed_typ_is_accepted(world: World, typ: str | None) -> None:
    await world.connect()
    assert (await post(world, signed(world, claims(world), typ=typ))).status_code == 202
    assert await state(world) == REVOKED


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"crit": "typ"},
        {"crit": None},
    ],
)
async def test_unknown_critical_headers_are_refused(world: World, header: dict[str, Any]) -> None:
    await world.connect()
    full = json.dumps({"alg": "RS256", "kid": "KID", **header})
    answer = await post(world, signed_by_hand(world, full, json.dumps(claims(world))))
    assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
    assert await state(world) == ACTIVE


OWN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OWN_KEY.public_key()))},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://e.example"},
    ],
    ids=["jwk", "jku", "x5u"],
)
async def test_keys_embedded_in_a_token_are_not_used(world: World, header: dict[str, Any]) -> None:
    await world.connect()
    head = {"kid": world.standin.state.keys.current.kid, **header}
    token = jwt.encode(claims(world), OWN_KEY, algorithm="RS256", headers=head)
    answer = await post(world, token)
    assert answer.status_code == 400
    assert await state(world) == ACTIVE


AUDIENCES: dict[str, tuple[Any, int]] = {
    "only others": (["a.example", "b.example"], 400),
    "ours among others": (["a.example", CLIENT_ID, "b.example"], 202),
    "ours among invalid values": ([None, 7, {}, [CLIENT_ID], CLIENT_ID], 202),
    "ours nested": ([[CLIENT_ID]], 400),
    "ours with a space": (CLIENT_ID + " ", 400),
    "a part of ours": (CLIENT_ID[:-1], 400),
    "in capitals": (CLIENT_ID.upper(), 400),
    "a hundred others before": ([f"{n}.example" for n in range(100)] + [CLIENT_ID], 400),
}


@pytest.mark.parametrize(("aud", "status"), AUDIENCES.values(), ids=AUDIENCES.keys())
async def test_one_of_our_clients_must_be_in_the_audience(
    world: World, aud: Any, status: int
) -> None:
    await world.connect()
    header = '{"alg":"RS256","kid":"KID"}'
    payload = json.dumps(claims(world, aud=aud))
    assert (await post(world, signed_by_hand(world, header, payload))).status_code == status
    assert await state(world) == (REVOKED if status == 202 else ACTIVE)


HUGE: dict[str, tuple[str, Any]] = {
    "jti": ("jti", "x" * 12_000),
    "deep events": ("events", '{"urn:x":' * 900 + "{}" + "}" * 900),
    "deep subject": ("events", '{"URI":{"subject":' + "[" * 3000 + "]" * 3000 + "}}"),
    "number": ("iat", "1" * 5000),
    "exponent": ("iat", "1e400"),
    "jti of digits": ("jti", "9" * 4500),
}


@pytest.mark.parametrize(("name", "value"), HUGE.values(), ids=HUGE.keys())
async def test_huge_and_deeply_nested_tokens_are_harmless(
    world: World, name: str, value: Any
) -> None:
    await world.connect()
    payload = json.dumps(claims(world, **{name: "HERE"}))
    raw = value if name != "jti" or value.isdigit() else json.dumps(value)
    payload = payload.replace('"HERE"', raw.replace("URI", OAUTH + "tokens-revoked"))
    answer = await post(world, signed_by_hand(world, '{"alg":"RS256","kid":"KID"}', payload))
    assert answer.status_code in (202, 400, 413)
    assert await state(world) == ACTIVE


async def test_a_repeated_member_has_the_same_value_in_each_check(world: World) -> None:
    await world.connect()
    payload = json.dumps(claims(world))
    header = '{"alg":"none","kid":"KID","alg":"RS256","crit":["x"]}'
    assert (await post(world, signed_by_hand(world, header, payload))).status_code == 400
    twice = payload[:-1] + ',"aud":"another-client"}'
    answer = await post(world, signed_by_hand(world, '{"alg":"RS256","kid":"KID"}', twice))
    assert (answer.status_code, answer.json()["err"]) == (400, "invalid_audience")
    # The last one counts (RFC 7519 §4), for the check of the signature as for that of `alg`.
    last_is_none = '{"alg":"RS256","kid":"KID","alg":"none"}'
    assert (await post(world, signed_by_hand(world, last_is_none, payload))).status_code == 400
    assert await state(world) == ACTIVE


@pytest.mark.parametrize("ahead", [60, 590])
async def test_a_token_from_the_near_future_acts_once(world: World, ahead: int) -> None:
    await world.connect()
    token = signed(world, claims(world, iat=int(world.clock.epoch()) + ahead))
    assert (await post(world, token)).status_code == 202
    assert await state(world) == REVOKED
    world.clock.advance(timedelta(seconds=30))
    await world.connect()
    assert (await post(world, token)).status_code == 202
    assert await state(world) == ACTIVE


async def test_a_new_key_under_a_known_id_replaces_the_old_one(world: World) -> None:
    await world.connect()
    kid = world.standin.state.keys.current.kid
    old = key_of(world)
    assert (
        await post(world, signed(world, claims(world, events={"urn:x": {}})))
    ).status_code == 202
    world.standin.rotate_keys(keep_old=False)
    object.__setattr__(world.standin.state.keys.current, "kid", kid)
    world.clock.advance(timedelta(seconds=11))
    assert (await post(world, signed(world, claims(world)))).status_code == 202
    assert await state(world) == REVOKED
    await world.connect()
    stale = jwt.encode(claims(world), old, algorithm="RS256", headers={"kid": kid})
    assert (await post(world, stale)).status_code == 400
    assert await state(world) == ACTIVE


async def test_unknown_events_alone_are_accepted_without_effect(world: World) -> None:
    await world.connect()
    before = await world.sql("SELECT * FROM grants")
    events = {f"urn:example:{number}": subject(world) for number in range(16)}
    events[OAUTH + "tokens-revoked/"] = subject(world)
    del events["urn:example:0"]
    assert (await post(world, signed(world, claims(world, events=events)))).status_code == 202
    assert await world.sql("SELECT * FROM grants") == before
    assert await audited(world, "security_event", "unknown:not_understood", count=16)


async def test_each_of_several_events_in_a_token_has_its_effect(world: World) -> None:
    await world.connect()
    await world.connect("user-2", "grace@example.com")
    grace = {**subject(world)["subject"], "sub": world.standin.account("grace@example.com").sub}
    events = {
        "urn:example:unknown": {},
        OAUTH + "tokens-revoked": subject(world),
        RISC + "account-disabled": {"subject": grace, "reason": "bulk-account"},
        RISC + "sessions-revoked": {"subject": grace},
    }
    assert (await post(world, signed(world, claims(world, events=events)))).status_code == 202
    assert await state(world) == [
        *REVOKED,
        ("user-2", "reauthorization_required", "account_disabled", True),
    ]


async def test_many_tokens_with_one_jti_act_once(world: World) -> None:
    await world.connect()
    jti = uuid4().hex
    tokens = [
        signed(world, claims(world, jti=jti, events={RISC + event: subject(world)}))
        for event in ("sessions-revoked", "account-disabled", "account-enabled") * 4
    ]
    answers = await asyncio.gather(*(post(world, token) for token in tokens))
    assert {answer.status_code for answer in answers} == {202}
    assert len(await world.sql("SELECT 1 FROM security_event_tokens")) == 1
    effects = await world.sql(
        "SELECT 1 FROM audit_events WHERE action = 'security_event' AND outcome NOT LIKE $1",
        "%:duplicate",
    )
    assert len(effects) <= 1


@pytest.mark.parametrize("body", [b"junk", b"e" * 100_000, None], ids=["junk", "long", "aud"])
async def test_each_refusal_is_json_that_no_browser_renders_as_a_page(
    world: World, body: bytes | None
) -> None:
    answer = await post(world, body or signed(world, claims(world, aud="another")))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
