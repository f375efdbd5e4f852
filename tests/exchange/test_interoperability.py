"""OAuth clients that this project did not write exchange tokens at a real listener."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import (
    BackendApplicationClient,
    InvalidClientError,
    InvalidScopeError,
)
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen
from tests.exchange.harness import ASSERTION_TYPE, GRANT_TYPE, TYPE
from tests.support.scopes import CALENDAR_READONLY, GMAIL_READONLY
from tests.support.workloads import IssuerWorld

NAME = "calendar-sync"


@pytest.fixture
async def endpoint(
    issuer_world: IssuerWorld, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """The token endpoint behind a socket."""
    for name in ("OAUTHLIB_INSECURE_TRANSPORT", "OAUTHLIB_RELAX_TOKEN_SCOPE"):
        monkeypatch.setenv(name, "1")
    bound = bind(Listen("127.0.0.1", 0))
    listeners = Listeners([(issuer_world.world.broker.internal, bound)])
    await listeners.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/oauth/token"
    await listeners.stop()
    bound.close()


def _subject(issuer_world: IssuerWorld) -> dict[str, str]:
    return {"subject_token": issuer_world.users_jwt(), "subject_token_type": f"{TYPE}jwt"}


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_authlibs_asynchronous_client(
    issuer_world: IssuerWorld, endpoint: str, method: str
) -> None:
    async with AsyncOAuth2Client(
        NAME, issuer_world.world.key, token_endpoint_auth_method=method
    ) as client:
        token = await client.fetch_token(
            endpoint, grant_type=GRANT_TYPE, scope=CALENDAR_READONLY, **_subject(issuer_world)
        )
    assert token["scope"] == CALENDAR_READONLY
    assert token["issued_token_type"] == f"{TYPE}access_token"
    assert token["access_token"].startswith("ya29.")
    assert token["expires_in"] > 0


async def test_authlibs_client_for_requests(issuer_world: IssuerWorld, endpoint: str) -> None:
    with AuthlibSession(NAME, issuer_world.world.key) as session:
        token = await asyncio.to_thread(
            session.fetch_token, endpoint, grant_type=GRANT_TYPE, **_subject(issuer_world)
        )
    assert token["access_token"].startswith("ya29.")


async def test_authlibs_client_gets_the_error(issuer_world: IssuerWorld, endpoint: str) -> None:
    async with AsyncOAuth2Client(NAME, issuer_world.world.key) as client:
        with pytest.raises(OAuthError) as caught:
            await client.fetch_token(
                endpoint, grant_type=GRANT_TYPE, scope=GMAIL_READONLY, **_subject(issuer_world)
            )
    assert caught.value.error == "invalid_scope"


class ExchangingClient(BackendApplicationClient):  # type: ignore[misc]
    """oauthlib's client with the grant type of RFC 8693."""

    grant_type = GRANT_TYPE


async def test_requests_oauthlib_with_basic(issuer_world: IssuerWorld, endpoint: str) -> None:
    session = OAuth2Session(client=ExchangingClient(NAME))
    token = await asyncio.to_thread(
        session.fetch_token,
        endpoint,
        auth=HTTPBasicAuth(NAME, issuer_world.world.key),
        **_subject(issuer_world),
    )
    session.close()
    assert token["access_token"].startswith("ya29.")
    assert token.scopes


async def test_requests_oauthlib_with_the_secret_in_the_form(
    issuer_world: IssuerWorld, endpoint: str
) -> None:
    session = OAuth2Session(client=ExchangingClient(NAME))
    token = await asyncio.to_thread(
        session.fetch_token,
        endpoint,
        client_secret=issuer_world.world.key,
        include_client_id=True,
        scope=[CALENDAR_READONLY],
        **_subject(issuer_world),
    )
    session.close()
    assert token["scope"] == [CALENDAR_READONLY]


async def test_requests_oauthlib_with_a_workloads_assertion(
    issuer_world: IssuerWorld, endpoint: str
) -> None:
    session = OAuth2Session(client=ExchangingClient(""))
    token = await asyncio.to_thread(
        session.fetch_token,
        endpoint,
        client_assertion_type=ASSERTION_TYPE,
        client_assertion=issuer_world.issuer.mint(),
        include_client_id=False,
        **_subject(issuer_world),
    )
    session.close()
    assert token["access_token"].startswith("ya29.")


async def test_requests_oauthlib_gets_the_errors(issuer_world: IssuerWorld, endpoint: str) -> None:
    session = OAuth2Session(client=ExchangingClient(NAME))
    with pytest.raises(InvalidClientError):
        await asyncio.to_thread(
            session.fetch_token,
            endpoint,
            auth=HTTPBasicAuth(NAME, "wrong"),
            **_subject(issuer_world),
        )
    with pytest.raises(InvalidScopeError):
        await asyncio.to_thread(
            session.fetch_token,
            endpoint,
            auth=HTTPBasicAuth(NAME, issuer_world.world.key),
            scope=[GMAIL_READONLY],
            **_subject(issuer_world),
        )
    session.close()
