"""How the holder of a lock is described to the operator, without a database."""

from typing import Any

import pytest

from broker.database.lock_waits import describe_holder


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        (
            {"usename": "app", "application_name": "psql", "state": "idle", "seconds": 3},
            "process 7 (app, psql, idle, for 3 s)",
        ),
        (
            {"usename": "app", "application_name": "", "state": None, "seconds": 0},
            "process 7 (app, for 0 s)",
        ),
        (
            {"usename": None, "application_name": None, "state": None, "seconds": None},
            "process 7 ()",
        ),
    ],
    ids=["all known", "some known", "nothing known"],
)
def test_a_holder_is_described_by_what_is_known(holder: dict[str, Any], expected: str) -> None:
    row: Any = {"pid": 7, **holder}
    assert describe_holder(row) == expected
