"""Rows are converted in portions, and those of one grant stay together."""

from typing import Any

import pytest

from broker.grants.rows import split_by_grant


@pytest.mark.parametrize(
    ("ids", "portions"),
    [
        ([], []),
        ([1, 2, 3], [[1, 2], [3]]),
        ([1, 2, 2, 2, 3], [[1, 2, 2, 2], [3]]),
        ([1, 1, 1], [[1, 1, 1]]),
    ],
)
def test_the_rows_of_one_grant_stay_together(ids: list[int], portions: list[list[int]]) -> None:
    rows: Any = [{"id": each} for each in ids]
    assert [[row["id"] for row in portion] for portion in split_by_grant(rows, 2)] == portions
