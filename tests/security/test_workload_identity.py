"""Check 24, and what belongs to it, made on the whole broker from outside with a real issuer."""

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

from tests.security.probes import assert_hidden, audited, everything_stored, own_log
from tests.support.issuer import OidcIssuer, SigningKey, oidc_issuer, private_key
from tests.support.workloads import USERS_AUDIENCE, WORKLOAD, Trusting
from tests.support.world import CALENDAR_READONLY, GMAIL_READONLY, stanza


def part(document: object) -> str:
    """JSON as a JWT's segment."""
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def forged(header: object, claims: object, signature: bytes = b"x") -> str:
    """A JWT put together by hand."""
    tail = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return f"{part(header)}.{part(claims)}.{tail}"


def signed_by_hand(trusting: Trusting, header: str, claims: str) -> str:
    """Any text as header and claims, under a good RS256 signature."""
    key = trusting.issuer.keys[-1].private
    signing_input = f"{part(header)}.{part(claims)}".encode()
    signature = pyjwt.get_algorithm_by_name("RS256").sign(signing_input, key)
    return (
        signing_input.decode() + "." + (base64.urlsafe_b64encode(signature).rstrip(b"=").decode())
    )


def part_of_bytes(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def header_of(trusting: Trusting, **changes: Any) -> str:
    return json.dumps({"alg": "RS256", "kid": trusting.issuer.keys[-1].kid, **changes})


def public_pem(key: SigningKey) -> bytes:
    return key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


async def test_check_24_a_jwt_of_the_configured_workload_is_let_in(trusting: Trusting) -> None:
    answer = await trusting.token_as(trusting.issuer.mint())
    assert answer.status_code == 200
    assert answer.json()["access_token"]
    (record,) = await audited(trusting.world, "token_handed_out", "ok")
    assert record["caller"] == WORKLOAD


ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")


async def test_check_24_each_asymmetric_algorithm_is_understood(trusting: Trusting) -> None:
    for algorithm in (*ALGORITHMS, "EdDSA"):
        trusting.issuer.rotate(algorithm)
        trusting.world.clock.advance(timedelta(minutes=2))
        assert await trusting.status_for(trusting.issuer.mint()) == 200, algorithm


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


async def test_check_24_issuer_audience_and_subject_are_exact(trusting: Trusting) -> None:
    for changes in WRONG_CLAIMS:
        claims = json.dumps(trusting.issuer.claims(**changes))
        token = signed_by_hand(trusting, header_of(trusting), claims)
        assert await trusting.status_for(token) == 401, changes


async def test_check_24_an_issuer_with_a_slash_more_is_another_issuer(trusting: Trusting) -> None:
    for iss in (trusting.issuer.url + "/", trusting.issuer.url.upper(), trusting.issuer.jwks_url):
        assert await trusting.status_for(trusting.issuer.mint(iss=iss)) == 401


async def test_check_24_one_of_several_audiences_is_enough(trusting: Trusting) -> None:
    assert await trusting.status_for(trusting.issuer.mint(aud=["x", "token-broker"])) == 200
    assert await trusting.status_for(trusting.issuer.mint(aud=["token-broker"])) == 200


async def test_check_24_a_jwt_counts_from_nbf_to_exp(trusting: Trusting) -> None:
    now = int(trusting.world.clock.epoch())
    mint, status_for = trusting.issuer.mint, trusting.status_for
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


async def test_check_24_odd_times_and_doubled_claims_are_refused(trusting: Trusting) -> None:
    usual = trusting.issuer.claims(exp=None, iat=None, nbf=None)
    later = int(trusting.world.clock.epoch()) + 600
    for text in ODD_CLAIMS:
        claims = json.dumps(usual)[:-1] + ", " + text.format(later=later) + "}"
        token = signed_by_hand(trusting, header_of(trusting), claims)
        assert await trusting.status_for(token) == 401, text


async def test_check_24_whole_and_broken_seconds_are_both_numbers(trusting: Trusting) -> None:
    later = trusting.world.clock.epoch() + 600.5
    assert await trusting.status_for(trusting.issuer.mint(exp=later)) == 200


async def test_check_24_no_signature_is_no_proof(trusting: Trusting) -> None:
    for alg in ("none", "None", "NONE", "nOnE", "", "no", "RS256 ", "rs256", None, ["RS256"]):
        header = {"alg": alg, "kid": trusting.issuer.keys[-1].kid, "typ": "JWT"}
        token = forged(header, trusting.issuer.claims())
        bare = token.rpartition(".")[0]
        for unsigned in (token, bare, bare + "."):
            assert await trusting.status_for(unsigned) == 401, alg


async def test_check_24_the_public_key_is_no_shared_secret(trusting: Trusting) -> None:
    key = trusting.issuer.keys[-1]
    der = key.private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    jwk = json.dumps(key.jwk()).encode()
    hashes = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    for alg, hash_of in hashes.items():
        signing_input = f"{part({'alg': alg, 'kid': key.kid})}.{part(trusting.issuer.claims())}"
        for secret in (public_pem(key), public_pem(key).strip(), der, jwk, b"", b"secret"):
            mac = hmac.new(secret, signing_input.encode(), hash_of).digest()
            assert await trusting.status_for(f"{signing_input}.{part_of_bytes(mac)}") == 401, alg


async def test_check_24_a_symmetric_key_in_the_key_set_is_never_used(trusting: Trusting) -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    trusting.issuer.extra_jwks = [
        {"kty": "oct", "kid": "mac", "k": part(secret.decode()), "alg": "HS256", "use": "sig"}
    ]
    trusting.world.clock.advance(timedelta(minutes=2))
    token = pyjwt.encode(
        trusting.issuer.claims(), secret, algorithm="HS256", headers={"kid": "mac"}
    )
    assert await trusting.status_for(token) == 401


async def test_check_24_a_key_whose_secret_half_is_published_proves_nothing(
    trusting: Trusting,
) -> None:
    for algorithm in ("RS256", "ES256", "EdDSA"):
        key = SigningKey(f"published-{algorithm}", algorithm, private_key(algorithm))
        whole = pyjwt.get_algorithm_by_name(algorithm).to_jwk(key.private, as_dict=True)
        whole.pop("key_ops", None)
        trusting.issuer.extra_jwks = [{**whole, "kid": key.kid}]
        trusting.world.clock.advance(timedelta(minutes=2))
        assert await trusting.status_for(trusting.issuer.mint(key=key)) == 401, algorithm
        # The others of the set are none the worse for it.
        assert await trusting.status_for(trusting.issuer.mint()) == 200, algorithm
        trusting.issuer.extra_jwks = [key.jwk()]
        trusting.world.clock.advance(timedelta(minutes=2))
        assert await trusting.status_for(trusting.issuer.mint(key=key)) == 200, algorithm


EVENT: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}


async def test_check_24_what_tells_of_a_workload_does_not_come_from_it(trusting: Trusting) -> None:
    for events in (EVENT, {}, None, "x"):
        claims = json.dumps(trusting.issuer.claims() | {"events": events})
        token = signed_by_hand(trusting, header_of(trusting, typ="JWT"), claims)
        assert await trusting.status_for(token) == 401, events


async def test_check_24_a_jwt_that_needs_a_proof_of_its_key_is_no_bearers(
    trusting: Trusting,
) -> None:
    for proof in ({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {"x5t#S256": "x"}, {}):
        assert await trusting.status_for(trusting.issuer.mint(cnf=proof)) == 401, proof


async def test_check_24_the_key_that_comes_along_is_not_the_key(trusting: Trusting) -> None:
    stranger = SigningKey("mine", "RS256", private_key("RS256"))
    kid = trusting.issuer.keys[-1].kid
    with oidc_issuer(trusting.world.clock) as elsewhere:
        elsewhere.keys = [SigningKey(kid, "RS256", stranger.private)]
        for headers in (
            {"jwk": stranger.jwk()},
            {"jwk": stranger.jwk(), "kid": kid},
            {"jku": elsewhere.jwks_url, "kid": kid},
            {"x5u": elsewhere.jwks_url, "kid": kid},
            {"x5c": [base64.b64encode(public_pem(stranger)).decode()], "kid": kid},
            {"iss": elsewhere.url, "kid": kid},
        ):
            token = trusting.issuer.mint(key=stranger, headers=headers)
            assert await trusting.status_for(token) == 401
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


async def test_check_24_a_key_id_is_looked_up_and_nothing_else(trusting: Trusting) -> None:
    trusting.issuer.rotate(keep=True)
    trusting.world.clock.advance(timedelta(minutes=2))
    for kid in ODD_KEY_IDS:
        header = json.dumps({"alg": "RS256", "kid": kid})
        token = signed_by_hand(trusting, header, json.dumps(trusting.issuer.claims()))
        assert await trusting.status_for(token) == 401, kid
    assert (await trusting.world.token()).status_code == 200


async def test_check_24_a_signature_of_zeros_is_none(trusting: Trusting) -> None:
    for algorithm, length in {"ES256": 32, "ES384": 48, "ES512": 66}.items():
        key = trusting.issuer.rotate(algorithm)
        trusting.world.clock.advance(timedelta(minutes=2))
        header = {"alg": algorithm, "kid": key.kid}
        one = (1).to_bytes(length, "big")
        for signature in (b"\0" * 2 * length, b"\0", b"\xff" * 2 * length, one + one):
            token = forged(header, trusting.issuer.claims(), signature)
            assert await trusting.status_for(token) == 401, algorithm


SWAPS = [
    ("RS256", "ES256"),
    ("ES256", "RS256"),
    ("PS256", "RS256"),
    ("RS512", "RS256"),
    ("ES384", "ES256"),
    ("EdDSA", "ES256"),
]


async def test_check_24_a_key_serves_its_own_algorithm_only(trusting: Trusting) -> None:
    for claimed, made in SWAPS:
        key = trusting.issuer.rotate(made)
        trusting.world.clock.advance(timedelta(minutes=2))
        header = part({"alg": claimed, "kid": key.kid})
        signing_input = f"{header}.{part(trusting.issuer.claims())}".encode()
        signature = pyjwt.get_algorithm_by_name(made).sign(signing_input, key.private)
        token = f"{signing_input.decode()}.{part_of_bytes(signature)}"
        assert await trusting.status_for(token) == 401, (claimed, made)
        assert await trusting.status_for(trusting.issuer.mint()) == 200


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


async def test_check_24_headers_that_change_the_meaning_are_refused(trusting: Trusting) -> None:
    for changes in ODD_HEADERS:
        header = header_of(trusting, **changes)
        token = signed_by_hand(trusting, header, json.dumps(trusting.issuer.claims()))
        assert await trusting.status_for(token) == 401, changes


async def test_check_24_the_usual_types_are_let_in(trusting: Trusting) -> None:
    for typ in ("JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"):
        assert await trusting.status_for(trusting.issuer.mint(headers={"typ": typ})) == 200, typ


async def test_check_24_a_header_may_be_written_with_spaces(trusting: Trusting) -> None:
    for spaces in ("", " ", "\r\n "):
        header = spaces + header_of(trusting).replace("{", "{" + spaces)
        token = signed_by_hand(trusting, header, json.dumps(trusting.issuer.claims(), indent=1))
        assert await trusting.status_for(token) == 200, repr(spaces)


def _doubled_header(trusting: Trusting) -> str:
    header = header_of(trusting)[:-1] + ', "alg": "RS256"}'
    return signed_by_hand(trusting, header, json.dumps(trusting.issuer.claims()))


def _nested(trusting: Trusting) -> str:
    return signed_by_hand(trusting, header_of(trusting), trusting.issuer.mint())


def _list_of_claims(trusting: Trusting) -> str:
    claims = json.dumps([trusting.issuer.claims()])
    return signed_by_hand(trusting, header_of(trusting), claims)


def _jwe(trusting: Trusting) -> str:
    token = trusting.issuer.mint()
    return f"{part({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.{token}.{token.rpartition('.')[2]}"


def _with_spare_bits(trusting: Trusting) -> str:
    """The last character of a signature of 256 bytes has four bits that say nothing."""
    token = trusting.issuer.mint()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


MALFORMED: list[Callable[[Trusting], str]] = [
    _doubled_header,
    _nested,
    _list_of_claims,
    _jwe,
    _with_spare_bits,
    lambda trusting: trusting.issuer.mint() + "=",
    lambda trusting: trusting.issuer.mint() + ".",
    lambda trusting: "." + trusting.issuer.mint(),
    lambda trusting: trusting.issuer.mint().replace(".", "..", 1),
    lambda trusting: trusting.issuer.mint()[:-4],
    lambda trusting: trusting.issuer.mint().partition(".")[0] + "..",
    lambda _: "eyJ.eyJ.x",
    lambda _: "eyJ" + "A" * 3000 + "." + "A" * 500 + ".A",
    lambda trusting: trusting.issuer.mint(filler="x" * 4096),
]


async def test_check_24_what_is_not_plainly_a_signed_jwt_is_refused(trusting: Trusting) -> None:
    for number, make in enumerate(MALFORMED):
        assert await trusting.status_for(make(trusting)) == 401, number


async def test_check_24_a_weak_key_of_the_issuer_proves_nothing(trusting: Trusting) -> None:
    weak = SigningKey("weak", "RS256", rsa.generate_private_key(65537, key_size=1024))
    trusting.issuer.keys = [weak]
    trusting.world.clock.advance(timedelta(minutes=2))
    with pytest.warns(match="below the minimum"):
        token = trusting.issuer.mint()
    assert await trusting.status_for(token) == 503


async def test_check_24_a_huge_exponent_is_not_computed(trusting: Trusting) -> None:
    key = trusting.issuer.keys[-1]
    huge = key.jwk() | {"kid": "huge", "e": part_of_bytes(b"\xff" * 255 + b"\x01")}
    vast = key.jwk() | {"kid": "vast", "n": part_of_bytes(b"\xff" * 20_000)}
    trusting.issuer.extra_jwks = [huge, vast]
    trusting.world.clock.advance(timedelta(minutes=2))
    for kid in ("huge", "vast"):
        assert await trusting.status_for(trusting.issuer.mint(headers={"kid": kid})) == 401
    assert await trusting.status_for(trusting.issuer.mint()) == 200


async def test_check_24_an_id_token_of_the_same_issuer_is_no_workload(trusting: Trusting) -> None:
    token = trusting.issuer.mint(aud=USERS_AUDIENCE, sub="user-1", nonce="n")
    assert await trusting.status_for(token) == 401


async def test_check_23_every_route_asks_for_the_jwt(trusting: Trusting) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/users/user-1/token", None),
        ("GET", "/v1/users/user-1/grants", None),
        ("POST", "/v1/tokens", {"requests": [{"user_id": "user-1"}]}),
        ("POST", "/v1/users/user-1/connect-links", {"scopes": [CALENDAR_READONLY]}),
        ("POST", "/v1/users/user-1/connections-links", {}),
        ("DELETE", "/v1/users/user-1/grants/1", None),
        ("DELETE", "/v1/users/user-1/grants", None),
    ]
    bad = trusting.issuer.mint(aud="another")
    for credential, admitted in ((bad, False), (trusting.issuer.mint(), True)):
        for method, path, body in calls:
            answer = await trusting.world.internal.request(
                method, path, json=body, headers={"Authorization": f"Bearer {credential}"}
            )
            assert (answer.status_code < 300) is admitted, (method, path, answer.text)
            if not admitted:
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_check_27_a_workload_has_no_more_than_its_policy(trusting: Trusting) -> None:
    token = trusting.issuer.mint()
    before = trusting.world.refreshes_at_google()
    answer = await trusting.token_as(token, scope=GMAIL_READONLY)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_allowed")
    await trusting.world.rewrite_callers(trusting.callers(users=["somebody"]), trusting.issuers())
    assert (await trusting.token_as(token)).json()["code"] == "forbidden"
    assert trusting.world.refreshes_at_google() == before
    (record,) = await audited(trusting.world, "request_refused", "forbidden")
    assert record["caller"] == WORKLOAD


async def test_check_29_a_jwt_in_a_query_string_is_refused(trusting: Trusting) -> None:
    token = trusting.issuer.mint()
    for query in (f"access_token={token}", f"token={token}", f"jwt={token}"):
        answer = await trusting.world.internal.get(f"/v1/users/user-1/token?{query}")
        assert answer.status_code in (400, 401)
        answer = await trusting.world.internal.get(
            f"/v1/users/user-1/token?{query}", headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 400
    answer = await trusting.world.internal.post(
        f"/oauth/token?client_assertion={token}", data={"grant_type": "x"}
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_check_25_no_header_names_a_workload(trusting: Trusting) -> None:
    token = trusting.issuer.mint(sub="another")
    answer = await trusting.world.internal.get(
        "/v1/users/user-1/token",
        headers={
            "Authorization": f"Bearer {token}",
            "X-Forwarded-Client-Cert": "URI=spiffe://prod/calendar-sync",
            "X-Workload": WORKLOAD,
            "X-Client-Id": WORKLOAD,
        },
    )
    assert answer.status_code == 401


async def test_check_17_no_jwt_is_kept_or_logged(
    trusting: Trusting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    good, bad = trusting.issuer.mint(), trusting.issuer.mint(sub="nobody")
    assert await trusting.status_for(good) == 200
    assert await trusting.status_for(bad) == 401
    await audited(trusting.world, "request_refused", "unauthenticated")
    places = (own_log(caplog), await everything_stored(trusting.world))
    for token in (good, bad):
        for segment in token.split("."):
            assert_hidden(segment[-40:], *places)
    assert '"reason": "no_such_workload"' in places[0]


async def test_two_policies_are_never_open_to_choice(trusting: Trusting) -> None:
    callers = trusting.callers()
    other = copy.deepcopy(dict(callers[WORKLOAD]))
    other["workload"] = {**other["workload"], "audience": "other"}
    await trusting.world.rewrite_callers({**callers, "other": other}, trusting.issuers())
    assert await trusting.status_for(trusting.issuer.mint(aud="other")) == 200
    assert await trusting.status_for(trusting.issuer.mint(aud=["other", "token-broker"])) == 401


async def test_a_caller_may_have_keys_and_a_workload(trusting: Trusting) -> None:
    both = {**stanza(trusting.world.key), "workload": trusting.callers()[WORKLOAD]["workload"]}
    await trusting.world.rewrite_callers({"calendar-sync": both}, trusting.issuers())
    assert await trusting.status_for(trusting.world.key) == 200
    assert await trusting.status_for(trusting.issuer.mint()) == 200


def test_the_issuer_of_the_tests_signs_with_another_library(issuer: OidcIssuer) -> None:
    assert pyjwt.__name__ == "jwt"
    assert pyjwt.get_unverified_header(issuer.mint())["kid"] == issuer.keys[0].kid
