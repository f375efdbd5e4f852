"""`broker doctor`: each kind of fault on real parts, found, told once, with a way to mend it."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner, Result

from broker.callers.keys import new_key
from broker.cli.doctor import doctor
from broker.clock import SystemClock
from broker.crypto.sealing import local_sealing_keys
from broker.database.schema import migrate
from broker.doctor.examination import examine
from broker.doctor.findings import Finding
from broker.secret import Secret
from broker.settings import VaultJwtLogin, sources
from devstack.google_standin import Fault, GoogleStandin
from devstack.openbao import OpenBao
from devstack.postgres import EmbeddedPostgres
from tests.support.issuer import OidcIssuer, oidc_issuer
from tests.support.openbao import VaultPlace, as_root
from tests.support.projected_tokens import ProjectedToken, jwt_role, trust_by_jwks
from tests.support.workloads import workload_stanza
from tests.support.world import CLIENT_ID, CLIENT_SECRET, environment, stanza

NEW_GRANT = """
INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, sealed_refresh_token,
                    refresh_token_key_id, connected_at, updated_at)
VALUES (gen_random_uuid(), 'user-1', '108', 'ada@example.com', 'c', '{{openid}}', 'active', '\\x01',
        '{key_id}', now(), now())
"""


@pytest.fixture
def env(tmp_path: Path, database_url: str, standin: GoogleStandin) -> dict[str, str]:
    """An installation in which nothing is wrong."""
    callers_file = tmp_path / "callers.yaml"
    callers_file.write_text(yaml.safe_dump({"callers": {"calendar-sync": stanza(new_key())}}))
    return {
        **environment(database_url, standin, callers_file),
        "GOOGLE_REDIRECT_URI": "http://127.0.0.1:8000/auth/google/callback",
    }


@pytest.fixture
def place(openbao: OpenBao) -> VaultPlace:
    """A path of the test's own in a real OpenBao."""
    return VaultPlace.new(openbao)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def run(env: Mapping[str, str], *arguments: str) -> Result:
    # An empty value is as good as none.
    unset = dict.fromkeys(("BROKER_LOG_LEVEL", "HTTP_PROXY", "HTTPS_PROXY"), "")
    return CliRunner().invoke(doctor, list(arguments), env={**unset, **env})


@dataclass(frozen=True)
class Told:
    """What the doctor said, by part."""

    exit_code: int
    findings: list[dict[str, Any]]

    def verdicts(self, part: str) -> list[str]:
        return [each["verdict"] for each in self.findings if each["part"] == part]

    def words(self, part: str) -> str:
        return "\n".join(
            f"{each['what']} → {each['remedy']}" for each in self.findings if each["part"] == part
        )

    @property
    def ill(self) -> set[str]:
        return {each["part"] for each in self.findings if each["verdict"] in ("fail", "warn")}


def ask(env: Mapping[str, str]) -> Told:
    result = run(env, "--json")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["well"] is (result.exit_code == 0)
    for finding in document["findings"]:
        needs_remedy = finding["verdict"] in ("fail", "warn")
        assert (finding["remedy"] is not None) is needs_remedy
    return Told(result.exit_code, document["findings"])


def test_a_sound_installation_is_all_well(env: dict[str, str]) -> None:
    told = ask(env)
    assert told.exit_code == 0
    assert told.ill == set()
    assert {each["part"] for each in told.findings} == {
        "settings", "database", "failover", "sealing keys", "secret source", "google",
        "redirect URI", "clock", "callers file",
    }  # fmt: skip


def test_the_text_has_a_line_for_each_and_no_colour_where_nobody_looks(
    env: dict[str, str],
) -> None:
    result = run(env)
    assert result.exit_code == 0
    assert all(line.startswith("ok    ") for line in result.stdout.splitlines())
    assert "\x1b" not in result.stdout


def test_a_fault_is_told_with_its_remedy_below(env: dict[str, str]) -> None:
    lines = run({**env, "GOOGLE_SCOPES": ""}).stdout.splitlines()
    assert lines[0].startswith("FAIL  settings: GOOGLE_SCOPES is missing")
    assert lines[1].startswith("      → ")


def test_an_issuer_whose_keys_can_not_be_had_is_told(
    env: dict[str, str], issuer: OidcIssuer
) -> None:
    callers_file = Path(env["BROKER_CALLERS_FILE"])
    callers = {"calendar-sync": workload_stanza(issuer)}
    callers_file.write_text(yaml.safe_dump({"callers": callers}))
    told = ask(env)
    assert (told.exit_code, told.verdicts("issuers")) == (0, ["ok"])
    issuer.break_down(403)
    told = ask(env)
    assert (told.exit_code, told.verdicts("issuers")) == (1, ["fail"])
    assert issuer.url in told.words("issuers")
    assert "token_file" in told.words("issuers")


def test_commits_that_failovers_lost_are_told(
    env: dict[str, str], postgres: EmbeddedPostgres, database_name: str
) -> None:
    lost = (
        ("now()", "alice", "consent"),
        # Two replicas had heard of it.
        ("now()", "bob", "revocation:restored"),
        ("now()", "bob", "revocation:restored"),
        ("now() - interval '8 days'", "carol", "consent"),
    )
    for at, user, outcome in lost:
        postgres.execute(
            "INSERT INTO audit_events (at, action, outcome, user_id, account_sub, scopes) "
            f"VALUES ({at}, 'commit_lost', '{outcome}', '{user}', '108', '{{}}')",
            database_name,
        )
    told = ask(env)
    assert (told.exit_code, told.verdicts("failover")) == (0, ["warn"])
    assert "1 consent, 1 revocation" in told.words("failover")
    assert "broker audit show --action commit_lost" in told.words("failover")


def test_a_database_elsewhere_without_verified_tls_is_a_warning(env: dict[str, str]) -> None:
    env["DATABASE_REPLICA_URL"] = "postgresql://broker:hunter2@db.invalid/broker"
    told = ask(env)
    assert (told.exit_code, told.verdicts("settings")) == (0, ["warn", "ok"])
    assert "DATABASE_REPLICA_URL leads over a network" in told.words("settings")
    assert "sslmode=verify-full" in told.words("settings")
    assert "hunter2" not in str(told.findings)


def test_a_misspelt_setting_is_a_warning(env: dict[str, str]) -> None:
    told = ask({**env, "BROKER_LOGLEVEL": "hunter2"})
    assert told.exit_code == 0
    assert told.verdicts("settings") == ["warn", "ok"]
    assert "BROKER_LOGLEVEL is not a setting" in told.words("settings")
    assert "hunter2" not in told.words("settings")


def test_nothing_secret_is_shown(env: dict[str, str], database_url: str) -> None:
    password = urlsplit(database_url).password
    assert password
    broken = {
        **env,
        "DATABASE_URL": database_url.replace(password, password[::-1]),
        "GOOGLE_DISCOVERY_URL": "http://127.0.0.1:9/planted-path",
    }
    shown = run(env).output + run(broken).output + run(broken, "--json").output
    for secret in (CLIENT_SECRET, env["SECRET_KEY"], password, password[::-1]):
        assert secret not in shown


def test_every_wrong_setting_is_told_at_once(env: dict[str, str]) -> None:
    told = ask({**env, "GOOGLE_SCOPES": "", "SECRET_KEY": "short", "DATABASE_URL": ""})
    assert told.exit_code == 1
    assert told.verdicts("settings") == ["fail"] * 3


@pytest.mark.parametrize(
    ("change", "skipped"),
    [
        ({"DATABASE_URL": ""}, {"database", "sealing keys"}),
        ({"SECRET_KEY": "short"}, {"sealing keys"}),
        ({"GOOGLE_CLIENT_SECRET": ""}, {"secret source"}),
        ({"BROKER_SECRET_SOURCE": "vault", "VAULT_AUTH": "magic"}, {"secret source"}),
        ({"BROKER_SECRET_SOURCE": "vault", "VAULT_AUTH": "jwt"}, {"secret source"}),
        ({"BROKER_SECRET_SOURCE": "aws"}, {"secret source"}),
        ({"GOOGLE_DISCOVERY_URL": "http://google.example"}, {"google"}),
        ({"BROKER_WEBHOOK_URL": "https://app.example.com/hooks"}, set()),
        ({"BROKER_WEBHOOK_SECRET": "whsec_short"}, set()),
        ({"GOOGLE_REDIRECT_URI": "http://app.example.com/x"}, {"redirect URI"}),
        ({"BROKER_CALLERS_FILE": ""}, {"callers file"}),
        ({"BROKER_LOG_LEVEL": "LOUD"}, set()),
    ],
)
def test_what_a_wrong_setting_leaves_open_is_looked_at_all_the_same(
    env: dict[str, str], change: dict[str, str], skipped: set[str]
) -> None:
    told = ask({**env, **change})
    assert told.ill == {"settings"}
    assert {each["part"] for each in told.findings if each["verdict"] == "skip"} == skipped


def test_a_wrong_password_is_told_apart(env: dict[str, str], database_url: str) -> None:
    told = ask({**env, "DATABASE_URL": database_url.replace("@", "x@")})
    assert told.ill == {"database"}
    assert "correct the user or the password" in told.words("database")


def test_a_database_that_is_not_there_is_told_apart(
    env: dict[str, str], postgres: EmbeddedPostgres
) -> None:
    told = ask({**env, "DATABASE_URL": postgres.url("no_such_database")})
    assert told.ill == {"database"}
    assert "create the database" in told.words("database")


def test_a_postgresql_that_is_not_there_is_told_apart(env: dict[str, str]) -> None:
    told = ask({**env, "DATABASE_URL": "postgresql://broker@127.0.0.1:9/broker"})
    assert told.ill == {"database"}
    assert "see that PostgreSQL runs" in told.words("database")


def test_parts_that_never_answer_cost_five_seconds_together(
    env: dict[str, str], silent_port: int
) -> None:
    began = time.monotonic()
    told = ask(
        {
            **env,
            "DATABASE_URL": f"postgresql://broker@127.0.0.1:{silent_port}/broker",
            "GOOGLE_DISCOVERY_URL": f"http://127.0.0.1:{silent_port}/",
        }
    )
    # One after the other would take ten.
    assert time.monotonic() - began < 9.5
    assert told.ill == {"database", "google"}
    assert told.verdicts("clock") == ["skip"]


def test_a_database_that_is_not_migrated_is_told(env: dict[str, str], database_url: str) -> None:
    asyncio.run(migrate(Secret(database_url), to=1))
    told = ask(env)
    assert told.ill == {"database"}
    assert "broker migrate" in told.words("database")
    assert told.verdicts("sealing keys") == ["skip"]


def test_refresh_tokens_that_no_configured_key_opens_are_counted(
    env: dict[str, str], postgres: EmbeddedPostgres, database_name: str
) -> None:
    postgres.execute(NEW_GRANT.format(key_id="local:0123456789abcdef"), database_name)
    told = ask(env)
    assert told.verdicts("sealing keys") == ["fail"]
    assert "does not open 1 of the stored refresh tokens" in told.words("sealing keys")
    assert "local:0123456789abcdef" in told.words("sealing keys")


def test_a_rotated_key_is_well_while_the_former_one_is_kept(
    env: dict[str, str], postgres: EmbeddedPostgres, database_name: str
) -> None:
    key = local_sealing_keys([Secret(env["SECRET_KEY"])])[0]
    postgres.execute(NEW_GRANT.format(key_id=key.id), database_name)
    former, newer = env["SECRET_KEY"], "another-key-of-more-than-32-bytes-0123456789"
    assert ask({**env, "SECRET_KEY": newer}).verdicts("sealing keys") == ["fail"]
    both = ask({**env, "SECRET_KEY": f"{newer},{former}"})
    assert both.verdicts("sealing keys") == ["ok"]
    assert "1 of them with a former one" in both.words("sealing keys")


def test_the_client_is_named_and_its_secret_is_not(env: dict[str, str]) -> None:
    told = ask(env)
    assert CLIENT_ID in told.words("secret source")
    assert CLIENT_SECRET not in told.words("secret source")


def test_a_credentials_file_of_the_wrong_kind_is_told(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text('{"type": "service_account", "private_key": "planted-key"}')
    told = ask({**env, "BROKER_SECRET_SOURCE": "file", "GOOGLE_CREDENTIALS_FILE": str(file)})
    assert told.ill == {"secret source"}
    assert "service account" in told.words("secret source")
    assert "planted-key" not in told.words("secret source")


def test_a_client_in_vault_is_read(env: dict[str, str], place: VaultPlace) -> None:
    place.put(CLIENT_SECRET, CLIENT_ID)
    told = ask({**env, **vault_settings(place)})
    assert told.verdicts("secret source") == ["ok"]
    assert CLIENT_ID in told.words("secret source")


def test_a_vault_path_without_anything_is_told(env: dict[str, str], place: VaultPlace) -> None:
    told = ask({**env, **vault_settings(place)})
    assert told.ill == {"secret source"}
    assert "nothing at" in told.words("secret source")


def test_a_vault_that_is_away_is_told(env: dict[str, str], place: VaultPlace) -> None:
    told = ask({**env, **vault_settings(place), "VAULT_ADDR": "http://127.0.0.1:9"})
    assert told.ill == {"secret source"}
    assert "see that it runs" in told.words("secret source")


def test_each_of_vaults_addresses_is_read(env: dict[str, str], place: VaultPlace) -> None:
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
        told = ask(both)
        assert told.ill == {"secret source"}
        assert f"Vault at {second.address} refuses the token" in told.words("secret source")

        create_token(second, "the-token")
        told = ask(both)
        assert told.verdicts("secret source") == ["warn", "ok"]
        assert "hold different clients" in told.words("secret source")

        other.put(CLIENT_SECRET, CLIENT_ID)
        assert ask(both).verdicts("secret source") == ["ok"]

        second.seal()
        told = ask(both)
        assert told.verdicts("secret source") == ["warn", "ok"]
        assert f"{second.address} is sealed" in told.words("secret source")


def create_token(server: OpenBao, token: str) -> None:
    """One that may do everything, with a text that the test chooses."""
    with as_root(server) as vault:
        vault.auth.token.create(id=token, policies=["root"])


@pytest.mark.parametrize("method", ["kubernetes", "jwt"])
def test_a_projected_token_that_can_not_be_read_is_told(
    env: dict[str, str], place: VaultPlace, method: str, projected_to: Path
) -> None:
    login = {"VAULT_TOKEN": "", "VAULT_AUTH": method, "VAULT_ROLE": "token-broker"}
    told = ask({**env, **vault_settings(place), **login})
    assert told.ill == {"secret source"}
    complaint = f"VAULT_AUTH={method}: can't read {projected_to}: No such file or directory"
    assert complaint in told.words("secret source")


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
        assert ask(settings).verdicts("secret source") == ["ok"]

        token.write(aud=["api"])
        told = ask(settings)
    assert told.ill == {"secret source"}
    assert "aud ['api']" in told.words("secret source")


@pytest.fixture
def projected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's kubelet writes the token."""
    file = tmp_path / "token"
    monkeypatch.setattr(sources, "VaultJwtLogin", partial(VaultJwtLogin, token_file=file))
    return file


def vault_settings(place: VaultPlace) -> dict[str, str]:
    return {
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": place.server.address,
        "VAULT_TOKEN": place.create_token().reveal(),
        "VAULT_KV_PATH": place.path,
    }


def test_a_google_out_of_reach_is_told(env: dict[str, str]) -> None:
    told = ask({**env, "GOOGLE_DISCOVERY_URL": "http://127.0.0.1:9/"})
    assert told.ill == {"google"}
    assert "firewall" in told.words("google")


@pytest.mark.parametrize(
    "fault", [Fault.http(404), Fault.not_json(), Fault.http(200, "<html>", {})]
)
def test_an_address_that_is_no_provider_is_told(
    env: dict[str, str], standin: GoogleStandin, fault: Fault
) -> None:
    standin.faults.next("discovery", fault)
    told = ask(env)
    assert told.ill == {"google"}
    assert "GOOGLE_DISCOVERY_URL" in told.words("google")


def test_an_endpoint_that_could_be_overheard_is_named(
    env: dict[str, str], standin: GoogleStandin
) -> None:
    standin.faults.next("discovery", Fault.replacing(token_endpoint="http://google.example/token"))
    told = ask(env)
    assert told.verdicts("google") == ["fail"]
    assert "token_endpoint" in told.words("google")


def test_an_endpoint_that_is_missing_is_named(env: dict[str, str], standin: GoogleStandin) -> None:
    standin.faults.next("discovery", Fault.without("jwks_uri"))
    told = ask(env)
    assert told.verdicts("google") == ["fail"]
    assert "jwks_uri is missing" in told.words("google")


def test_an_issuer_of_another_house_is_only_a_warning(
    env: dict[str, str], standin: GoogleStandin
) -> None:
    standin.faults.next("discovery", Fault.replacing(issuer="https://issuer.example"))
    told = ask(env)
    assert told.exit_code == 0
    assert told.verdicts("google") == ["warn", "ok"]


def test_each_redirect_uri_is_to_be_registered(env: dict[str, str]) -> None:
    uris = "https://app.example.com/auth/google/callback"
    told = ask({**env, "GOOGLE_REDIRECT_URI": f"{uris},{uris.replace('app.', 'api.')}"})
    assert told.verdicts("redirect URI") == ["ok", "ok"]
    assert "must be registered at Google" in told.words("redirect URI")
    assert "your proxy must pass it on to 127.0.0.1:8000" in told.words("redirect URI")


def test_a_redirect_uri_that_leads_to_another_port_is_a_warning(env: dict[str, str]) -> None:
    told = ask({**env, "BROKER_PUBLIC_LISTEN": "127.0.0.1:8005"})
    assert told.exit_code == 0
    assert told.verdicts("redirect URI") == ["warn"]


@dataclass(frozen=True)
class ClockOff:
    """The real time, and some more."""

    by: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by

    def epoch(self) -> float:
        return self.now().timestamp()


@pytest.mark.parametrize(
    ("seconds", "verdict", "words"),
    [
        (0, "ok", "within "),
        (20, "warn", " s ahead of "),
        (-300, "FAIL", " s behind "),
    ],
)
def test_the_clock_is_compared_with_googles_and_postgresqls(
    env: dict[str, str], seconds: int, verdict: str, words: str
) -> None:
    found = asyncio.run(examine(env, ClockOff(timedelta(seconds=seconds))))
    about_clock: list[Finding] = [each for each in found if each.part == "clock"]
    assert [each.verdict.value for each in about_clock] == [verdict, verdict]
    assert all(words in each.what for each in about_clock)
    assert about_clock[0].what.endswith("Google's")
    assert about_clock[1].what.endswith("PostgreSQL's")


def test_every_problem_of_the_callers_file_is_told(env: dict[str, str]) -> None:
    Path(env["BROKER_CALLERS_FILE"]).write_text(
        "callers:\n  a:\n    keys: [nonsense]\n    can: [token:read]\n    users: ['*']\n"
    )
    told = ask(env)
    assert told.exit_code == 1
    assert set(told.verdicts("callers file")) == {"fail"}
    assert "did you mean" in told.words("callers file")


def test_a_callers_file_that_is_not_there_is_told(env: dict[str, str]) -> None:
    told = ask({**env, "BROKER_CALLERS_FILE": "/no/such/file"})
    assert told.ill == {"callers file"}


def test_scopes_that_the_broker_may_not_ask_for_are_a_warning(env: dict[str, str]) -> None:
    told = ask({**env, "GOOGLE_SCOPES": "https://www.googleapis.com/auth/calendar"})
    assert told.exit_code == 0
    assert told.verdicts("callers file") == ["warn", "ok"]
    assert "not in GOOGLE_SCOPES" in told.words("callers file")
