"""`broker` with a clock that is CHAOS_CLOCK_OFFSET seconds off. Only tests start it."""

import os
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import broker.clock
from broker.cli import main

_OFFSET = float(os.environ["CHAOS_CLOCK_OFFSET"])
_true_time = time.time


class _SkewedDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        true = datetime.fromtimestamp(_true_time(), tz or UTC) + timedelta(seconds=_OFFSET)
        return cls.fromtimestamp(true.timestamp(), tz or UTC)


def _skewed_time() -> float:
    return _true_time() + _OFFSET


if __name__ == "__main__":
    time.time = _skewed_time
    broker.clock.datetime = _SkewedDatetime  # type: ignore[attr-defined]
    main()
