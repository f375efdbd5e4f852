"""The OAuth client in each kind of source."""

from functools import partial
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.settings import VaultJwtLogin, loader
from devstack.openbao import OpenBao
from tests.doctor.command import diagnose
from tests.support.issuer import oidc_issuer
from tests.support.openbao import VaultPlace, as_root
from tests.support.projected_tokens import ProjectedToken, jwt_role, trust_by_jwks
from tests.support.world import CLIENT_ID, CLIENT_SECRET


@pytest.fixture
def place(openbao: OpenBao) -> VaultPlace:
    """A path in a real OpenBao, for one test."""
    return VaultPlace.new(openbao)


@pytest.fixture
def projected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the projected token."""
    file = tmp_path / "token"
    monkeypatch.setattr(loader, "VaultJwtLogin", partial(VaultJwtLogin, token_file=file))
    return file


def create_token(server: OpenBao, token: str) -> None:
    """Create a token with this text and all permissions."""
    with as_root(server) as vault:
        vault.auth.token.create(id=token, policies=["root"])


def vault_settings(place: VaultPlace) -> dict[str, str]:
    return {
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": place.server.address,
        "VAULT_TOKEN": place.create_token().reveal(),
        "VAULT_KV_PATH": place.path,
    }


def test_the_client_id_is_shown_and_its_secret_is_not(env: dict[str, str]) -> None:
    diagnosis = diagnose(env)
    assert CLIENT_ID in diagnosis.words("secret source")
    assert CLIENT_SECRET not in diagnosis.words("secret source")


def test_a_credentials_file_of_the_wrong_kind_is_reported(
    env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "credentials.json"
    file.write_text('{"type": "service_account", "private_key": "planted-key"}')
    diagnosis = diagnose(
        {**env, "BROKER_SECRET_SOURCE": "file", "GOOGLE_CREDENTIALS_FILE": str(file)}
    )
    assert diagnosis.faulty == {"secret source"}
    assert "service account" in diagnosis.words("secret source")
    assert "planted-key" not in diagnosis.words("secret source")


def test_a_client_in_vault_is_read(env: dict[str, str], place: VaultPlace) -> None:
    place.put(CLIENT_SECRET, CLIENT_ID)
    diagnosis = diagnose({**env, **vault_settings(place)})
    assert diagnosis.verdicts("secret source") == ["ok"]
    assert CLIENT_ID in diagnosis.words("secret source")


def test_an_empty_vault_path_is_reported(env: dict[str, str], place: VaultPlace) -> None:
    diagnosis = diagnose({**env, **vault_settings(place)})
    assert diagnosis.faulty == {"secret source"}
    assert "nothing at" in diagnosis.words("secret source")


def test_an_unreachable_vault_is_reported(env: dict[str, str], place: VaultPlace) -> None:
    diagnosis = diagnose({**env, **vault_settings(place), "VAULT_ADDR": "http://127.0.0.1:9"})
    assert diagnosis.faulty == {"secret source"}
    assert "check that it runs" in diagnosis.words("secret source")


def test_every_address_of_vault_is_read(env: dict[str, str], place: VaultPlace) -> None:
    place.put(CLIENT_SECRET, CLIENT_ID)
    with OpenBao() as second:
        other = VaultPlace(second, place.path)
        create_token(place.server, "the-token")
        other.put("GOCSPX-an-older-one", CLIENT_ID)
        both = {
            **env,
            **vault_settings(place),
            "VAULT_TOKEN": "the-token",
            "VAULT_ADDR": f"{place.server.address},{second.address}",
        }
        diagnosis = diagnose(both)
        assert diagnosis.faulty == {"secret source"}
        assert f"Vault at {second.address} refuses the token" in diagnosis.words("secret source")

        create_token(second, "the-token")
        diagnosis = diagnose(both)
        assert diagnosis.verdicts("secret source") == ["warn", "ok"]
        assert "hold different clients" in diagnosis.words("secret source")

        other.put(CLIENT_SECRET, CLIENT_ID)
        assert diagnose(both).verdicts("secret source") == ["ok"]

        second.seal()
        diagnosis = diagnose(both)
        assert diagnosis.verdicts("secret source") == ["warn", "ok"]
        assert f"{second.address} is sealed" in diagnosis.words("secret source")


@pytest.mark.parametrize("method", ["kubernetes", "jwt"])
def test_an_unreadable_projected_token_is_reported(
    env: dict[str, str], place: VaultPlace, method: str, projected_to: Path
) -> None:
    login = {"VAULT_TOKEN": "", "VAULT_AUTH": method, "VAULT_ROLE": "token-broker"}
    diagnosis = diagnose({**env, **vault_settings(place), **login})
    assert diagnosis.faulty == {"secret source"}
    complaint = f"VAULT_AUTH={method}: can't read {projected_to}: No such file or directory"
    assert complaint in diagnosis.words("secret source")


def test_a_projected_token_logs_in(
    env: dict[str, str], own_openbao: OpenBao, projected_to: Path
) -> None:
    place = VaultPlace.new(own_openbao)
    place.put(CLIENT_SECRET, CLIENT_ID)
    with oidc_issuer(SystemClock()) as issuer:
        trust_by_jwks(own_openbao, issuer)
        login = {"VAULT_TOKEN": "", "VAULT_AUTH": "jwt", "VAULT_ROLE": jwt_role(place)}
        settings = {**env, **vault_settings(place), **login}
        token = ProjectedToken(issuer, projected_to)

        token.write()
        assert diagnose(settings).verdicts("secret source") == ["ok"]

        token.write(aud=["api"])
        diagnosis = diagnose(settings)
    assert diagnosis.faulty == {"secret source"}
    assert "aud ['api']" in diagnosis.words("secret source")
