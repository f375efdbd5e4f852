"""Rounds: so much work is begun in one round of the event loop, the next in line in the next one.

What is ready in one round is all worked off before anybody is listened to again. Without a bound,
whoever asks over many connections makes each round as long as all of them together take, and
everybody else waits as long for each answer.
"""

import asyncio
from collections import deque
from collections.abc import Hashable


class Rounds:
    """The names in line get their beginnings in turn, so that none has another's share."""

    def __init__(self, *, each: int) -> None:
        """`each` is how much may begin in one round."""
        self._each = each
        self._left = each
        self._is_counting = False
        self._lines: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """How many are in line."""
        return sum(map(len, self._lines.values()))

    def begin_now(self) -> bool:
        """Whether one more may begin in this round; if so, it is counted."""
        if self._left and not self._lines:
            self._left -= 1
            self._count(asyncio.get_running_loop())
            return True
        return False

    async def begin(self, name: Hashable) -> None:
        """Return in the round in which one more of this name may begin; perhaps at once."""
        if self.begin_now():
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._lines.setdefault(name, deque()).append(turn)
        self._count(loop)
        await turn

    def _count(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_counting:
            self._is_counting = True
            loop.call_soon(self._next_round, loop)

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = self._each
        while self._left and self._lines:
            name = next(iter(self._lines))
            line = self._lines.pop(name)
            turn = line.popleft()
            if line:
                # To the end of those who wait.
                self._lines[name] = line
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
        self._is_counting = False
        if self._left < self._each:
            self._count(loop)
