"""Check 24 and related checks, on the whole broker from outside with a real issuer."""

import base64
import copy
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.issuer import OidcIssuer, SigningKey, oidc_issuer, private_key
from tests.support.probes import assert_hidden, audited, everything_stored, own_log
from tests.support.scopes import CALENDAR_READONLY, GMAIL_READONLY
from tests.support.workloads import USERS_AUDIENCE, WORKLOAD, IssuerWorld
from tests.support.world import stanza


def jwt_segment(document: object) -> str:
    """Encode JSON as a segment of a JWT."""
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def forged(header: object, claims: object, signature: bytes = b"x") -> str:
    """Build a JWT by hand."""
    tail = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return f"{jwt_segment(header)}.{jwt_segment(claims)}.{tail}"


def signed_by_hand(issuer_world: IssuerWorld, header: str, claims: str) -> str:
    """Sign any text as header and claims with a valid RS256 signature."""
    key = issuer_world.issuer.keys[-1].private
    signing_input = f"{jwt_segment(header)}.{jwt_segment(claims)}".encode()
    signature = pyjwt.get_algorithm_by_name("RS256").sign(signing_input, key)
    return (
        signing_input.decode() + "." + (base64.urlsafe_b64encode(signature).rstrip(b"=").decode())
    )


def jwt_segment_of_bytes(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def header_of(issuer_world: IssuerWorld, **changes: Any) -> str:
    return json.dumps({"alg": "RS256", "kid": issuer_world.issuer.keys[-1].kid, **changes})


def public_pem(key: SigningKey) -> bytes:
    return key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


async def test_check_24_a_jwt_of_the_configured_workload_is_accepted(
    issuer_world: IssuerWorld,
) -> None:
    answer = await issuer_world.token_as(issuer_world.issuer.mint())
    assert answer.status_code == 200
    assert answer.json()["access_token"]
    (record,) = await audited(issuer_world.world, "token_handed_out", "ok")
    assert record["caller"] == WORKLOAD


ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "EdDSA"])
async def test_check_24_each_asymmetric_algorithm_is_supported(
    issuer_world: IssuerWorld, algorithm: str
) -> None:
    issuer_world.issuer.rotate(algorithm)
    issuer_world.world.clock.advance(timedelta(minutes=2))
    assert await issuer_world.status_for(issuer_world.issuer.mint()) == 200, algorithm


WRONG_CLAIMS: list[dict[str, Any]] = [
    {"iss": None},
    {"iss": "https://accounts.google.com"},
    {"iss": ""},
    {"iss": ["x"]},
    {"aud": None},
    {"aud": "another"},
    {"aud": "Token-Broker"},
    {"aud": "token-broker "},
    {"aud": "token-broke"},
    {"aud": []},
    {"aud": ["another"]},
    {"aud": ["another", "token-broker-2"]},
    {"aud": ["token-broke", "token-broker "]},
    {"aud": {"token-broker": True}},
    {"aud": "*"},
    {"sub": None},
    {"sub": ""},
    {"sub": "system:serviceaccount:prod:calendar"},
    {"sub": "system:serviceaccount:prod:calendar-sync "},
    {"sub": "SYSTEM:serviceaccount:prod:calendar-sync"},
    {"sub": "*"},
    {"sub": "calendar-workload"},
    {"exp": None},
]


@pytest.mark.parametrize("changes", WRONG_CLAIMS)
async def test_check_24_issuer_audience_and_subject_match_exactly(
    issuer_world: IssuerWorld, changes: dict[str, Any]
) -> None:
    claims = json.dumps(issuer_world.issuer.claims(**changes))
    token = signed_by_hand(issuer_world, header_of(issuer_world), claims)
    assert await issuer_world.status_for(token) == 401, changes


async def test_check_24_an_issuer_with_a_trailing_slash_is_another_issuer(
    issuer_world: IssuerWorld,
) -> None:
    for iss in (
        issuer_world.issuer.url + "/",
        issuer_world.issuer.url.upper(),
        issuer_world.issuer.jwks_url,
    ):
        assert await issuer_world.status_for(issuer_world.issuer.mint(iss=iss)) == 401


async def test_check_24_one_of_several_audiences_is_enough(issuer_world: IssuerWorld) -> None:
    assert await issuer_world.status_for(issuer_world.issuer.mint(aud=["x", "token-broker"])) == 200
    assert await issuer_world.status_for(issuer_world.issuer.mint(aud=["token-broker"])) == 200


async def test_check_24_a_jwt_is_valid_from_nbf_to_exp(issuer_world: IssuerWorld) -> None:
    now = int(issuer_world.world.clock.epoch())
    mint, status_for = issuer_world.issuer.mint, issuer_world.status_for
    assert await status_for(mint(exp=now)) == 401
    assert await status_for(mint(exp=now - 30)) == 401
    assert await status_for(mint(exp=now + 5, iat=None, nbf=None)) == 200
    assert await status_for(mint(nbf=now + 59, iat=now + 59)) == 200
    assert await status_for(mint(nbf=now + 61)) == 401
    assert await status_for(mint(iat=now + 61)) == 401


ODD_CLAIMS = [
    '"exp": "{later}"',
    '"exp": "later"',
    '"exp": -1',
    '"exp": 1e400',
    '"exp": -1e400',
    '"exp": Infinity',
    '"exp": NaN',
    '"exp": null',
    '"exp": true',
    '"exp": [{later}]',
    '"exp": {{"a": {later}}}',
    '"exp": 0',
    '"exp": ' + "9" * 400,
    '"exp": {later}, "nbf": "{later}"',
    '"exp": {later}, "nbf": null',
    '"exp": {later}, "iat": "now"',
    '"exp": {later}, "exp": {later}',
    '"exp": {later}, "sub": "system:serviceaccount:prod:calendar-sync"',
    '"exp": {later}, "iss": "https://another.example"',
]


@pytest.mark.parametrize("text", ODD_CLAIMS, ids=lambda text: text[:40])
async def test_check_24_malformed_times_and_repeated_claims_are_refused(
    issuer_world: IssuerWorld, text: str
) -> None:
    usual = issuer_world.issuer.claims(exp=None, iat=None, nbf=None)
    later = int(issuer_world.world.clock.epoch()) + 600
    claims = json.dumps(usual)[:-1] + ", " + text.format(later=later) + "}"
    token = signed_by_hand(issuer_world, header_of(issuer_world), claims)
    assert await issuer_world.status_for(token) == 401, text


async def test_check_24_fractional_seconds_are_accepted(issuer_world: IssuerWorld) -> None:
    later = issuer_world.world.clock.epoch() + 600.5
    assert await issuer_world.status_for(issuer_world.issuer.mint(exp=later)) == 200


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", "no", "RS256 ", "rs256", None, ["RS256"]]
)
async def test_check_24_an_unsigned_jwt_is_refused(issuer_world: IssuerWorld, alg: object) -> None:
    header = {"alg": alg, "kid": issuer_world.issuer.keys[-1].kid, "typ": "JWT"}
    token = forged(header, issuer_world.issuer.claims())
    bare = token.rpartition(".")[0]
    for unsigned in (token, bare, bare + "."):
        assert await issuer_world.status_for(unsigned) == 401, alg


async def test_check_24_a_jwt_signed_by_hmac_with_the_public_key_is_refused(
    issuer_world: IssuerWorld,
) -> None:
    key = issuer_world.issuer.keys[-1]
    der = key.private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    jwk = json.dumps(key.jwk()).encode()
    hashes = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    for alg, hash_of in hashes.items():
        header = jwt_segment({"alg": alg, "kid": key.kid})
        signing_input = f"{header}.{jwt_segment(issuer_world.issuer.claims())}"
        for secret in (public_pem(key), public_pem(key).strip(), der, jwk, b"", b"secret"):
            mac = hmac.new(secret, signing_input.encode(), hash_of).digest()
            assert (
                await issuer_world.status_for(f"{signing_input}.{jwt_segment_of_bytes(mac)}") == 401
            ), alg


async def test_check_24_a_symmetric_key_in_the_key_set_is_never_used(
    issuer_world: IssuerWorld,
) -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    issuer_world.issuer.extra_jwks = [
        {
            "kty": "oct",
            "kid": "mac",
            "k": jwt_segment(secret.decode()),
            "alg": "HS256",
            "use": "sig",
        }
    ]
    issuer_world.world.clock.advance(timedelta(minutes=2))
    token = pyjwt.encode(
        issuer_world.issuer.claims(), secret, algorithm="HS256", headers={"kid": "mac"}
    )
    assert await issuer_world.status_for(token) == 401


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_check_24_a_key_published_with_its_private_part_is_not_used(
    issuer_world: IssuerWorld, algorithm: str
) -> None:
    key = SigningKey(f"published-{algorithm}", algorithm, private_key(algorithm))
    whole = pyjwt.get_algorithm_by_name(algorithm).to_jwk(key.private, as_dict=True)
    whole.pop("key_ops", None)
    issuer_world.issuer.extra_jwks = [{**whole, "kid": key.kid}]
    issuer_world.world.clock.advance(timedelta(minutes=2))
    assert await issuer_world.status_for(issuer_world.issuer.mint(key=key)) == 401, algorithm
    # The other keys of the set still work.
    assert await issuer_world.status_for(issuer_world.issuer.mint()) == 200, algorithm
    issuer_world.issuer.extra_jwks = [key.jwk()]
    issuer_world.world.clock.advance(timedelta(minutes=2))
    assert await issuer_world.status_for(issuer_world.issuer.mint(key=key)) == 200, algorithm


EVENT: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}


@pytest.mark.parametrize("events", [EVENT, {}, None, "x"])
async def test_check_24_a_jwt_about_a_workload_for_another_purpose_is_refused(
    issuer_world: IssuerWorld, events: object
) -> None:
    claims = json.dumps(issuer_world.issuer.claims() | {"events": events})
    token = signed_by_hand(issuer_world, header_of(issuer_world, typ="JWT"), claims)
    assert await issuer_world.status_for(token) == 401, events


@pytest.mark.parametrize(
    "proof", [{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {"x5t#S256": "x"}, {}]
)
async def test_check_24_a_sender_constrained_jwt_is_refused(
    issuer_world: IssuerWorld, proof: dict[str, str]
) -> None:
    assert await issuer_world.status_for(issuer_world.issuer.mint(cnf=proof)) == 401, proof


async def test_check_24_keys_embedded_in_a_jwt_are_not_used(issuer_world: IssuerWorld) -> None:
    own_key = SigningKey("mine", "RS256", private_key("RS256"))
    kid = issuer_world.issuer.keys[-1].kid
    with oidc_issuer(issuer_world.world.clock) as elsewhere:
        elsewhere.keys = [SigningKey(kid, "RS256", own_key.private)]
        for headers in (
            {"jwk": own_key.jwk()},
            {"jwk": own_key.jwk(), "kid": kid},
            {"jku": elsewhere.jwks_url, "kid": kid},
            {"x5u": elsewhere.jwks_url, "kid": kid},
            {"x5c": [base64.b64encode(public_pem(own_key)).decode()], "kid": kid},
            {"iss": elsewhere.url, "kid": kid},
        ):
            token = issuer_world.issuer.mint(key=own_key, headers=headers)
            assert await issuer_world.status_for(token) == 401
        assert elsewhere.requests == []


ODD_KEY_IDS = [
    "../../../../dev/null",
    "/dev/null",
    "' OR '1'='1",
    "'; DROP TABLE grants; --",
    "http://127.0.0.1/keys",
    "\x00",
    "",
    "key\n",
    "{{7*7}}",
    "k" * 2000,
    1,
    None,
    True,
    [],
    {"a": "b"},
    ["key"],
]


@pytest.mark.parametrize("kid", ODD_KEY_IDS, ids=lambda kid: repr(kid)[:20])
async def test_check_24_a_key_id_is_only_a_lookup_key(
    issuer_world: IssuerWorld, kid: object
) -> None:
    issuer_world.issuer.rotate(keep=True)
    issuer_world.world.clock.advance(timedelta(minutes=2))
    header = json.dumps({"alg": "RS256", "kid": kid})
    token = signed_by_hand(issuer_world, header, json.dumps(issuer_world.issuer.claims()))
    assert await issuer_world.status_for(token) == 401, kid
    assert (await issuer_world.world.token()).status_code == 200


async def test_check_24_a_signature_of_zeros_is_refused(issuer_world: IssuerWorld) -> None:
    for algorithm, length in {"ES256": 32, "ES384": 48, "ES512": 66}.items():
        key = issuer_world.issuer.rotate(algorithm)
        issuer_world.world.clock.advance(timedelta(minutes=2))
        header = {"alg": algorithm, "kid": key.kid}
        one = (1).to_bytes(length, "big")
        for signature in (b"\0" * 2 * length, b"\0", b"\xff" * 2 * length, one + one):
            token = forged(header, issuer_world.issuer.claims(), signature)
            assert await issuer_world.status_for(token) == 401, algorithm


SWAPS = [
    ("RS256", "ES256"),
    ("ES256", "RS256"),
    ("PS256", "RS256"),
    ("RS512", "RS256"),
    ("ES384", "ES256"),
    ("EdDSA", "ES256"),
]


@pytest.mark.parametrize(("claimed", "made"), SWAPS)
async def test_check_24_a_key_is_used_only_for_its_own_algorithm(
    issuer_world: IssuerWorld, claimed: str, made: str
) -> None:
    key = issuer_world.issuer.rotate(made)
    issuer_world.world.clock.advance(timedelta(minutes=2))
    header = jwt_segment({"alg": claimed, "kid": key.kid})
    signing_input = f"{header}.{jwt_segment(issuer_world.issuer.claims())}".encode()
    signature = pyjwt.get_algorithm_by_name(made).sign(signing_input, key.private)
    token = f"{signing_input.decode()}.{jwt_segment_of_bytes(signature)}"
    assert await issuer_world.status_for(token) == 401, (claimed, made)
    assert await issuer_world.status_for(issuer_world.issuer.mint()) == 200


ODD_HEADERS: list[dict[str, Any]] = [
    {"crit": ["exp"]},
    {"crit": []},
    {"crit": ["b64"], "b64": False},
    {"b64": True},
    {"zip": "DEF"},
    {"enc": "A256GCM"},
    {"cty": "JWT"},
    {"typ": "logout+jwt"},
    {"typ": "secevent+jwt"},
    {"typ": "dpop+jwt"},
    {"typ": "JWE"},
    {"typ": 1},
]


@pytest.mark.parametrize("changes", ODD_HEADERS)
async def test_check_24_headers_that_change_the_meaning_are_refused(
    issuer_world: IssuerWorld, changes: dict[str, Any]
) -> None:
    header = header_of(issuer_world, **changes)
    token = signed_by_hand(issuer_world, header, json.dumps(issuer_world.issuer.claims()))
    assert await issuer_world.status_for(token) == 401, changes


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"])
async def test_check_24_the_usual_types_are_accepted(issuer_world: IssuerWorld, typ: str) -> None:
    assert await issuer_world.status_for(issuer_world.issuer.mint(headers={"typ": typ})) == 200, typ


@pytest.mark.parametrize("spaces", ["", " ", "\r\n "])
async def test_check_24_a_header_may_contain_spaces(issuer_world: IssuerWorld, spaces: str) -> None:
    header = spaces + header_of(issuer_world).replace("{", "{" + spaces)
    token = signed_by_hand(issuer_world, header, json.dumps(issuer_world.issuer.claims(), indent=1))
    assert await issuer_world.status_for(token) == 200, repr(spaces)


def _repeated_header_member(issuer_world: IssuerWorld) -> str:
    header = header_of(issuer_world)[:-1] + ', "alg": "RS256"}'
    return signed_by_hand(issuer_world, header, json.dumps(issuer_world.issuer.claims()))


def _nested(issuer_world: IssuerWorld) -> str:
    return signed_by_hand(issuer_world, header_of(issuer_world), issuer_world.issuer.mint())


def _list_of_claims(issuer_world: IssuerWorld) -> str:
    claims = json.dumps([issuer_world.issuer.claims()])
    return signed_by_hand(issuer_world, header_of(issuer_world), claims)


def _jwe(issuer_world: IssuerWorld) -> str:
    token = issuer_world.issuer.mint()
    return (
        f"{jwt_segment({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.{token}.{token.rpartition('.')[2]}"
    )


def _with_spare_bits(issuer_world: IssuerWorld) -> str:
    """The last character of a 256-byte signature has four unused bits."""
    token = issuer_world.issuer.mint()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


MALFORMED: list[Callable[[IssuerWorld], str]] = [
    _repeated_header_member,
    _nested,
    _list_of_claims,
    _jwe,
    _with_spare_bits,
    lambda issuer_world: issuer_world.issuer.mint() + "=",
    lambda issuer_world: issuer_world.issuer.mint() + ".",
    lambda issuer_world: "." + issuer_world.issuer.mint(),
    lambda issuer_world: issuer_world.issuer.mint().replace(".", "..", 1),
    lambda issuer_world: issuer_world.issuer.mint()[:-4],
    lambda issuer_world: issuer_world.issuer.mint().partition(".")[0] + "..",
    lambda _: "eyJ.eyJ.x",
    lambda _: "eyJ" + "A" * 3000 + "." + "A" * 500 + ".A",
    lambda issuer_world: issuer_world.issuer.mint(filler="x" * 4096),
]


@pytest.mark.parametrize("make", MALFORMED)
async def test_check_24_anything_but_a_plain_signed_jwt_is_refused(
    issuer_world: IssuerWorld, make: Callable[[IssuerWorld], str]
) -> None:
    assert await issuer_world.status_for(make(issuer_world)) == 401


async def test_check_24_a_weak_key_of_the_issuer_is_not_used(issuer_world: IssuerWorld) -> None:
    weak = SigningKey("weak", "RS256", rsa.generate_private_key(65537, key_size=1024))
    issuer_world.issuer.keys = [weak]
    issuer_world.world.clock.advance(timedelta(minutes=2))
    with pytest.warns(match="below the minimum"):
        token = issuer_world.issuer.mint()
    assert await issuer_world.status_for(token) == 503


async def test_check_24_a_huge_exponent_is_not_computed(issuer_world: IssuerWorld) -> None:
    key = issuer_world.issuer.keys[-1]
    huge = key.jwk() | {"kid": "huge", "e": jwt_segment_of_bytes(b"\xff" * 255 + b"\x01")}
    vast = key.jwk() | {"kid": "vast", "n": jwt_segment_of_bytes(b"\xff" * 20_000)}
    issuer_world.issuer.extra_jwks = [huge, vast]
    issuer_world.world.clock.advance(timedelta(minutes=2))
    for kid in ("huge", "vast"):
        assert await issuer_world.status_for(issuer_world.issuer.mint(headers={"kid": kid})) == 401
    assert await issuer_world.status_for(issuer_world.issuer.mint()) == 200


async def test_check_24_an_id_token_of_the_same_issuer_is_refused(
    issuer_world: IssuerWorld,
) -> None:
    token = issuer_world.issuer.mint(aud=USERS_AUDIENCE, sub="user-1", nonce="n")
    assert await issuer_world.status_for(token) == 401


async def test_check_23_every_route_requires_the_jwt(issuer_world: IssuerWorld) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/users/user-1/token", None),
        ("GET", "/v1/users/user-1/grants", None),
        ("POST", "/v1/tokens", {"requests": [{"user_id": "user-1"}]}),
        ("POST", "/v1/users/user-1/connect-links", {"scopes": [CALENDAR_READONLY]}),
        ("POST", "/v1/users/user-1/connections-links", {}),
        ("DELETE", "/v1/users/user-1/grants/1", None),
        ("DELETE", "/v1/users/user-1/grants", None),
    ]
    bad = issuer_world.issuer.mint(aud="another")
    for credential, admitted in ((bad, False), (issuer_world.issuer.mint(), True)):
        for method, path, body in calls:
            answer = await issuer_world.world.internal.request(
                method, path, json=body, headers={"Authorization": f"Bearer {credential}"}
            )
            assert (answer.status_code < 300) is admitted, (method, path, answer.text)
            if not admitted:
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_check_27_a_workload_has_no_more_than_its_policy(issuer_world: IssuerWorld) -> None:
    token = issuer_world.issuer.mint()
    before = issuer_world.world.refreshes_at_google()
    answer = await issuer_world.token_as(token, scope=GMAIL_READONLY)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_allowed")
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(users=["another-user"]), issuer_world.issuers()
    )
    assert (await issuer_world.token_as(token)).json()["code"] == "forbidden"
    assert issuer_world.world.refreshes_at_google() == before
    (record,) = await audited(issuer_world.world, "request_refused", "forbidden")
    assert record["caller"] == WORKLOAD


async def test_check_29_a_jwt_in_a_query_string_is_refused(issuer_world: IssuerWorld) -> None:
    token = issuer_world.issuer.mint()
    for query in (f"access_token={token}", f"token={token}", f"jwt={token}"):
        answer = await issuer_world.world.internal.get(f"/v1/users/user-1/token?{query}")
        assert answer.status_code in (400, 401)
        answer = await issuer_world.world.internal.get(
            f"/v1/users/user-1/token?{query}", headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 400
    answer = await issuer_world.world.internal.post(
        f"/oauth/token?client_assertion={token}", data={"grant_type": "x"}
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_check_25_no_header_identifies_a_workload(issuer_world: IssuerWorld) -> None:
    token = issuer_world.issuer.mint(sub="another")
    answer = await issuer_world.world.internal.get(
        "/v1/users/user-1/token",
        headers={
            "Authorization": f"Bearer {token}",
            "X-Forwarded-Client-Cert": "URI=spiffe://prod/calendar-sync",
            "X-Workload": WORKLOAD,
            "X-Client-Id": WORKLOAD,
        },
    )
    assert answer.status_code == 401


async def test_check_17_no_jwt_is_stored_or_logged(
    issuer_world: IssuerWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    good, bad = issuer_world.issuer.mint(), issuer_world.issuer.mint(sub="unknown-user")
    assert await issuer_world.status_for(good) == 200
    assert await issuer_world.status_for(bad) == 401
    await audited(issuer_world.world, "request_refused", "unauthenticated")
    places = (own_log(caplog), await everything_stored(issuer_world.world))
    for token in (good, bad):
        for segment in token.split("."):
            assert_hidden(segment[-40:], *places)
    assert '"reason": "no_such_workload"' in places[0]


async def test_a_credential_never_matches_two_policies(issuer_world: IssuerWorld) -> None:
    callers = issuer_world.callers()
    other = copy.deepcopy(dict(callers[WORKLOAD]))
    other["workload"] = {**other["workload"], "audience": "other"}
    await issuer_world.world.rewrite_callers({**callers, "other": other}, issuer_world.issuers())
    assert await issuer_world.status_for(issuer_world.issuer.mint(aud="other")) == 200
    assert (
        await issuer_world.status_for(issuer_world.issuer.mint(aud=["other", "token-broker"]))
        == 401
    )


async def test_a_caller_may_have_keys_and_a_workload(issuer_world: IssuerWorld) -> None:
    both = {
        **stanza(issuer_world.world.key),
        "workload": issuer_world.callers()[WORKLOAD]["workload"],
    }
    await issuer_world.world.rewrite_callers({"calendar-sync": both}, issuer_world.issuers())
    assert await issuer_world.status_for(issuer_world.world.key) == 200
    assert await issuer_world.status_for(issuer_world.issuer.mint()) == 200


def test_the_issuer_of_the_tests_signs_with_another_library(issuer: OidcIssuer) -> None:
    assert pyjwt.__name__ == "jwt"
    assert pyjwt.get_unverified_header(issuer.mint())["kid"] == issuer.keys[0].kid
