"""Rows become grants a portion at a time, and none is torn apart."""

from typing import Any

import pytest

from broker.grants.rows import portions_of


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
    assert [[row["id"] for row in portion] for portion in portions_of(rows, 2)] == portions
