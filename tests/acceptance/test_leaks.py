"""After a day on which everything fails, nothing that the broker wrote contains a secret."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from devstack.google_standin import GoogleStandin, fingerprint
from devstack.openbao import OpenBao
from devstack.postgres import EmbeddedPostgres
from tests.acceptance.installation import set_up
from tests.acceptance.leak_search import Leak, files_below, find_fingerprinted, find_leaks
from tests.acceptance.leaky_day import ACCOUNT, USER, Exchange, LeakyDay
from tests.support.postgres import new_postgres_folder

pytestmark = pytest.mark.process

CONTROL = "leaky-control-that-the-search-must-find"


@dataclass
class Evidence:
    """Everything that the day has left behind."""

    day: LeakyDay
    log: bytes
    dump: bytes
    files: bytes
    audit: bytes

    def answers(self) -> Mapping[str, bytes]:
        """Return every header and body, by its request."""
        places: dict[str, list[str]] = {}
        for exchange in self.day.exchanges:
            where = f"{exchange.request} → {exchange.status}"
            places.setdefault(f"body: {where}", []).append(exchange.body)
            for name, value in exchange.headers:
                places.setdefault(f"header {name}: {where}", []).append(value)
        return {place: "\n".join(texts).encode() for place, texts in places.items()}


@pytest.fixture(scope="module")
def evidence(
    tmp_path_factory: pytest.TempPathFactory, openbao: OpenBao, google: GoogleStandin
) -> Iterator[Evidence]:
    folder = new_postgres_folder(tmp_path_factory)
    with EmbeddedPostgres(folder / "data", log_path=folder / "log") as postgres:
        installed = set_up(
            tmp_path_factory.mktemp("leaks"), postgres, openbao, google, BROKER_LOG_LEVEL="DEBUG"
        )
        day = LeakyDay(installed)
        with installed.serving:
            day.run()
        # In two halves, so that only the table contains it.
        halves = f"'{CONTROL[:20]}' || '{CONTROL[20:]}'"
        day.sql(f"CREATE TABLE control AS SELECT {halves}, convert_to({halves}, 'UTF8') AS bytes")
        dump = day.dump()
        audit = postgres.execute("TABLE audit_events", installed.database_name)
        postgres.execute("CHECKPOINT")
        files = files_below(folder / "data" / "cluster")
        yield Evidence(day, installed.serving.output.encode(), dump, files, audit.encode())


def is_allowed(leak: Leak) -> bool:
    """True if the contract puts this value there."""
    is_plain = leak.encoding in ("plain", "url-encoded")
    return is_plain and any(
        leak.kind == kind and leak.place.startswith(start) and leak.place.endswith(end)
        for kind, start, end in (
            ("access token", "body: GET /v1/users/", "/token → 200"),
            ("link token", "body: POST /v1/users/", "/connect-links → 201"),
            # The link to try again, shown to the browser that has opened it.
            ("link token", "body: GET /auth/google/", ""),
            ("state", "header location: GET /auth/google/", " → 303"),
            ("cookie", "header set-cookie: GET /auth/google/", " → 303"),
        )
    )


def test_the_day_provoked_every_kind_of_failure(evidence: Evidence) -> None:
    statuses = {exchange.status for exchange in evidence.day.exchanges}
    assert statuses >= {200, 201, 204, 303, 400, 401, 403, 404, 409, 500, 503}
    for kind, values in evidence.day.secrets().items():
        assert all(len(value) >= 20 for value in values), kind
        assert list(values), kind
    assert len(evidence.day.verifier_fingerprints()) > 20


def test_the_search_finds_known_secrets(evidence: Evidence) -> None:
    control = {"control": [CONTROL]}
    found = find_leaks(control, {"dump": evidence.dump, "files": evidence.files})
    assert {(leak.place, leak.encoding) for leak in found} >= {
        ("dump", "plain"),
        ("dump", "hex"),
        ("files", "plain"),
    }
    allowed = find_leaks(evidence.day.secrets(), evidence.answers())
    assert {leak.kind for leak in allowed} == {"access token", "link token", "state", "cookie"}
    verifier = "v" * 43
    place = {"log": b'{"x": "' + verifier.encode() + b'"}'}
    assert find_fingerprinted([fingerprint(verifier)], place) == ["log"]
    assert b'"event": "consent_ended"' in evidence.log
    assert b'"event": "request_failed"' in evidence.log


def test_check_17_no_secret_is_in_the_log(evidence: Evidence) -> None:
    places = {"log": evidence.log}
    assert find_leaks(evidence.day.secrets(), places) == []
    assert find_fingerprinted(evidence.day.verifier_fingerprints(), places) == []


def test_no_email_and_no_full_user_id_is_in_the_log(evidence: Evidence) -> None:
    assert find_leaks({"email": [ACCOUNT], "user": [USER]}, {"log": evidence.log}) == []


def test_check_17_no_answer_contains_a_secret_except_where_the_contract_does(
    evidence: Evidence,
) -> None:
    found = find_leaks(evidence.day.secrets(), evidence.answers())
    assert [leak for leak in found if not is_allowed(leak)] == []
    assert find_fingerprinted(evidence.day.verifier_fingerprints(), evidence.answers()) == []


def test_emails_are_only_in_answers_about_accounts(evidence: Evidence) -> None:
    def may_have_it(exchange: Exchange) -> bool:
        is_about_accounts = exchange.request.endswith(("/token", "/grants", "/callback"))
        return is_about_accounts and exchange.status == 200

    texts = {
        f"{exchange.request} → {exchange.status}": exchange.body.encode()
        for exchange in evidence.day.exchanges
        if not may_have_it(exchange)
    }
    assert find_leaks({"email": [ACCOUNT]}, texts) == []
    to_google = [place for place in evidence.answers() if place.startswith("header location")]
    headers = {p: t for p, t in evidence.answers().items() if p.startswith("header")}
    leaks = find_leaks({"email": [ACCOUNT]}, headers)
    assert {leak.place for leak in leaks} <= set(to_google)


def test_no_user_and_no_email_is_in_the_metrics(evidence: Evidence) -> None:
    (metrics,) = [e.body for e in evidence.day.exchanges if e.request == "GET /metrics"]
    assert "broker_token_requests_total{" in metrics
    assert find_leaks({"email": [ACCOUNT], "user": [USER]}, {"metrics": metrics.encode()}) == []


def test_check_18_a_dump_reveals_no_secret(evidence: Evidence) -> None:
    places = {"dump": evidence.dump}
    assert ACCOUNT.encode() in evidence.dump
    assert find_leaks(evidence.day.secrets(), places) == []
    assert find_fingerprinted(evidence.day.verifier_fingerprints(), places) == []


def test_check_18_the_servers_files_and_wal_reveal_no_secret(evidence: Evidence) -> None:
    places = {"files": evidence.files}
    assert ACCOUNT.encode() in evidence.files
    assert find_leaks(evidence.day.secrets(), places) == []
    assert find_fingerprinted(evidence.day.verifier_fingerprints(), places) == []


def test_the_audit_trail_contains_no_email(evidence: Evidence) -> None:
    assert USER.encode() in evidence.audit
    assert find_leaks({"email": [ACCOUNT]}, {"audit": evidence.audit}) == []
