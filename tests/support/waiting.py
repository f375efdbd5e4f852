"""Waiting for something that happens soon, without guessing how soon."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(is_so: Callable[[], Awaitable[bool]], *, seconds: float = 10) -> None:
    """Return once `is_so` gives true; fail the test if it does not within `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await is_so():
        assert asyncio.get_running_loop().time() < deadline, f"not so within {seconds} s"
        await asyncio.sleep(0.02)
