"""`VAULT_AUTH=jwt`: a login with the token that Kubernetes projects, on a real OpenBao."""

import asyncio
import logging
import os
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.secret_sources.source import SourceError, SourceMisconfigured
from broker.secret_sources.vault import VaultClientSource
from broker.secret_sources.vault_api import VaultApi
from broker.secret_sources.vault_token import TokenKeeper
from broker.settings import VaultJwtLogin, VaultSource
from devstack.openbao import OpenBao
from tests.secret_sources.client_watch import StartWatching, eventually, logged_events
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer, SigningKey, private_key
from tests.support.openbao import VaultPlace, as_root, enable_kv_in_namespace
from tests.support.projected_tokens import (
    AUDIENCE,
    HOUR,
    SUBJECT,
    ProjectedToken,
    jwt_role,
    trust_by_jwks,
    trust_by_pem,
)


def source_of(config: VaultSource) -> VaultClientSource:
    return VaultClientSource(config, SystemClock())


def keeper_of(place: VaultPlace, login: VaultJwtLogin, clock: ManualClock) -> TokenKeeper:
    return TokenKeeper(VaultApi(place.server.address, None), login, clock)


async def refusal_of(source: VaultClientSource) -> str:
    with pytest.raises(SourceMisconfigured) as caught:
        await source.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def looked_up(place: VaultPlace, token: Secret) -> dict[str, Any]:
    with as_root(place.server) as vault:
        data: dict[str, Any] = vault.auth.token.lookup(token.reveal())["data"]
        return data


async def test_a_projected_token_reads_the_client(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write()
    source = source_of(jwt_place.settings(projected.login(jwt_role(jwt_place))))
    assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_an_issuer_may_be_configured_by_its_pem(
    own_openbao: OpenBao, projected: ProjectedToken
) -> None:
    trust_by_pem(own_openbao, projected.issuer)
    place = VaultPlace.new(own_openbao)
    place.put("the-secret")
    projected.write()
    source = source_of(place.settings(projected.login(jwt_role(place))))
    assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_a_login_is_within_the_namespace(
    jwt_server: OpenBao, jwt_issuer: OidcIssuer, projected: ProjectedToken
) -> None:
    jwt_place, name = VaultPlace.new(jwt_server), "team-a"
    with as_root(jwt_server) as vault:
        enable_kv_in_namespace(vault, name)
        fields = {"client_id": "within", "client_secret": "s"}
        vault.secrets.kv.v2.create_or_update_secret(jwt_place.path, fields)
    trust_by_jwks(jwt_server, jwt_issuer, namespace=name)
    login = projected.login(jwt_role(jwt_place, namespace=name))
    projected.write()

    assert (await source_of(jwt_place.settings(login, namespace=name)).read()).client_id == "within"
    assert "has no role" in await refusal_of(source_of(jwt_place.settings(login)))


# ---- what is refused


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["api"]},
        {"iss": "https://other.example.com"},
        {"sub": "system:serviceaccount:brokers:other"},
        {"nbf": 32_503_680_000},
    ],
    ids=["audience", "issuer", "subject", "not yet"],
)
async def test_the_claims_of_a_refused_token_are_shown(
    jwt_place: VaultPlace, projected: ProjectedToken, claims: dict[str, Any]
) -> None:
    token = projected.write(**claims)
    message = await refusal_of(source_of(jwt_place.settings(projected.login(jwt_role(jwt_place)))))
    shown = {"sub": SUBJECT, "aud": [AUDIENCE], "iss": projected.issuer.url} | claims
    assert message.startswith(f"Vault at {jwt_place.server.address} refuses the role ")
    assert f"sub {shown['sub']!r}, aud {shown['aud']!r}, iss {shown['iss']!r}" in message
    assert token.reveal() not in message


async def test_a_token_with_an_unknown_signature_is_refused(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write(key=SigningKey("of-nobody", "RS256", private_key("RS256")))
    message = await refusal_of(source_of(jwt_place.settings(projected.login(jwt_role(jwt_place)))))
    assert "and that it has the issuer's keys" in message


async def test_an_expired_token_is_reported_as_expired(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write(exp=int(time.time()) - 3600)
    message = await refusal_of(source_of(jwt_place.settings(projected.login(jwt_role(jwt_place)))))
    assert f"the token in {projected.file}: it has expired" in message


async def test_a_misspelt_role_is_named(jwt_place: VaultPlace, projected: ProjectedToken) -> None:
    projected.write()
    message = await refusal_of(source_of(jwt_place.settings(projected.login("tokenbroker"))))
    assert "has no role 'tokenbroker' at auth/jwt" in message
    assert "VAULT_ROLE" in message


async def test_a_misspelt_namespace_is_named(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write()
    config = jwt_place.settings(projected.login(jwt_role(jwt_place)), namespace="nowhere")
    assert "doesn't know the namespace" in await refusal_of(source_of(config))


async def test_a_disabled_auth_method_is_reported(
    openbao: OpenBao, projected: ProjectedToken
) -> None:
    projected.write()
    config = VaultPlace.new(openbao).settings(projected.login("any", "kubernetes"))
    assert "the method is enabled there" in await refusal_of(source_of(config))


async def test_a_login_without_access_says_which_policy_it_needs(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write()
    elsewhere = projected.login(jwt_role(VaultPlace.new(jwt_place.server)))
    message = await refusal_of(source_of(jwt_place.settings(elsewhere)))
    assert f'path "secret/data/{jwt_place.path}" {{ capabilities = ["read"] }}' in message


# ---- the file


async def test_the_file_is_read_at_each_login(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    login, clock = projected.login(jwt_role(jwt_place)), ManualClock()
    keeper = keeper_of(jwt_place, login, clock)
    for number in range(3):
        projected.write()
        token = await keeper.token()
        assert looked_up(jwt_place, token)["display_name"] == f"jwt-token-{number}"
        clock.advance(2 * HOUR)


def nothing(file: Path) -> None:
    file.unlink(missing_ok=True)


def made(content: bytes) -> Any:
    return lambda file: file.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (nothing, "No such file or directory"),
        (made(b" \n"), "it is empty"),
        (made(b"\xff\xfe"), "it is not text"),
        (made(b"x" * 70_000), "it is much larger than a secret"),
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "it is not a regular file"),
        (lambda file: file.symlink_to(file), "Too many levels of symbolic links"),
        (made(b"planted-password"), "it is not a JWT"),
        (made(b"planted." * 3), "it is not a JWT"),
        (made(b"e30.e30.planted"), "it is not a JWT"),
    ],
    ids=["missing", "empty", "bytes", "large", "folder", "pipe", "loop", "text", "dots", "blank"],
)
async def test_a_bad_token_file_is_reported_and_a_good_one_is_used_immediately(
    jwt_place: VaultPlace, projected: ProjectedToken, spoil: Any, complaint: str
) -> None:
    source = source_of(jwt_place.settings(projected.login(jwt_role(jwt_place))))
    spoil(projected.file)
    async with asyncio.timeout(20):
        message = await refusal_of(source)
    assert str(projected.file) in message
    assert complaint in message
    assert "planted" not in message

    if projected.file.is_dir():
        projected.file.rmdir()
    projected.write()
    assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_a_revoked_token_is_replaced_once_its_file_is_back(
    jwt_place: VaultPlace,
    projected: ProjectedToken,
    start_watching: StartWatching,
    caplog: pytest.LogCaptureFixture,
) -> None:
    projected.write()
    role = jwt_role(jwt_place)
    current = await start_watching(source_of(jwt_place.settings(projected.login(role))))
    projected.file.unlink()
    with as_root(jwt_place.server) as vault, caplog.at_level(logging.WARNING):
        vault.sys.revoke_prefix("auth/jwt/login")
        await eventually(lambda: "oauth_client_unreadable" in logged_events(caplog))
    assert current.client.client_secret.reveal() == "the-secret"
    with pytest.raises(SourceMisconfigured, match=r"can't read .*token: No such file"):
        await current.ping()

    projected.write()
    jwt_place.put("rotated")
    await eventually(lambda: current.client.client_secret.reveal() == "rotated")
    await current.ping()


# ---- how long its tokens live


async def test_a_token_is_renewed_without_its_file(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write()
    clock = ManualClock()
    keeper = keeper_of(jwt_place, projected.login(jwt_role(jwt_place)), clock)
    token = await keeper.token()
    projected.file.unlink()
    clock.advance(timedelta(minutes=41))
    await keeper.maintain()
    assert await keeper.token() == token
    assert "last_renewal" in looked_up(jwt_place, token)


async def test_a_batch_token_is_replaced_before_its_end(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write()
    clock = ManualClock()
    keeper = keeper_of(jwt_place, projected.login(jwt_role(jwt_place, token_type="batch")), clock)
    first = await keeper.token()
    assert looked_up(jwt_place, first)["type"] == "batch"
    clock.advance(timedelta(minutes=41))
    await keeper.maintain()
    assert await keeper.token() != first


async def test_a_token_with_a_limited_number_of_uses_is_replaced(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write()
    source = source_of(jwt_place.settings(projected.login(jwt_role(jwt_place, token_num_uses=1))))
    for _ in range(3):
        assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_a_failed_login_leaves_the_token_in_use_until_it_expires(
    jwt_place: VaultPlace, projected: ProjectedToken
) -> None:
    projected.write()
    clock = ManualClock()
    keeper = keeper_of(jwt_place, projected.login(jwt_role(jwt_place, token_type="batch")), clock)
    token = await keeper.token()
    projected.file.unlink()
    clock.advance(timedelta(minutes=41))
    with pytest.raises(SourceMisconfigured, match="No such file"):
        await keeper.maintain()
    assert await keeper.token() == token
    clock.advance(timedelta(minutes=20))
    with pytest.raises(SourceMisconfigured, match="No such file"):
        await keeper.token()


async def test_the_token_is_in_no_error_and_no_log(
    jwt_place: VaultPlace, projected: ProjectedToken, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    login, shown = projected.login(jwt_role(jwt_place)), ""
    for claims in ({}, {"aud": ["api"]}, {"exp": 1}):
        parts = projected.write(**claims).reveal().split(".")
        for address in (jwt_place.server.address, "http://127.0.0.1:9"):
            config = jwt_place.settings(login, addresses=(address,), path="nothing")
            with pytest.raises(SourceError) as caught:
                await source_of(config).read()
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
            shown += "".join(traceback.format_exception(caught.value)) + repr(config)
        assert not any(part in shown + caplog.text for part in parts)
