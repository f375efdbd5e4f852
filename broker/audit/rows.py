"""Rows of the audit trail's tables as what they mean; nothing here is verified."""

from datetime import UTC, datetime, timedelta

import asyncpg

from broker.audit.batch_macs import Checkpoint, Contents, Seal
from broker.audit.records import Outcome, Told, told_outcome, told_user
from broker.database.copy_text import text_field

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def seal_of(row: asyncpg.Record) -> Seal:
    """A row of `audit_seals`."""
    contents = Contents(
        row["batch"], row["records"], row["first_at"], row["last_at"], row["digest"]
    )
    return Seal(row["number"], contents, row["previous_mac"], row["key_id"], row["mac"])


def checkpoint_of(row: asyncpg.Record) -> Checkpoint:
    """A row of `audit_checkpoints`."""
    return Checkpoint(
        number=row["number"],
        seal_mac=row["seal_mac"],
        began_at=row["began_at"],
        until=row["until"],
        records=row["records"],
        faults=row["faults"],
        unverified=row["unverified"],
        key_id=row["key_id"],
        mac=row["mac"],
    )


def microseconds_of(at: datetime) -> int:
    """Since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def fields_of(row: asyncpg.Record) -> tuple[Outcome, bytes, Told]:
    """What happened, the request's id, and about whom, as they stand in a line."""
    scopes = row["scopes"]
    told = b""
    if scopes is None or (scopes and all(isinstance(scope, str) for scope in scopes)):
        told = told_user(row["user_id"], row["account_sub"], scopes or ())
    # Else it is an array that no broker writes: empty, nested, or with a NULL in it.
    outcome = told_outcome(row["action"], row["outcome"], row["caller"])
    return outcome, text_field(row["request_id"]), told
