"""PostgreSQL, its schema, lost commits and sealing keys."""

import asyncio

from broker.crypto.sealing import local_sealing_keys
from broker.database.schema import migrate
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres
from tests.doctor.command import diagnose

NEW_GRANT = """
INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, sealed_refresh_token,
                    refresh_token_key_id, connected_at, updated_at)
VALUES (gen_random_uuid(), 'user-1', '108', 'ada@example.com', 'c', '{{openid}}', 'active', '\\x01',
        '{key_id}', now(), now())
"""


def test_commits_lost_in_failovers_are_counted(
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
    diagnosis = diagnose(env)
    assert (diagnosis.exit_code, diagnosis.verdicts("failover")) == (0, ["warn"])
    assert "1 consent, 1 revocation" in diagnosis.words("failover")
    assert "broker audit show --action commit_lost" in diagnosis.words("failover")


def test_a_wrong_database_password_has_its_own_remedy(
    env: dict[str, str], database_url: str
) -> None:
    diagnosis = diagnose({**env, "DATABASE_URL": database_url.replace("@", "x@")})
    assert diagnosis.faulty == {"database"}
    assert "correct the user or the password" in diagnosis.words("database")


def test_a_missing_database_has_its_own_remedy(
    env: dict[str, str], postgres: EmbeddedPostgres
) -> None:
    diagnosis = diagnose({**env, "DATABASE_URL": postgres.url("no_such_database")})
    assert diagnosis.faulty == {"database"}
    assert "create the database" in diagnosis.words("database")


def test_an_unreachable_postgresql_has_its_own_remedy(env: dict[str, str]) -> None:
    diagnosis = diagnose({**env, "DATABASE_URL": "postgresql://broker@127.0.0.1:9/broker"})
    assert diagnosis.faulty == {"database"}
    assert "check that PostgreSQL runs" in diagnosis.words("database")


def test_a_database_without_this_schema_is_reported(env: dict[str, str], database_url: str) -> None:
    asyncio.run(migrate(Secret(database_url), to=1))
    diagnosis = diagnose(env)
    assert diagnosis.faulty == {"database"}
    assert "broker migrate" in diagnosis.words("database")
    assert diagnosis.verdicts("sealing keys") == ["skip"]


def test_refresh_tokens_sealed_with_an_unknown_key_are_counted(
    env: dict[str, str], postgres: EmbeddedPostgres, database_name: str
) -> None:
    postgres.execute(NEW_GRANT.format(key_id="local:0123456789abcdef"), database_name)
    diagnosis = diagnose(env)
    assert diagnosis.verdicts("sealing keys") == ["fail"]
    assert "does not open 1 of the stored refresh tokens" in diagnosis.words("sealing keys")
    assert "local:0123456789abcdef" in diagnosis.words("sealing keys")


def test_a_rotated_key_is_ok_while_the_former_one_is_kept(
    env: dict[str, str], postgres: EmbeddedPostgres, database_name: str
) -> None:
    key = local_sealing_keys([Secret(env["SECRET_KEY"])])[0]
    postgres.execute(NEW_GRANT.format(key_id=key.id), database_name)
    former, newer = env["SECRET_KEY"], "another-key-of-more-than-32-bytes-0123456789"
    assert diagnose({**env, "SECRET_KEY": newer}).verdicts("sealing keys") == ["fail"]
    both = diagnose({**env, "SECRET_KEY": f"{newer},{former}"})
    assert both.verdicts("sealing keys") == ["ok"]
    assert "1 of them with a former key" in both.words("sealing keys")
