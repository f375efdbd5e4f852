"""An ID token is accepted only after every check; each test breaks one."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from joserfc import jws, jwt
from joserfc.jwk import RSAKey

from broker.google.errors import GoogleUnavailable, IdTokenRefused
from broker.google.id_tokens import Identity
from broker.secret import Secret
from tests.google.scripted_google import DOCUMENT, ScriptedGoogle

CLIENT_ID = "client-id"
NONCE = "n-0S6_WzA2Mj"
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "two", "use": "sig", "alg": "RS256"})
HEADER = {"alg": "RS256", "kid": "one", "typ": "JWT"}

Sign = Callable[..., Secret]


def _jwks(*keys: RSAKey, **changes: Any) -> httpx2.Response:
    entries = [key.as_dict(private=False) | changes for key in keys]
    return httpx2.Response(
        200, json={"keys": [{n: v for n, v in e.items() if v is not ...} for e in entries]}
    )


@pytest.fixture
def google(google: ScriptedGoogle) -> ScriptedGoogle:
    google.answers["/jwks"] = _jwks(KEY)
    return google


@pytest.fixture
def claims(google: ScriptedGoogle) -> dict[str, Any]:
    now = int(google.clock.epoch())
    return {
        "iss": "https://accounts.google.com",
        "aud": CLIENT_ID,
        "azp": CLIENT_ID,
        "sub": "110169484474386276334",
        "email": "ada@example.com",
        "email_verified": True,
        "hd": "example.com",
        "iat": now,
        "exp": now + 3600,
        "nonce": NONCE,
    }


@pytest.fixture
def sign(claims: dict[str, Any]) -> Sign:
    """Return a token with the given claims changed; `...` removes one."""

    def make(header: dict[str, Any] | None = None, key: RSAKey = KEY, **changes: object) -> Secret:
        changed = {name: v for name, v in (claims | changes).items() if v is not ...}
        registry = jws.JWSRegistry(algorithms=["RS256"], strict_check_header=False)
        return Secret(
            jwt.encode(HEADER if header is None else header, changed, key, None, registry)
        )

    return make


async def _verify(google: ScriptedGoogle, token: Secret, **changes: Any) -> Identity:
    expected: dict[str, Any] = {"client_id": CLIENT_ID, "nonce": NONCE} | changes
    return await google.verifier.verify(token, **expected)


async def _refusal(google: ScriptedGoogle, token: Secret, **changes: Any) -> str:
    with pytest.raises(IdTokenRefused) as caught:
        await _verify(google, token, **changes)
    return caught.value.reason


async def test_a_good_token_proves_an_identity(google: ScriptedGoogle, sign: Sign) -> None:
    assert await _verify(google, sign()) == Identity(
        sub="110169484474386276334",
        email="ada@example.com",
        email_verified=True,
        hosted_domain="example.com",
    )


@pytest.mark.parametrize("iss", ["https://accounts.google.com", "accounts.google.com"])
async def test_google_may_use_either_of_its_issuer_names(
    google: ScriptedGoogle, sign: Sign, iss: str
) -> None:
    assert (await _verify(google, sign(iss=iss))).sub


@pytest.mark.parametrize("verified", [False, ..., None, "false", 1.5, "yes"])
async def test_an_email_is_verified_only_if_google_says_so(
    google: ScriptedGoogle, sign: Sign, verified: object
) -> None:
    assert not (await _verify(google, sign(email_verified=verified))).email_verified


async def test_a_private_account_has_no_domain(google: ScriptedGoogle, sign: Sign) -> None:
    assert (await _verify(google, sign(hd=...))).hosted_domain is None


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat", "sub", "nonce", "email"])
@pytest.mark.parametrize("value", [..., None, "", True, [], {}, ["a", 1]])
async def test_a_missing_or_malformed_claim_is_refused(
    google: ScriptedGoogle, sign: Sign, claim: str, value: object
) -> None:
    assert await _refusal(google, sign(**{claim: value})) == claim


@pytest.mark.parametrize(
    "iss",
    [
        "https://evil.test",
        "https://accounts.google.com/",
        "http://accounts.google.com",
        ["https://accounts.google.com"],
    ],
)
async def test_another_issuer_is_refused(google: ScriptedGoogle, sign: Sign, iss: object) -> None:
    assert await _refusal(google, sign(iss=iss)) == "iss"


@pytest.mark.parametrize("aud", ["other-client", ["other-client"], "client-id-2", "CLIENT-ID"])
async def test_a_token_for_another_client_is_refused(
    google: ScriptedGoogle, sign: Sign, aud: object
) -> None:
    assert await _refusal(google, sign(aud=aud)) == "aud"


async def test_several_audiences_need_an_authorized_party(
    google: ScriptedGoogle, sign: Sign
) -> None:
    assert await _refusal(google, sign(aud=[CLIENT_ID, "other"], azp=...)) == "azp"


async def test_several_audiences_with_this_client_as_authorized_party_are_accepted(
    google: ScriptedGoogle, sign: Sign
) -> None:
    assert (await _verify(google, sign(aud=[CLIENT_ID, "other"]))).sub


@pytest.mark.parametrize("aud", [CLIENT_ID, [CLIENT_ID], [CLIENT_ID, "other"]])
@pytest.mark.parametrize("azp", ["other", None, "", [CLIENT_ID]])
async def test_another_authorized_party_is_refused(
    google: ScriptedGoogle, sign: Sign, aud: object, azp: object
) -> None:
    assert await _refusal(google, sign(aud=aud, azp=azp)) == "azp"


async def test_a_token_may_omit_the_authorized_party(google: ScriptedGoogle, sign: Sign) -> None:
    assert (await _verify(google, sign(azp=...))).sub


async def test_a_token_is_valid_until_it_expires(
    google: ScriptedGoogle, sign: Sign, claims: dict[str, Any]
) -> None:
    token = sign(exp=claims["iat"] + 1)
    assert (await _verify(google, token)).sub
    google.clock.advance(timedelta(seconds=1))
    assert await _refusal(google, token) == "exp"


@pytest.mark.parametrize("ago", [0, 0.5, 1, 59, 61])
async def test_an_expired_token_is_refused_without_clock_skew(
    google: ScriptedGoogle, sign: Sign, claims: dict[str, Any], ago: float
) -> None:
    assert await _refusal(google, sign(exp=claims["iat"] - ago)) == "exp"


async def test_a_minute_of_clock_skew_is_allowed_for_iat_and_nbf(
    google: ScriptedGoogle, sign: Sign, claims: dict[str, Any]
) -> None:
    assert (await _verify(google, sign(iat=claims["iat"] + 59, nbf=claims["iat"] + 59))).sub


@pytest.mark.parametrize("exp", [float("nan"), float("inf"), "9999999999"])
async def test_an_expiry_that_is_no_number_is_refused(
    google: ScriptedGoogle, sign: Sign, exp: object
) -> None:
    assert await _refusal(google, sign(exp=exp)) == "exp"


async def test_a_token_from_the_future_is_refused(
    google: ScriptedGoogle, sign: Sign, claims: dict[str, Any]
) -> None:
    assert await _refusal(google, sign(iat=claims["iat"] + 61)) == "iat"


async def test_a_token_not_yet_valid_is_refused(
    google: ScriptedGoogle, sign: Sign, claims: dict[str, Any]
) -> None:
    assert await _refusal(google, sign(nbf=claims["iat"] + 61)) == "nbf"


@pytest.mark.parametrize("nonce", ["other", NONCE + "x", NONCE[:-1], "é"])
async def test_the_nonce_of_another_login_is_refused(
    google: ScriptedGoogle, sign: Sign, nonce: str
) -> None:
    assert await _refusal(google, sign(nonce=nonce)) == "nonce"


HIDDEN = ["\u200b", "\u2060", "\u202e", "\u00ad", "\ufe0f", "\u034f", "\u3164", "\U000e0101"]


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_an_identifier_with_an_invisible_character_is_refused(
    google: ScriptedGoogle, sign: Sign, hidden: str
) -> None:
    assert await _refusal(google, sign(sub=f"1{hidden}2")) == "sub"
    assert await _refusal(google, sign(email=f"ada{hidden}@example.com")) == "email"


@pytest.mark.parametrize("email", ["ada@bücher.example", "에이다@example.kr", "א@example.co.il"])
async def test_an_email_may_be_in_any_script(
    google: ScriptedGoogle, sign: Sign, email: str
) -> None:
    assert (await _verify(google, sign(email=email))).email == email


@pytest.mark.parametrize("sub", ["x" * 256, "line\nbreak", "a b", "\u202eabc", "a\u00a0b"])
async def test_an_ambiguous_subject_is_refused(
    google: ScriptedGoogle, sign: Sign, sub: str
) -> None:
    assert await _refusal(google, sign(sub=sub)) == "sub"


async def test_the_longest_subject_is_accepted(google: ScriptedGoogle, sign: Sign) -> None:
    assert (await _verify(google, sign(sub="7" * 255))).sub == "7" * 255


async def test_the_access_token_must_match_at_hash(google: ScriptedGoogle, sign: Sign) -> None:
    digest = hashlib.sha256(b"ya29.mine").digest()[:16]
    token = sign(at_hash=base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
    assert (await _verify(google, token, access_token=Secret("ya29.mine"))).sub
    assert await _refusal(google, token, access_token=Secret("ya29.other")) == "at_hash"


def _forge(header: object, payload: object, signature: bytes = b"") -> Secret:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return Secret(".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "RS512", "ES256", "", None, 1])
async def test_any_algorithm_but_rs256_is_refused(
    google: ScriptedGoogle, claims: dict[str, Any], alg: object
) -> None:
    assert await _refusal(google, _forge({"alg": alg, "kid": "one"}, claims)) == "alg"


async def test_the_public_key_is_not_accepted_as_an_hmac_secret(
    google: ScriptedGoogle, claims: dict[str, Any]
) -> None:
    header = {"alg": "HS256", "kid": "one"}
    unsigned = _forge(header, claims).reveal().rpartition(".")[0]
    signature = hmac.digest(KEY.as_pem(private=False), unsigned.encode(), "sha256")
    assert await _refusal(google, _forge(header, claims, signature)) == "alg"


@pytest.mark.parametrize("signature", [b"", b"x", b"\x00" * 256, b"\xff" * 256])
async def test_a_forged_signature_is_refused(
    google: ScriptedGoogle, claims: dict[str, Any], signature: bytes
) -> None:
    assert await _refusal(google, _forge(HEADER, claims, signature)) == "bad_signature"


async def test_another_key_under_a_known_id_is_refused(google: ScriptedGoogle, sign: Sign) -> None:
    assert await _refusal(google, sign(key=OTHER_KEY)) == "bad_signature"


async def test_keys_that_the_token_points_to_are_not_used(
    google: ScriptedGoogle, sign: Sign
) -> None:
    header = HEADER | {"jku": "https://evil.test/jwks"}
    assert await _refusal(google, sign(header, key=OTHER_KEY)) == "bad_signature"


@pytest.mark.parametrize(
    "extra", [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": True}]
)
async def test_a_critical_header_is_refused(
    google: ScriptedGoogle, claims: dict[str, Any], extra: dict[str, Any]
) -> None:
    assert await _refusal(google, _forge(HEADER | extra, claims)) == "crit"


async def test_an_unknown_header_parameter_is_ignored(google: ScriptedGoogle, sign: Sign) -> None:
    assert (await _verify(google, sign(HEADER | {"new": 1}))).sub


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "é.é.é",
        "W10.e30.e30",
        "WyJhbGciXQ.e30.e30",
        "ImFsZyI.e30.e30",
        "NQ.e30.e30",
        "x" * 16_385,
        "e30." + "W" * 16_000 + ".x",
    ],
)
async def test_a_malformed_token_is_refused(google: ScriptedGoogle, text: str) -> None:
    assert await _refusal(google, Secret(text)) == "malformed"


@pytest.mark.parametrize("payload", [[], "text", 7, None])
async def test_a_signed_payload_that_is_no_object_is_refused(
    google: ScriptedGoogle, payload: object
) -> None:
    token = jws.serialize_compact(HEADER, json.dumps(payload), KEY)
    assert await _refusal(google, Secret(token)) == "bad_signature"


async def test_no_reason_quotes_the_token(google: ScriptedGoogle, sign: Sign) -> None:
    token = sign(key=OTHER_KEY)
    with pytest.raises(IdTokenRefused) as caught:
        await _verify(google, token)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert token.reveal()[:20] not in repr(caught.value)


async def test_the_keys_are_fetched_once(google: ScriptedGoogle, sign: Sign) -> None:
    for _ in range(3):
        await _verify(google, sign())
    assert len(google.at("/jwks")) == 1


async def test_a_new_key_id_causes_a_fetch_of_the_keys(google: ScriptedGoogle, sign: Sign) -> None:
    await _verify(google, sign())
    google.answers["/jwks"] = _jwks(KEY, OTHER_KEY)
    google.clock.advance(timedelta(seconds=10))
    assert (await _verify(google, sign(HEADER | {"kid": "two"}, key=OTHER_KEY))).sub


async def test_unknown_key_ids_cause_one_fetch_in_ten_seconds(
    google: ScriptedGoogle, sign: Sign
) -> None:
    await _verify(google, sign())
    for number in range(20):
        google.clock.advance(timedelta(seconds=1))
        unknown = sign(HEADER | {"kid": f"unknown-{number}"})
        assert await _refusal(google, unknown) == "unknown_key"
    assert len(google.at("/jwks")) == 1 + 2


async def test_a_new_key_with_a_known_id_causes_a_fetch_of_the_keys(
    google: ScriptedGoogle, sign: Sign
) -> None:
    await _verify(google, sign())
    google.answers["/jwks"] = _jwks(OTHER_KEY, kid="one")
    google.clock.advance(timedelta(seconds=10))
    assert (await _verify(google, sign(key=OTHER_KEY))).sub


async def test_bad_signatures_cause_one_fetch_in_ten_seconds(
    google: ScriptedGoogle, sign: Sign
) -> None:
    await _verify(google, sign())
    for _ in range(20):
        google.clock.advance(timedelta(seconds=1))
        assert await _refusal(google, sign(key=OTHER_KEY)) == "bad_signature"
    assert len(google.at("/jwks")) == 1 + 2


async def test_a_new_key_id_during_an_outage_is_unavailability(
    google: ScriptedGoogle, sign: Sign
) -> None:
    await _verify(google, sign())
    google.answers["/jwks"] = httpx2.ConnectError("refused")
    google.clock.advance(timedelta(seconds=10))
    with pytest.raises(GoogleUnavailable):
        await _verify(google, sign(HEADER | {"kid": "two"}, key=OTHER_KEY))


async def test_cached_keys_stay_in_use_while_google_is_unavailable(
    google: ScriptedGoogle, sign: Sign, claims: dict[str, Any]
) -> None:
    token = sign(exp=claims["iat"] + 86_400)
    await _verify(google, token)
    google.answers["/jwks"] = httpx2.Response(503)
    google.answers["/discovery"] = httpx2.Response(503)
    google.clock.advance(timedelta(hours=2))
    assert (await _verify(google, token)).sub


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.ReadTimeout("slow"),
        httpx2.Response(500),
        httpx2.Response(200, json={}),
        httpx2.Response(200, json={"keys": {}}),
        httpx2.Response(200, json={"keys": []}),
        httpx2.Response(200, json={"keys": [None, 1, "x", [], {}]}),
        httpx2.Response(200, json={"keys": [{"kty": "RSA", "kid": "one", "n": 5, "e": "AQAB"}]}),
        httpx2.Response(
            200, json={"keys": [{"kty": "RSA", "kid": "one", "n": "!" * 400, "e": "AQAB"}]}
        ),
        _jwks(KEY, use="enc"),
        _jwks(KEY, alg="RS512"),
        _jwks(KEY, kty="EC"),
        _jwks(KEY, kid=7),
        _jwks(KEY, e="AA"),
    ],
)
async def test_without_a_usable_key_google_is_unavailable(
    google: ScriptedGoogle, sign: Sign, answer: Any
) -> None:
    google.answers["/jwks"] = answer
    with pytest.raises(GoogleUnavailable):
        await _verify(google, sign())


async def test_a_short_key_is_ignored(google: ScriptedGoogle, sign: Sign) -> None:
    short = KEY.as_dict(private=False)["n"]
    assert isinstance(short, str)
    google.answers["/jwks"] = _jwks(KEY, n=short[:171])
    with pytest.raises(GoogleUnavailable):
        await _verify(google, sign())


async def test_keys_of_other_types_are_ignored(google: ScriptedGoogle, sign: Sign) -> None:
    good = KEY.as_dict(private=False)
    others = [{"kty": "EC", "kid": "ec"}, {"kty": "AKP", "kid": "new"}, {"kid": "nothing"}]
    google.answers["/jwks"] = httpx2.Response(200, json={"keys": [*others, good]})
    assert (await _verify(google, sign())).sub


async def test_a_key_may_omit_use_and_algorithm(google: ScriptedGoogle, sign: Sign) -> None:
    google.answers["/jwks"] = _jwks(KEY, use=..., alg=...)
    assert (await _verify(google, sign())).sub


async def test_a_token_without_key_id_is_verified_with_the_only_key(
    google: ScriptedGoogle, sign: Sign
) -> None:
    assert (await _verify(google, sign({"alg": "RS256"}))).sub


async def test_a_token_without_key_id_is_refused_among_several_keys(
    google: ScriptedGoogle, sign: Sign
) -> None:
    google.answers["/jwks"] = _jwks(KEY, OTHER_KEY)
    assert await _refusal(google, sign({"alg": "RS256"})) == "unknown_key"


async def test_the_issuer_is_the_one_of_the_discovery_document(
    google: ScriptedGoogle, sign: Sign
) -> None:
    google.answers["/discovery"] = httpx2.Response(
        200, json=DOCUMENT | {"issuer": "http://localhost:9000"}
    )
    assert (await _verify(google, sign(iss="http://localhost:9000"))).sub
    assert await _refusal(google, sign(iss="https://accounts.google.com")) == "iss"
