"""Turns: so many at a time for each name, the next ones in a line that has an end.

Whoever has one name takes nothing from those of another, however much it asks for.
"""

import asyncio


class OverloadedError(Exception):
    """The line is too long, or moves too slowly."""


class _Line:
    """The turns of one name."""

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: dict[asyncio.Future[None], None] = {}
        """A dict for its order: who came first is first, and anybody may leave."""


class Turns:
    """Nothing is held for names that nobody has a turn of."""

    def __init__(self, *, at_once: int, waiting: int, patience_seconds: float) -> None:
        """`waiting` is how many may stand in line, each for so many seconds."""
        self._at_once = at_once
        self._waiting = waiting
        self._patience_seconds = patience_seconds
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        """Names that have a turn now."""
        return len(self._lines)

    async def take(self, name: str) -> None:
        """One of this name's turns, until `give_back`. Raises `OverloadedError`."""
        line = self._lines.setdefault(name, _Line())
        if line.taken < self._at_once:
            line.taken += 1
            return
        if len(line.waiting) >= self._waiting:
            raise OverloadedError
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting[turn] = None
        try:
            async with asyncio.timeout(self._patience_seconds):
                await turn
        except BaseException as error:
            if line.waiting.pop(turn, turn) is turn:
                # It was given this turn in the very moment that it gave up.
                self.give_back(name)
            if isinstance(error, TimeoutError):
                raise OverloadedError from None
            raise

    def give_back(self, name: str) -> None:
        """Let the next one have it."""
        line = self._lines[name]
        while line.waiting:
            turn = next(iter(line.waiting))
            del line.waiting[turn]
            if not turn.done():
                turn.set_result(None)
                return
        line.taken -= 1
        if not line.taken:
            del self._lines[name]
