"""The whole flow with a running Google: consent, code exchange, ID token, refresh, revocation."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.clock import SystemClock
from broker.google.discovery import Discovery
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    IdTokenRefused,
    ScopeRefused,
)
from broker.google.http import google_http_client
from broker.google.id_tokens import IdTokenVerifier
from broker.google.oauth import GoogleOAuth, TokenResponse
from broker.scopes import is_within
from broker.secret import Secret
from broker.secret_sources.source import OAuthClient
from broker.telemetry.metrics import Metrics
from devstack.google_standin import Fault, GoogleStandin
from tests.support.scopes import CALENDAR_READONLY

REDIRECT_URI = "http://127.0.0.1:8000/auth/google/callback"
SCOPES = ("openid", "email", CALENDAR_READONLY)
VERIFIER = Secret("v" * 64)
NONCE = "the-nonce"
ACCOUNT = "grace@navy.example"
CLIENT = OAuthClient("123-broker", Secret("GOCSPX-secret"), 1)


@pytest.fixture(scope="module")
def running() -> Iterator[GoogleStandin]:
    standin = GoogleStandin()
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def google(running: GoogleStandin) -> GoogleStandin:
    running.reset()
    running.add_client(CLIENT.client_id, CLIENT.client_secret.reveal(), [REDIRECT_URI])
    running.add_account(ACCOUNT, "Grace", hd="navy.example")
    return running


@dataclass
class Parts:
    oauth: GoogleOAuth
    verifier: IdTokenVerifier

    async def authorize(self, google: GoogleStandin) -> Secret:
        """Return a code, without a browser."""
        url = await self.oauth.authorization_url(
            client_id=CLIENT.client_id,
            redirect_uri=REDIRECT_URI,
            scopes=SCOPES,
            state="state",
            nonce=NONCE,
            code_verifier=VERIFIER,
            login_hint=None,
            prompt="consent",
        )
        query = parse_qs(urlsplit(google.consent(url, ACCOUNT)).query)
        assert query["state"] == ["state"]
        return Secret(query["code"][0])

    async def exchange(self, code: Secret) -> TokenResponse:
        """Exchange a code for tokens."""
        return await self.oauth.exchange_code(
            client=CLIENT, code=code, code_verifier=VERIFIER, redirect_uri=REDIRECT_URI
        )

    async def connect(self, google: GoogleStandin) -> TokenResponse:
        """Consent, and return the tokens."""
        return await self.exchange(await self.authorize(google))


@pytest.fixture
async def parts(google: GoogleStandin) -> AsyncIterator[Parts]:
    clock, metrics = SystemClock(), Metrics()
    async with google_http_client() as http:
        discovery = Discovery(google.discovery_url, http, clock, metrics)
        oauth = GoogleOAuth(discovery, http, clock, metrics, deadline=timedelta(seconds=2))
        yield Parts(oauth, IdTokenVerifier(discovery, http, clock, metrics))


async def test_a_consent_returns_tokens_and_an_identity(
    google: GoogleStandin, parts: Parts
) -> None:
    answer = await parts.connect(google)
    assert answer.refresh_token
    assert answer.id_token
    assert answer.scopes
    assert is_within(SCOPES, answer.scopes)
    identity = await parts.verifier.verify(
        answer.id_token,
        client_id=CLIENT.client_id,
        nonce=NONCE,
        access_token=answer.access_token,
    )
    assert identity.sub == google.account(ACCOUNT).sub
    assert (identity.email, identity.hosted_domain) == (ACCOUNT, "navy.example")


async def _refresh_token(google: GoogleStandin, parts: Parts) -> Secret:
    answer = await parts.connect(google)
    assert answer.refresh_token is not None
    return answer.refresh_token


async def test_a_refresh_returns_a_new_access_token(google: GoogleStandin, parts: Parts) -> None:
    first = await parts.connect(google)
    assert first.refresh_token is not None
    answer = await parts.oauth.refresh(client=CLIENT, refresh_token=first.refresh_token)
    assert answer.access_token != first.access_token
    assert answer.refresh_token is None


async def test_a_refresh_can_be_narrowed(google: GoogleStandin, parts: Parts) -> None:
    token = await _refresh_token(google, parts)
    answer = await parts.oauth.refresh(
        client=CLIENT, refresh_token=token, scopes=(CALENDAR_READONLY,)
    )
    assert answer.scopes == (CALENDAR_READONLY,)


async def test_narrowing_to_a_scope_that_is_not_granted_is_refused(
    google: GoogleStandin, parts: Parts
) -> None:
    token = await _refresh_token(google, parts)
    with pytest.raises(ScopeRefused):
        await parts.oauth.refresh(
            client=CLIENT, refresh_token=token, scopes=("https://mail.google.com/",)
        )


async def test_a_rotated_refresh_token_is_returned(google: GoogleStandin, parts: Parts) -> None:
    token = await _refresh_token(google, parts)
    google.faults.next("token", Fault.rotate_refresh_token())
    answer = await parts.oauth.refresh(client=CLIENT, refresh_token=token)
    assert answer.refresh_token is not None
    assert answer.refresh_token != token


async def test_a_revoked_token_is_refused_at_refresh(google: GoogleStandin, parts: Parts) -> None:
    token = await _refresh_token(google, parts)
    await parts.oauth.revoke(token)
    with pytest.raises(GrantRefused):
        await parts.oauth.refresh(client=CLIENT, refresh_token=token)


async def test_revoking_twice_succeeds(google: GoogleStandin, parts: Parts) -> None:
    token = await _refresh_token(google, parts)
    await parts.oauth.revoke(token)
    await parts.oauth.revoke(token)


async def test_a_code_is_accepted_once(google: GoogleStandin, parts: Parts) -> None:
    code = await parts.authorize(google)
    await parts.exchange(code)
    with pytest.raises(GrantRefused):
        await parts.exchange(code)


async def test_a_wrong_code_verifier_gets_no_tokens(google: GoogleStandin, parts: Parts) -> None:
    code = await parts.authorize(google)
    with pytest.raises(GrantRefused):
        await parts.oauth.exchange_code(
            client=CLIENT, code=code, code_verifier=Secret("w" * 64), redirect_uri=REDIRECT_URI
        )


async def test_a_changed_client_secret_is_a_refused_client(
    google: GoogleStandin, parts: Parts
) -> None:
    token = await _refresh_token(google, parts)
    google.change_client_secret(CLIENT.client_id, "GOCSPX-other")
    with pytest.raises(ClientRefused):
        await parts.oauth.refresh(client=CLIENT, refresh_token=token)


FAULTS: list[tuple[Fault, type[GoogleError], str]] = [
    (Fault.drop(), GoogleUnavailable, "protocol"),
    (Fault.half(), GoogleUnavailable, "protocol"),
    (Fault.silence(5), GoogleUnavailable, "timeout"),
    (Fault.http(500), GoogleUnavailable, "http_500"),
    (Fault.http(503), GoogleUnavailable, "http_503"),
    (Fault.rate_limited(3), GoogleUnavailable, "rate_limited"),
    (Fault.html_403(), GoogleUnavailable, "html_403"),
    (Fault.not_json(), GoogleUnavailable, "not_json"),
    (Fault.internal_failure(), GoogleUnavailable, "internal_failure"),
    (Fault.without("expires_in"), GoogleUnavailable, "bad_answer"),
    (Fault.without("access_token"), GoogleUnavailable, "bad_answer"),
    (Fault.invalid_grant(), GrantRefused, "invalid_grant"),
    (Fault.invalid_grant("invalid_rapt"), GrantRefused, "invalid_rapt"),
    (Fault.invalid_client(), ClientRefused, "invalid_client"),
    (Fault.unauthorized_client(), ClientRefused, "unauthorized_client"),
    (Fault.deleted_client(), ClientRefused, "deleted_client"),
]


@pytest.mark.parametrize(("fault", "kind", "reason"), FAULTS)
async def test_each_fault_has_its_type_and_reason(
    google: GoogleStandin, parts: Parts, fault: Fault, kind: type[GoogleError], reason: str
) -> None:
    token = await _refresh_token(google, parts)
    google.faults.next("token", fault)
    with pytest.raises(GoogleError) as caught:
        await parts.oauth.refresh(client=CLIENT, refresh_token=token)
    assert (type(caught.value), caught.value.reason) == (kind, reason)


async def test_the_next_call_after_a_failure_succeeds(google: GoogleStandin, parts: Parts) -> None:
    token = await _refresh_token(google, parts)
    for fault in (Fault.drop(), Fault.half(), Fault.silence(5)):
        google.faults.next("token", fault)
        with pytest.raises(GoogleUnavailable):
            await parts.oauth.refresh(client=CLIENT, refresh_token=token)
        assert (await parts.oauth.refresh(client=CLIENT, refresh_token=token)).access_token


@pytest.mark.parametrize(
    ("defect", "reason"),
    [
        ("nonce", "nonce"),
        ("missing_nonce", "nonce"),
        ("aud", "aud"),
        ("iss", "iss"),
        ("expired", "exp"),
        ("alg_none", "alg"),
        ("hs256", "alg"),
        ("unknown_kid", "unknown_key"),
        ("bad_signature", "bad_signature"),
        ("missing_sub", "sub"),
        ("empty_sub", "sub"),
        ("null_sub", "sub"),
        ("at_hash", "at_hash"),
        ("not_a_jwt", "malformed"),
    ],
)
async def test_each_defect_of_an_id_token_is_refused(
    google: GoogleStandin, parts: Parts, defect: str, reason: str
) -> None:
    google.faults.next("token", Fault.id_token(defect))
    answer = await parts.connect(google)
    assert answer.id_token is not None
    with pytest.raises(IdTokenRefused) as caught:
        await parts.verifier.verify(
            answer.id_token,
            client_id=CLIENT.client_id,
            nonce=NONCE,
            access_token=answer.access_token,
        )
    assert caught.value.reason == reason
