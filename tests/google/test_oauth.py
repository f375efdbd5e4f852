"""The OAuth calls: what is sent, what is returned, and that no secret stays behind."""

import asyncio
import base64
import gc
import hashlib
import logging
import traceback
import weakref
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2 import ClientAuth, OAuth2Client

from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    RequestRefused,
)
from broker.google.oauth import GoogleOAuth
from broker.secret import Secret
from broker.secret_sources.source import OAuthClient
from tests.google.scripted_google import DOCUMENT, ORIGIN, ScriptedGoogle, body, oauth_error, tokens

VERIFIER = Secret("v" * 43)
REDIRECT_URI = "https://app.example.com/auth/google/callback"


async def _authorization_url(google: ScriptedGoogle, **changes: str) -> str:
    return await google.oauth.authorization_url(
        client_id="client-id",
        redirect_uri=REDIRECT_URI,
        scopes=("openid", "email"),
        state="the state",
        nonce="the nonce",
        code_verifier=VERIFIER,
        login_hint=changes.get("login_hint"),
        prompt=changes.get("prompt"),
    )


async def test_the_authorization_request_is_complete(google: ScriptedGoogle) -> None:
    url = await _authorization_url(google)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 43).digest()).rstrip(b"=").decode()
    assert url.startswith(f"{ORIGIN}/authorize?")
    assert parse_qs(urlsplit(url).query) == {
        "response_type": ["code"],
        "client_id": ["client-id"],
        "redirect_uri": [REDIRECT_URI],
        "scope": ["openid email"],
        "state": ["the state"],
        "nonce": ["the nonce"],
        "access_type": ["offline"],
        "include_granted_scopes": ["true"],
        "code_challenge": [challenge],
        "code_challenge_method": ["S256"],
    }


async def test_login_hint_and_prompt_are_sent_if_given(google: ScriptedGoogle) -> None:
    url = await _authorization_url(google, login_hint="a+b@example.com", prompt="consent")
    query = parse_qs(urlsplit(url).query)
    assert (query["login_hint"], query["prompt"]) == (["a+b@example.com"], ["consent"])


async def test_the_query_of_the_endpoint_is_kept(google: ScriptedGoogle) -> None:
    document = DOCUMENT | {"authorization_endpoint": f"{ORIGIN}/authorize?hl=ko"}
    google.answers["/discovery"] = httpx2.Response(200, json=document)
    assert parse_qs(urlsplit(await _authorization_url(google)).query)["hl"] == ["ko"]


async def _exchange(google: ScriptedGoogle, client: OAuthClient) -> object:
    return await google.oauth.exchange_code(
        client=client, code=Secret("4/code"), code_verifier=VERIFIER, redirect_uri=REDIRECT_URI
    )


async def test_a_code_exchange_sends_code_verifier_and_client(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    await _exchange(google, client)
    assert google.form("/token") == {
        "grant_type": "authorization_code",
        "code": "4/code",
        "code_verifier": "v" * 43,
        "redirect_uri": REDIRECT_URI,
        "client_id": "client-id",
        "client_secret": "GOCSPX-s+e/c&ret",
    }


async def test_a_code_exchange_returns_all_tokens(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    google.answers["/token"] = tokens(refresh_token="1//new", id_token="e.y.J")
    answer = await google.oauth.exchange_code(
        client=client, code=Secret("4/c"), code_verifier=VERIFIER, redirect_uri=REDIRECT_URI
    )
    assert (answer.refresh_token, answer.id_token) == (Secret("1//new"), Secret("e.y.J"))


async def _refresh(google: ScriptedGoogle, client: OAuthClient) -> object:
    return await google.oauth.refresh(client=client, refresh_token=Secret("1//old"))


async def test_a_refresh_sends_token_and_client(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    await _refresh(google, client)
    assert google.form("/token") == {
        "grant_type": "refresh_token",
        "refresh_token": "1//old",
        "client_id": "client-id",
        "client_secret": "GOCSPX-s+e/c&ret",
    }


async def test_a_narrowed_refresh_sends_the_scopes(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    await google.oauth.refresh(
        client=client, refresh_token=Secret("1//old"), scopes=("openid", "https://a.test/b")
    )
    assert google.form("/token")["scope"] == "openid https://a.test/b"


async def test_narrowing_to_no_scope_raises(google: ScriptedGoogle, client: OAuthClient) -> None:
    with pytest.raises(ValueError, match="no scope"):
        await google.oauth.refresh(client=client, refresh_token=Secret("1//old"), scopes=())
    assert google.requests == []


async def test_an_omitted_refresh_token_is_none(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    answer = await google.oauth.refresh(client=client, refresh_token=Secret("1//old"))
    assert answer.refresh_token is None


async def test_a_new_refresh_token_is_returned(google: ScriptedGoogle, client: OAuthClient) -> None:
    google.answers["/token"] = tokens(refresh_token="1//rotated")
    answer = await google.oauth.refresh(client=client, refresh_token=Secret("1//old"))
    assert answer.refresh_token == Secret("1//rotated")


async def test_the_lifetime_counts_from_the_sending_of_the_request(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    sent_at = google.clock.now()

    def slow(request: httpx2.Request) -> httpx2.Response:
        google.clock.advance(timedelta(seconds=5))
        return tokens(expires_in=100)

    google.answers["/token"] = slow
    answer = await google.oauth.refresh(client=client, refresh_token=Secret("1//old"))
    assert answer.expires_at == sent_at + timedelta(seconds=100)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (oauth_error("invalid_grant"), GrantRefused),
        (oauth_error("invalid_client", 401), ClientRefused),
        (oauth_error("invalid_request"), RequestRefused),
        (oauth_error("invalid_grant", 503), GoogleUnavailable),
        (body("<html>", "text/html", 403), GoogleUnavailable),
        (body("[]"), GoogleUnavailable),
        (tokens(expires_in=...), GoogleUnavailable),
        (httpx2.Response(307, headers={"Location": f"{ORIGIN}/revoke"}), GoogleUnavailable),
        (httpx2.ReadTimeout("slow"), GoogleUnavailable),
    ],
)
@pytest.mark.parametrize("call", [_exchange, _refresh])
async def test_each_failure_has_its_type_in_both_calls(
    google: ScriptedGoogle,
    client: OAuthClient,
    call: object,
    answer: httpx2.Response | Exception,
    kind: type[GoogleError],
) -> None:
    google.answers["/token"] = answer
    with pytest.raises(GoogleError) as caught:
        await call(google, client)  # type: ignore[operator]
    assert type(caught.value) is kind
    assert len(google.at("/token")) == 1


async def test_googles_retry_after_is_passed_on(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    google.answers["/token"] = httpx2.Response(429, headers={"Retry-After": "7"}, json={})
    with pytest.raises(GoogleUnavailable) as caught:
        await _refresh(google, client)
    assert caught.value.retry_after == timedelta(seconds=7)


async def test_concurrent_calls_never_mix(google: ScriptedGoogle) -> None:
    async def echo(request: httpx2.Request) -> httpx2.Response:
        fields = parse_qs(request.content.decode())
        number = fields["refresh_token"][0].removeprefix("1//")
        assert fields["client_secret"] == [f"secret-{number}"]
        # A later call is answered earlier.
        for _ in range(100 - int(number)):
            await asyncio.sleep(0)
        return tokens(access_token=f"ya29.{number}", refresh_token=f"1//{number}-new")

    google.answers["/token"] = echo
    answers = await asyncio.gather(
        *(
            google.oauth.refresh(
                client=OAuthClient("id", Secret(f"secret-{number}"), 1),
                refresh_token=Secret(f"1//{number}"),
            )
            for number in range(100)
        )
    )
    for number, answer in enumerate(answers):
        assert answer.access_token == Secret(f"ya29.{number}")
        assert answer.refresh_token == Secret(f"1//{number}-new")


async def test_no_authlib_object_with_the_secret_outlives_its_call(
    google: ScriptedGoogle, client: OAuthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[ClientAuth]] = []
    original = ClientAuth.__init__

    def spy(self: ClientAuth, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        original(self, *args, **kwargs)

    monkeypatch.setattr(ClientAuth, "__init__", spy)
    gc.disable()
    try:
        await _refresh(google, client)
        await _exchange(google, client)
        assert [reference() for reference in made] == [None, None]
    finally:
        gc.enable()


async def test_authlib_never_gets_a_response(
    google: ScriptedGoogle, client: OAuthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[object] = []
    for session in (OAuth2Client, AsyncOAuth2Client):
        monkeypatch.setattr(session, "parse_response_token", lambda *given: parsed.append(given))
    google.answers["/token"] = tokens(refresh_token="1//new", id_token="e.y.J")
    await _refresh(google, client)
    await _exchange(google, client)
    assert len(google.at("/token")) == 2
    assert parsed == []


async def test_a_cancelled_call_ends_immediately_and_the_next_one_works(
    google: ScriptedGoogle, client: OAuthClient
) -> None:
    asked = asyncio.Event()

    async def hang(request: httpx2.Request) -> httpx2.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    google.answers["/token"] = hang
    task = asyncio.create_task(_refresh(google, client))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert google.counted("token", "cancelled") == 1
    google.answers["/token"] = tokens()
    assert await _refresh(google, client)


async def test_a_call_ends_at_its_deadline(google: ScriptedGoogle, client: OAuthClient) -> None:
    async def hang(request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    google.answers["/token"] = hang
    oauth = GoogleOAuth(
        google.discovery,
        google.http,
        google.clock,
        google.metrics,
        deadline=timedelta(milliseconds=20),
    )
    with pytest.raises(GoogleUnavailable) as caught:
        await oauth.refresh(client=client, refresh_token=Secret("1//old"))
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (tokens(), "ok"),
        (oauth_error("invalid_grant"), "invalid_grant"),
        (oauth_error("ya29.token"), "unknown_error"),
        (httpx2.Response(503), "http_503"),
        (httpx2.ConnectError("refused"), "connect"),
    ],
)
async def test_each_call_is_counted_by_its_outcome(
    google: ScriptedGoogle,
    client: OAuthClient,
    answer: httpx2.Response | Exception,
    outcome: str,
) -> None:
    google.answers["/token"] = answer
    try:
        await _refresh(google, client)
    except GoogleError:
        assert outcome != "ok"
    assert google.counted("token", outcome) == 1
    assert google.counted("discovery", "ok") == 1


async def test_revoking_sends_the_token_alone(google: ScriptedGoogle) -> None:
    await google.oauth.revoke(Secret("1//old"))
    assert google.form("/revoke") == {"token": "1//old"}


async def test_revoking_a_revoked_token_succeeds(google: ScriptedGoogle) -> None:
    google.answers["/revoke"] = oauth_error("invalid_token")
    await google.oauth.revoke(Secret("1//old"))


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200),
        body("", "text/plain"),
        body("done", "text/plain"),
        httpx2.Response(204),
    ],
)
async def test_any_success_but_a_page_is_a_revocation(
    google: ScriptedGoogle, answer: httpx2.Response
) -> None:
    google.answers["/revoke"] = answer
    await google.oauth.revoke(Secret("1//old"))


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(503),
        httpx2.Response(500, json={"error": "invalid_token"}),
        httpx2.Response(429, json={"error": "invalid_token"}),
        httpx2.Response(302, headers={"Location": ORIGIN}),
        body("<html>sign in to the network", "text/html"),
        body("<html>", "text/html", 403),
        body("", status=400),
        oauth_error("internal_failure"),
        httpx2.ReadError("reset"),
    ],
)
async def test_a_revocation_without_googles_response_is_unavailability(
    google: ScriptedGoogle, answer: httpx2.Response | Exception
) -> None:
    google.answers["/revoke"] = answer
    with pytest.raises(GoogleUnavailable):
        await google.oauth.revoke(Secret("1//old"))


async def test_only_a_400_refuses_a_revocation(google: ScriptedGoogle) -> None:
    google.answers["/revoke"] = oauth_error("invalid_client", 401)
    with pytest.raises(GoogleUnavailable):
        await google.oauth.revoke(Secret("1//old"))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (oauth_error("invalid_request"), "invalid_request"),
        (oauth_error("invalid_grant"), "invalid_grant"),
        (oauth_error("unsupported_token_type"), "unsupported_token_type"),
    ],
)
async def test_a_refused_revocation_has_its_reason(
    google: ScriptedGoogle, answer: httpx2.Response, reason: str
) -> None:
    google.answers["/revoke"] = answer
    with pytest.raises(RequestRefused) as caught:
        await google.oauth.revoke(Secret("1//old"))
    assert caught.value.reason == reason


async def test_without_a_revocation_endpoint_a_revocation_is_refused(
    google: ScriptedGoogle,
) -> None:
    document = DOCUMENT | {"revocation_endpoint": None}
    google.answers["/discovery"] = httpx2.Response(200, json=document)
    with pytest.raises(RequestRefused):
        await google.oauth.revoke(Secret("1//old"))


@pytest.mark.parametrize(
    "answer",
    [
        oauth_error("invalid_grant", error_description="ya29.planted 1//old"),
        oauth_error("1//old"),
        tokens(access_token="ya29.planted x"),
        body('{"access_token": "ya29.planted'),
        httpx2.RemoteProtocolError("illegal chunk header: b'ya29.planted'"),
        httpx2.DecodingError("ya29.planted"),
    ],
)
async def test_no_traceback_and_no_log_contains_a_secret(
    google: ScriptedGoogle,
    client: OAuthClient,
    answer: httpx2.Response | Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    google.answers["/token"] = answer
    with pytest.raises(GoogleError) as caught:
        await _refresh(google, client)
    seen = "".join(traceback.format_exception(caught.value)) + caplog.text
    # The test's own source lines are part of a traceback; what is planted is not in them.
    assert "ya29.planted" not in seen
    assert "GOCSPX-s" not in seen
    assert "1//old" not in str(caught.value)
