"""Parts of the system that some tests need and a developer's machine may lack."""

import os
from typing import NoReturn

import pytest

REQUIRED = "TESTS_REQUIRE_ALL"
"""Set to 1 where a missing part is a failure, as in CI, and not a reason to skip."""


def skip_without(reason: str) -> NoReturn:
    """Skip the test, or fail it where every part is required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {reason}")
    pytest.skip(reason)
