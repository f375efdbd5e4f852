"""Says why JWTs are refused: counts each, and logs a few. Never shows one, nor a claim of one."""

import logging

from broker.clock import Clock
from broker.issuers.model import JwtRefused
from broker.telemetry.metrics import Metrics

_LOGGED_AGAIN_SECONDS = 10

logger = logging.getLogger(__name__)


class JwtRefusals:
    """Whoever is refused hears no reason; the operator finds it here."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._refused = metrics.jwts_refused
        self._logged_at: dict[tuple[str, str], float] = {}

    def note(self, use: str, refusal: JwtRefused, *, caller: str | None = None) -> None:
        """A JWT that was shown for this use was refused. A flood leaves few lines in the log."""
        self._refused.labels(use=use, reason=refusal.reason).inc()
        kind, now = (use, refusal.reason), self._clock.epoch()
        if 0 <= now - self._logged_at.get(kind, float("-inf")) < _LOGGED_AGAIN_SECONDS:
            return
        self._logged_at[kind] = now
        facts = {"use": use, "reason": refusal.reason}
        logger.info(
            "a JWT was refused", extra=facts if caller is None else {**facts, "caller": caller}
        )
