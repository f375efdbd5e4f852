"""Reading the client, and the remedy in each refusal."""

from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.secret_sources.source import SourceMisconfigured
from broker.secret_sources.vault import VaultClientSource
from broker.settings import ConfiguredSecret, VaultSource, VaultTokenLogin
from devstack.openbao import AppRole
from tests.support.openbao import (
    VaultPlace,
    approle_login,
    as_root,
    enable_kv_in_namespace,
    token_login,
)


def source_of(config: VaultSource) -> VaultClientSource:
    return VaultClientSource(config, SystemClock())


def token_source(place: VaultPlace) -> VaultClientSource:
    return source_of(place.settings(token_login(place.create_token())))


async def refusal_of(source: VaultClientSource) -> str:
    with pytest.raises(SourceMisconfigured) as caught:
        await source.read()
    return str(caught.value)


async def test_a_token_reads_the_client(place: VaultPlace) -> None:
    place.put("the-secret")
    client = await token_source(place).read()
    assert client.client_id == "the-client"
    assert client.client_secret.reveal() == "the-secret"


async def test_an_approle_reads_the_client(place: VaultPlace) -> None:
    place.put("the-secret")
    source = source_of(place.settings(approle_login(place.create_approle())))
    assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_the_version_is_that_of_vault(place: VaultPlace) -> None:
    place.put("first")
    place.put("second")
    assert (await token_source(place).read()).version == 2


async def test_a_line_break_at_the_end_is_removed(place: VaultPlace) -> None:
    place.put("the-secret\n")
    assert (await token_source(place).read()).client_secret.reveal() == "the-secret"


async def test_a_ping_succeeds_without_a_secret(place: VaultPlace) -> None:
    await token_source(place).ping()


async def test_an_empty_path_says_what_to_store(place: VaultPlace) -> None:
    message = await refusal_of(token_source(place))
    assert f"`vault kv put -mount=secret {place.path} client_id=<id> client_secret" in message


async def test_a_path_written_with_data_is_explained(place: VaultPlace) -> None:
    place.put("the-secret")
    login = token_login(place.server.root_token)
    message = await refusal_of(source_of(place.settings(login, path=f"data/{place.path}")))
    assert "without `data/`" in message


async def test_a_mount_that_does_not_exist_is_named(place: VaultPlace) -> None:
    login = token_login(place.server.root_token)
    message = await refusal_of(source_of(place.settings(login, mount="elsewhere")))
    assert "no secrets engine at elsewhere/" in message


async def test_a_mount_of_version_1_is_explained(place: VaultPlace) -> None:
    mount = place.path.partition("/")[2]
    with as_root(place.server) as vault:
        vault.sys.enable_secrets_engine("kv", path=mount, options={"version": "1"})
        vault.secrets.kv.v1.create_or_update_secret("google", {"client_id": "x"}, mount_point=mount)
    login = token_login(place.server.root_token)
    message = await refusal_of(source_of(place.settings(login, mount=mount, path="google")))
    assert "must be KV version 2" in message


async def test_a_namespace_that_does_not_exist_is_named(place: VaultPlace) -> None:
    login = token_login(place.server.root_token)
    message = await refusal_of(source_of(place.settings(login, namespace="nowhere")))
    assert "VAULT_NAMESPACE" in message


async def test_a_namespace_is_read_within(place: VaultPlace) -> None:
    name = place.path.partition("/")[2]
    with as_root(place.server) as vault:
        enable_kv_in_namespace(vault, name)
        vault.secrets.kv.v2.create_or_update_secret(
            place.path, {"client_id": "within", "client_secret": "s"}
        )
    login = token_login(place.server.root_token)
    source = source_of(place.settings(login, namespace=name))
    assert (await source.read()).client_id == "within"
    await source.ping()


async def test_a_deleted_version_says_how_to_undelete_it(place: VaultPlace) -> None:
    place.put("the-secret")
    place.delete_newest()
    message = await refusal_of(token_source(place))
    assert f"`vault kv undelete -versions=<n> -mount=secret {place.path}`" in message


async def test_a_destroyed_version_is_reported_as_deleted(place: VaultPlace) -> None:
    place.put("the-secret")
    with as_root(place.server) as vault:
        vault.secrets.kv.v2.destroy_secret_versions(place.path, versions=[1])
    assert "is deleted" in await refusal_of(token_source(place))


@pytest.mark.parametrize("field", ["client_id", "client_secret"])
async def test_a_missing_field_is_named(place: VaultPlace, field: str) -> None:
    fields = {"client_id": "planted", "client_secret": "planted"}
    del fields[field]
    place.put_fields(fields)
    message = await refusal_of(token_source(place))
    assert f"{place.path} (version 1) has no field `{field}`" in message
    assert "planted" not in message


async def test_a_token_without_access_says_which_policy_it_needs(place: VaultPlace) -> None:
    place.put("the-secret")
    elsewhere = VaultPlace.new(place.server).create_token()
    message = await refusal_of(source_of(place.settings(token_login(elsewhere))))
    assert f'path "secret/data/{place.path}" {{ capabilities = ["read"] }}' in message


async def test_an_approle_without_access_says_which_policy_it_needs(place: VaultPlace) -> None:
    place.put("the-secret")
    elsewhere = VaultPlace.new(place.server).create_approle()
    message = await refusal_of(source_of(place.settings(approle_login(elsewhere))))
    assert f'path "secret/data/{place.path}" {{ capabilities = ["read"] }}' in message


async def test_an_unknown_token_is_distinguished_from_one_without_access(place: VaultPlace) -> None:
    place.put("the-secret")
    message = await refusal_of(source_of(place.settings(token_login(Secret("s.unknown")))))
    assert "put a new one in VAULT_TOKEN" in message


async def test_a_wrong_secret_id_says_how_to_make_another(place: VaultPlace) -> None:
    role = AppRole(place.create_approle().role_id, Secret("wrong"))
    message = await refusal_of(source_of(place.settings(approle_login(role))))
    assert "auth/approle/role/<role>/secret-id" in message


async def test_a_token_with_a_line_break_is_rejected_and_not_shown(place: VaultPlace) -> None:
    message = await refusal_of(source_of(place.settings(token_login(Secret("planted\ntoken")))))
    assert "VAULT_TOKEN holds a character" in message
    assert "planted" not in message


async def test_a_refused_token_is_read_again_from_its_file(
    place: VaultPlace, tmp_path: Path
) -> None:
    place.put("the-secret")
    file = tmp_path / "token"
    first = place.create_token()
    file.write_text(first.reveal())
    login = VaultTokenLogin(ConfiguredSecret("VAULT_TOKEN", path=file))
    source = source_of(place.settings(login))
    await source.read()

    with as_root(place.server) as vault:
        vault.auth.token.revoke(first.reveal())
    file.write_text(place.create_token().reveal())

    assert (await source.read()).client_secret.reveal() == "the-secret"


async def test_an_approle_whose_token_was_revoked_logs_in_again(place: VaultPlace) -> None:
    place.put("the-secret")
    role = place.create_approle()
    source = source_of(place.settings(approle_login(role)))
    await source.read()

    with as_root(place.server) as vault:
        vault.sys.revoke_prefix("auth/approle/login")

    assert (await source.read()).client_secret.reveal() == "the-secret"
