"""The mapping of answers and failures, on servers that give every request one answer."""

import json
from typing import Any

import pytest

from broker.secret import Secret
from broker.secret_sources.source import SourceUnavailable
from broker.secret_sources.vault_api import KvSecret, VaultApi, VaultRefusal, VaultToken
from tests.secret_sources.bad_vaults import FakeVaults

JSON = {"Content-Type": "application/json"}
KV_METADATA = {"data": {"data": None, "metadata": {"version": 3}}}


async def read(api: VaultApi) -> KvSecret | VaultRefusal:
    return await api.read_kv(Secret("any"), mount="secret", path="google")


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (200, {"Content-Type": "text/html"}, b"<p>Welcome</p>", "not as Vault does"),
        (200, JSON, b'{"data": null}', "not as Vault does"),
        (403, JSON, b"[]", "not as Vault does"),
        (400, JSON, b'{"errors": [1]}', "not as Vault does"),
        (307, {"Location": "http://127.0.0.1:1/v1/x"}, b"", "redirects elsewhere"),
        (400, {}, b"Client sent an HTTP request to an HTTPS server.\n", "speaks https"),
        (400, JSON, b'{"errors": ["Upgrading from non-versioned to"]}', "still upgrading"),
        (429, {}, b"", "limits the rate"),
        (500, {}, b"", "fails with an internal error"),
        (501, {}, b"", "is not initialised"),
        (502, {}, b"<html>", "fails with an internal error"),
        (504, {}, b"", "fails with an internal error"),
        (503, {}, b"", "is not ready"),
        (503, JSON, b'{"errors": ["Vault is sealed"]}', "is sealed"),
    ],
)
async def test_an_answer_that_is_not_vaults_is_described(
    fake_vaults: FakeVaults, status: int, headers: dict[str, str], body: bytes, words: str
) -> None:
    address = fake_vaults.start(status, headers, body)
    with pytest.raises(SourceUnavailable) as caught:
        await read(VaultApi(address, None))
    assert str(caught.value).startswith(f"{address} ")
    assert words in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "document", "refusal"),
    [
        (401, {"errors": []}, VaultRefusal.DENIED),
        (403, {"errors": ["permission denied"]}, VaultRefusal.DENIED),
        (404, {"errors": []}, VaultRefusal.NOTHING_THERE),
        (404, KV_METADATA, VaultRefusal.VERSION_DELETED),
        (404, {"errors": ["no handler for route 'kv/'"]}, VaultRefusal.NO_SUCH_MOUNT),
        (404, {"errors": ["namespace not found"]}, VaultRefusal.NO_SUCH_NAMESPACE),
        (400, {"errors": ["invalid role name 'x'"]}, VaultRefusal.NO_SUCH_ROLE),
        (400, {"errors": ["role 'x' could not be found"]}, VaultRefusal.NO_SUCH_ROLE),
        (400, {"errors": ["missing client token"]}, VaultRefusal.BAD_REQUEST),
        (500, {"errors": ["cannot renew past the maximum"]}, VaultRefusal.BAD_REQUEST),
    ],
)
async def test_a_refusal_has_its_kind(
    fake_vaults: FakeVaults, status: int, document: dict[str, Any], refusal: VaultRefusal
) -> None:
    address = fake_vaults.start(status, JSON, json.dumps(document).encode())
    assert await read(VaultApi(address, None)) is refusal


@pytest.mark.parametrize(
    ("status", "document", "words"),
    [
        (200, {"initialized": True, "sealed": True}, "is sealed"),
        (200, {"initialized": False, "sealed": True}, "is not initialised"),
        (403, {"errors": ["permission denied"]}, "refuses to say whether it is sealed"),
        (404, {"errors": []}, "refuses to say whether it is sealed"),
    ],
)
async def test_a_ping_fails_for_a_server_that_is_not_ready(
    fake_vaults: FakeVaults, status: int, document: dict[str, Any], words: str
) -> None:
    address = fake_vaults.start(status, JSON, json.dumps(document).encode())
    with pytest.raises(SourceUnavailable, match=words):
        await VaultApi(address, None).ping()


async def test_a_ping_succeeds_for_a_server_that_is_unsealed(fake_vaults: FakeVaults) -> None:
    document = {"initialized": True, "sealed": False}
    address = fake_vaults.start(200, JSON, json.dumps(document).encode())
    await VaultApi(address, None).ping()


@pytest.mark.parametrize(
    ("seconds", "expires", "lifetime"), [(60, "2030-01-01", 60.0), (0, None, None)]
)
async def test_a_lookup_has_the_remaining_lifetime(
    fake_vaults: FakeVaults, seconds: int, expires: str | None, lifetime: float | None
) -> None:
    data = {"id": "hvs.any", "ttl": seconds, "expire_time": expires, "renewable": True}
    address = fake_vaults.start(200, JSON, json.dumps({"data": data}).encode())
    token = await VaultApi(address, None).look_up(Secret("hvs.any"))
    assert isinstance(token, VaultToken)
    assert (token.lifetime and token.lifetime.total_seconds()) == lifetime


async def test_hvac_sends_no_token_of_the_environment(
    fake_vaults: FakeVaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "meant-for-the-operators-own-tools")
    api = VaultApi(fake_vaults.start(500, {}, b""), None)
    with pytest.raises(SourceUnavailable):
        await api.log_in_with_approle(Secret("any"), Secret("any"))
    assert "X-Vault-Request" in fake_vaults.headers_seen
    assert "X-Vault-Token" not in fake_vaults.headers_seen


async def test_a_closed_api_sends_nothing(fake_vaults: FakeVaults) -> None:
    api = VaultApi(fake_vaults.start(500, {}, b""), None)
    api.close()
    with pytest.raises(SourceUnavailable, match="is closed"):
        await read(api)
    assert not fake_vaults.headers_seen
