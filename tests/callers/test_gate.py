"""The gate: which request it admits, and what it audits about the others; without a database."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from broker.callers import authentication_limits, limits
from broker.callers.authentication_limits import AuthenticationLimits
from broker.callers.gate import Gate
from broker.callers.keys import hash_key
from broker.callers.limits import CallerLimits
from broker.callers.model import Permission
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.callers.registry import CallerRegistry
from broker.callers.workloads import WorkloadIdentities
from broker.issuers.key_set_client import KeySetClient
from broker.issuers.trusted import JwtRefusalLog, TrustedIssuers
from broker.outbound.http_client import bounded_client
from broker.telemetry.metrics import Metrics
from broker.web.addresses import RemoteAddresses
from tests.callers.stanzas import KEY, OTHER_KEY, callers_file, stanza
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer

READ = Permission.TOKENS_READ


class _Audit:
    """Keeps the records instead of writing them."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def record(self, **record: Any) -> None:
        self.records.append(record)

    def outcomes(self) -> list[tuple[str, str | None, bool]]:
        return [
            (record["outcome"], record["caller"], record["unauthenticated"])
            for record in self.records
        ]


@pytest.fixture
def audit() -> _Audit:
    return _Audit()


def _hash(key: str) -> str:
    return f'["{hash_key(key)}"]'


def _file(issuer: OidcIssuer) -> str:
    workload = f"{{issuer: '{issuer.url}', audience: token-broker, subject: job}}"
    return callers_file(
        stanza("a", users='["ada", "team-*"]', rate_limit="{requests_per_second: 1, burst: 5}"),
        stanza("b", keys=_hash(OTHER_KEY), can="[tokens:read]", subject_required="true"),
        stanza("c", keys=None, workload=workload),
    )


@pytest.fixture
async def gate(
    tmp_path: Path,
    clock: ManualClock,
    issuer: OidcIssuer,
    audit: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Gate]:
    for module in (limits, authentication_limits):
        monkeypatch.setattr(module, "REFUSAL_DELAY_SECONDS", 0)
    monkeypatch.setattr(authentication_limits, "FAILURE_BURST", 3)
    metrics = Metrics()
    async with bounded_client() as http:
        issuers = TrustedIssuers(KeySetClient(http, metrics), clock, metrics)
        path = tmp_path / "callers.yaml"
        path.write_text(_file(issuer))
        registry = CallerRegistry(
            path, (), clock, metrics, on_change=lambda _callers, trusted: issuers.configure(trusted)
        )
        registry.load()
        yield Gate(
            registry,
            audit,
            WorkloadIdentities(registry, issuers, JwtRefusalLog(clock, metrics)),
            CallerLimits(metrics),
            AuthenticationLimits(RemoteAddresses((), clock), metrics),
        )
        registry.close()
        await issuers.aclose()


def _request(credential: str | None = None, *, query: str = "") -> Request:
    headers = [] if credential is None else [(b"authorization", f"Bearer {credential}".encode())]
    scope = {
        "type": "http",
        "client": ("192.0.2.1", 5000),
        "headers": headers,
        "query_string": query.encode(),
        "path_params": {},
        "state": {"request_id": "request-1"},
    }
    return Request(scope)


async def _refusal(gate: Gate, request: Request, user_id: str = "ada") -> AccessRefused:
    with pytest.raises(AccessRefused) as caught:
        await gate.admit(request, READ, user_id)
    return caught.value


@pytest.mark.parametrize("user_id", ["ada", "team-1"])
async def test_a_caller_is_admitted_for_its_users(gate: Gate, audit: _Audit, user_id: str) -> None:
    assert (await gate.admit(_request(KEY), READ, user_id)).name == "a"
    assert audit.records == []


@pytest.mark.parametrize(
    ("request_", "user_id", "reason", "audited"),
    [
        (
            _request(KEY, query="access_token=x"),
            "ada",
            RefusalReason.CREDENTIAL_IN_URL,
            ("invalid_request:credential_in_url", "a", False),
        ),
        (
            _request(query="access_token=x"),
            "ada",
            RefusalReason.CREDENTIAL_IN_URL,
            ("invalid_request:credential_in_url", None, True),
        ),
        (_request(), "ada", RefusalReason.UNAUTHENTICATED, ("unauthenticated", None, True)),
        (_request("tb_x"), "ada", RefusalReason.UNAUTHENTICATED, ("unauthenticated", None, True)),
        (_request("a.b.c"), "ada", RefusalReason.INVALID_JWT, ("unauthenticated", None, True)),
        (_request(KEY), "grace", RefusalReason.USER_NOT_ALLOWED, ("forbidden", "a", False)),
        (_request(OTHER_KEY), "ada", RefusalReason.SUBJECT_REQUIRED, ("forbidden", "b", False)),
    ],
)
async def test_each_refusal_is_audited_once(
    gate: Gate,
    audit: _Audit,
    request_: Request,
    user_id: str,
    reason: RefusalReason,
    audited: tuple[str, str | None, bool],
) -> None:
    refused = await _refusal(gate, request_, user_id)
    assert refused.reason is reason
    assert audit.outcomes() == [audited]
    assert audit.records[0]["action"] == "request_refused"
    assert audit.records[0]["request_id"] == "request-1"


async def test_a_missing_permission_is_named_and_audited_with_the_user(
    gate: Gate, audit: _Audit
) -> None:
    with pytest.raises(AccessRefused) as caught:
        await gate.admit(_request(KEY), Permission.GRANTS_REVOKE, "ada")
    assert caught.value.permission is Permission.GRANTS_REVOKE
    assert [(record["outcome"], record["user_id"]) for record in audit.records] == [
        ("forbidden", "ada")
    ]


async def test_a_workload_is_admitted_by_its_jwt(gate: Gate, issuer: OidcIssuer) -> None:
    assert (await gate.admit(_request(issuer.mint(sub="job")), READ, "ada")).name == "c"


async def test_while_the_issuer_is_unavailable_a_jwt_is_counted_and_audited(
    gate: Gate, audit: _Audit, issuer: OidcIssuer
) -> None:
    issuer.break_down()
    counted: list[str] = []
    request = _request(issuer.mint(sub="job"))
    request.state.count_failure = counted.append
    refused = await _refusal(gate, request)
    assert refused.reason is RefusalReason.ISSUER_UNAVAILABLE
    assert counted == ["issuer_unavailable"]
    assert audit.outcomes() == [("issuer_unavailable", None, True)]


async def test_too_many_failures_of_an_address_are_a_limit_and_not_audited(
    gate: Gate, audit: _Audit
) -> None:
    reasons = [(await _refusal(gate, _request("tb_unknown"))).reason for _ in range(5)]
    assert (
        reasons == [RefusalReason.UNAUTHENTICATED] * 3 + [RefusalReason.FAILED_AUTHENTICATIONS] * 2
    )
    assert len(audit.records) == 3
    assert (await gate.admit(_request(KEY), READ, "ada")).name == "a"


async def test_a_request_is_counted_once_however_often_it_is_admitted_again(gate: Gate) -> None:
    request = _request(KEY)
    for _ in range(4):
        await gate.admit(request, READ, "ada")
        await gate.admit_again(request, READ, "ada")
    await gate.admit(request, READ, "ada")
    assert (await _refusal(gate, request)).reason is RefusalReason.RATE_LIMIT
    await gate.admit_again(request, READ, "ada")


@pytest.mark.parametrize(("user_id", "reason"), [("ada", None), ("grace", "user_not_allowed")])
async def test_an_item_of_a_batch_is_checked_by_its_user(
    gate: Gate, user_id: str, reason: str | None
) -> None:
    request = _request(KEY)
    caller = await gate.admit_for_any_user(request, READ)
    refused = gate.check_user(request, caller, user_id)
    assert (refused.reason if refused else None) == reason


async def test_several_authorization_headers_are_as_none(gate: Gate) -> None:
    request = _request(KEY)
    request.scope["headers"] *= 2
    assert (await _refusal(gate, request)).reason is RefusalReason.UNAUTHENTICATED
