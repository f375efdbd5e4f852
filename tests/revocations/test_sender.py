"""When a revocation that Google did not accept is sent again."""

from datetime import timedelta

import pytest

from broker.revocations.sender import BACKOFF

JITTER = 0.2


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 2), (2, 4), (3, 8), (5, 32), (9, 512), (10, 600), (100, 600)],
)
def test_the_pause_doubles_up_to_ten_minutes(attempts: int, seconds: int) -> None:
    pause = BACKOFF.pause(attempts)
    assert timedelta(seconds=seconds * (1 - JITTER)) <= pause
    assert pause <= timedelta(seconds=seconds * (1 + JITTER))
