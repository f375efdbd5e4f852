"""Programs that some tests need and that may not be installed."""

import os
from typing import NoReturn

import pytest

REQUIRED = "TESTS_REQUIRE_ALL"
"""Set to 1, as in CI, to make tests fail instead of being skipped."""


def skip_without(reason: str) -> NoReturn:
    """Skip the test; fail it if `TESTS_REQUIRE_ALL=1`."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {reason}")
    pytest.skip(reason)
