"""Reading an audit export, and the revocations in it, without a database."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.recovery.lost_revocations import (
    ExportedRecord,
    ExportError,
    LostRevocations,
    RevocationKind,
    read_export,
)

START = datetime(2026, 1, 31, 8, tzinfo=UTC)
RECORD: Mapping[str, Any] = {
    "id": 1,
    "at": "2026-01-31T08:00:00.000000Z",
    "action": "grant_revoked",
    "outcome": "ok",
    "caller": "sync",
    "user_id": "42",
    "account_sub": "108",
    "scopes": ["openid"],
    "request_id": None,
    "seal": 7,
}


def line(**changes: Any) -> str:
    return json.dumps({**RECORD, **changes}) + "\n"


def record(number: int, action: str, outcome: str, **changes: Any) -> ExportedRecord:
    at = (START + timedelta(minutes=number)).isoformat()
    (read,) = read_export([line(id=number, at=at, action=action, outcome=outcome, **changes)])
    return read


class EmptyTrail:
    """A connection to a database whose audit trail has none of the records."""

    async def fetch(self, _query: str, _ids: list[int]) -> list[Any]:
        return []


async def lost(records: Iterable[ExportedRecord]) -> LostRevocations:
    revocations = LostRevocations()
    await revocations.read(EmptyTrail(), records)  # type: ignore[arg-type]
    return revocations


def test_an_exported_record_is_read() -> None:
    (read,) = read_export(["\n", line(), "  \n"])
    assert read == ExportedRecord(
        1, START, "grant_revoked", "ok", "sync", "42", "108", ("openid",), None
    )


@pytest.mark.parametrize(
    "text",
    [
        "{}\n",
        "[]\n",
        "\0\n",
        '{"id": 1\n',
        "[" * 100_000 + "\n",
        line(id=0),
        line(id=2**63),
        line(id=True),
        line(id="1"),
        line(at=None),
        line(at="yesterday"),
        line(at="2026-01-31T08:00:00"),
        line(action=None),
        line(outcome=7),
        line(user_id=7),
        line(scopes=None),
        line(scopes=[7]),
    ],
)
def test_a_malformed_line_is_named_by_its_number(text: str) -> None:
    with pytest.raises(ExportError, match=r"^line 2 is not a record of `broker audit export`$"):
        list(read_export([line(), text]))


def test_a_last_line_without_its_line_feed_is_rejected() -> None:
    with pytest.raises(ExportError, match="line 1 has no end: the export was cut off"):
        list(read_export([line().rstrip("\n")]))


@pytest.mark.parametrize(
    ("action", "outcome", "kind"),
    [
        ("grant_revoked", "ok", RevocationKind.REVOKED),
        ("grant_revoked", "by_user", RevocationKind.REVOKED),
        ("grant_revoked", "after_restore", RevocationKind.REVOKED),
        ("grant_revoked", "storage_unavailable", RevocationKind.IN_DOUBT),
        ("commit_lost", "revocation:restored", RevocationKind.REVOKED),
        ("security_event", "tokens-revoked:erased", RevocationKind.ERASED),
        ("security_event", "tokens-revoked:erased:unsettled", RevocationKind.ERASED),
        ("security_event", "account-disabled:held_back", RevocationKind.SUSPENDED),
        ("security_event", "account-disabled:held_back:after_restore", RevocationKind.SUSPENDED),
        ("grant_revoked", "not_found", None),
        ("commit_lost", "revocation", None),
        ("security_event", "verification:noted", None),
        ("token_handed_out", "ok", None),
    ],
)
async def test_a_record_is_a_revocation_by_its_action_and_outcome(
    action: str, outcome: str, kind: RevocationKind | None
) -> None:
    found = await lost([record(1, action, outcome)])
    assert [each.kind for each in found.revocations] == ([kind] if kind else [])
    assert (found.records, found.known, found.lost) == (1, 0, 1)


@pytest.mark.parametrize(
    ("outcome", "is_hijacking"),
    [("account-disabled:erased", True), ("tokens-revoked:erased", False)],
)
async def test_a_hijacked_account_is_recognised(outcome: str, is_hijacking: bool) -> None:
    found = await lost([record(1, "security_event", outcome)])
    assert [each.is_hijacking for each in found.revocations] == [is_hijacking]


@pytest.mark.parametrize(
    ("outcome", "count"), [("ok", 0), ("storage_unavailable", 1)], ids=["stored", "in doubt"]
)
async def test_only_a_revocation_in_doubt_may_lack_its_account(outcome: str, count: int) -> None:
    found = await lost([record(1, "grant_revoked", outcome, account_sub=None)])
    assert len(found.revocations) == count


async def test_the_last_revocation_of_a_kind_counts_in_any_order() -> None:
    records = [record(number, "grant_revoked", "ok") for number in (2, 3, 1)]
    found = await lost(records)
    assert [each.record.id for each in found.revocations] == [3]
    assert (found.first_lost_at, found.last_lost_at) == (records[2].at, records[1].at)


@pytest.mark.parametrize(
    ("disabled", "enabled", "kinds"),
    [(1, 2, []), (2, 1, [RevocationKind.SUSPENDED])],
    ids=["later", "earlier"],
)
async def test_an_account_that_google_enabled_again_is_not_suspended(
    disabled: int, enabled: int, kinds: list[RevocationKind]
) -> None:
    found = await lost(
        [
            record(disabled, "security_event", "account-disabled:held_back"),
            record(enabled, "security_event", "account-enabled:brought_back"),
        ]
    )
    assert [each.kind for each in found.revocations] == kinds
