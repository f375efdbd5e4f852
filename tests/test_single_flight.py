"""Single flight: concurrent callers of one key share one call, as a task or inline."""

import asyncio
import gc
from contextvars import ContextVar

import pytest

from broker.single_flight import SingleFlight


class Call:
    """Counts its runs; each run ends when the test says so."""

    def __init__(self) -> None:
        self.runs = 0
        self.ended = 0
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.runs += 1
        try:
            return await asyncio.shield(self.result)
        finally:
            self.ended += 1


@pytest.fixture
async def call() -> Call:
    return Call()


@pytest.fixture
async def flight() -> SingleFlight[str, str]:
    return SingleFlight()


async def test_callers_of_one_key_share_one_call(
    flight: SingleFlight[str, str], call: Call
) -> None:
    callers = [asyncio.create_task(flight.do("key", call)) for _ in range(3)]
    await asyncio.sleep(0)
    call.result.set_result("value")

    assert await asyncio.gather(*callers) == ["value"] * 3
    assert call.runs == 1
    assert "key" not in flight


async def test_callers_of_different_keys_share_nothing(
    flight: SingleFlight[str, str], call: Call
) -> None:
    callers = [asyncio.create_task(flight.do(key, call)) for key in ("one", "other")]
    await asyncio.sleep(0)
    assert "one" in flight
    assert "other" in flight
    call.result.set_result("value")
    await asyncio.gather(*callers)

    assert call.runs == 2


async def test_a_finished_call_is_not_joined(flight: SingleFlight[str, str], call: Call) -> None:
    call.result.set_result("value")
    await flight.do("key", call)
    assert "key" not in flight

    await flight.do("key", call)

    assert call.runs == 2


async def test_a_call_that_has_just_finished_is_not_joined_either(
    flight: SingleFlight[str, str], call: Call
) -> None:
    """The task is done one iteration of the event loop before its callbacks run."""
    call.result.set_result("value")
    first = flight.start("key", call)
    for _ in range(10):
        if first.done():
            break
        await asyncio.sleep(0)
    assert first.done()

    assert flight.start("key", call) is not first
    assert await flight.do("key", call) == "value"
    assert call.runs == 2


async def test_cancelling_one_caller_cancels_neither_the_call_nor_the_others(
    flight: SingleFlight[str, str], call: Call
) -> None:
    first = asyncio.create_task(flight.do("key", call))
    second = asyncio.create_task(flight.do("key", call))
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait({first})
    call.result.set_result("value")

    assert first.cancelled()
    assert await second == "value"
    assert call.runs == 1


async def test_the_call_goes_on_when_every_caller_is_cancelled(
    flight: SingleFlight[str, str], call: Call
) -> None:
    caller = asyncio.create_task(flight.do("key", call))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    assert "key" in flight

    late = asyncio.create_task(flight.do("key", call))
    call.result.set_result("value")

    assert await late == "value"
    assert call.runs == 1


async def test_every_caller_gets_the_exception_of_the_call(
    flight: SingleFlight[str, str], call: Call
) -> None:
    callers = [asyncio.create_task(flight.do("key", call)) for _ in range(2)]
    await asyncio.sleep(0)
    error = ValueError("no")
    call.result.set_exception(error)

    assert await asyncio.gather(*callers, return_exceptions=True) == [error, error]
    assert "key" not in flight


async def test_an_exception_that_no_caller_waits_for_is_not_reported_as_unretrieved(
    flight: SingleFlight[str, str], call: Call
) -> None:
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    try:
        started = flight.start("key", call)
        await asyncio.sleep(0)
        call.result.set_exception(ValueError("no"))
        await asyncio.wait({started})
        await asyncio.sleep(0)
        del started
        gc.collect()
    finally:
        loop.set_exception_handler(None)

    assert reported == []


async def test_a_forgotten_call_answers_its_callers_and_is_joined_by_no_new_one(
    flight: SingleFlight[str, str], call: Call
) -> None:
    early = asyncio.create_task(flight.do("key", call))
    await asyncio.sleep(0)
    newer = Call()

    flight.forget("key")
    late = asyncio.create_task(flight.do("key", newer))
    await asyncio.sleep(0)
    newer.result.set_result("new")
    call.result.set_result("old")

    assert await early == "old"
    assert await late == "new"


async def test_the_end_of_a_forgotten_call_does_not_forget_the_newer_one(
    flight: SingleFlight[str, str], call: Call
) -> None:
    early = asyncio.create_task(flight.do("key", call))
    await asyncio.sleep(0)
    flight.forget("key")
    newer = Call()
    late = flight.start("key", newer)

    call.result.set_result("old")
    await early
    await asyncio.sleep(0)

    assert flight.start("key", newer) is late
    newer.result.set_result("new")
    assert await flight.do("key", newer) == "new"
    assert newer.runs == 1


async def test_forgetting_a_key_without_a_call_does_nothing(
    flight: SingleFlight[str, str],
) -> None:
    flight.forget("key")

    assert "key" not in flight


async def test_a_caller_may_wait_for_a_bounded_time(
    flight: SingleFlight[str, str], call: Call
) -> None:
    task = flight.start("key", call)

    done, _ = await asyncio.wait({task}, timeout=0.001)

    assert not done
    call.result.set_result("value")
    assert await flight.do("key", call) == "value"
    assert call.runs == 1


async def test_closing_cancels_the_calls_and_waits_for_their_end(
    flight: SingleFlight[str, str], call: Call
) -> None:
    caller = asyncio.create_task(flight.do("key", call))
    await asyncio.sleep(0.001)

    await flight.aclose()

    assert call.ended == 1
    assert "key" not in flight
    await asyncio.wait({caller})
    assert caller.cancelled()


async def test_the_call_has_the_context_variables_of_the_caller_that_started_it(
    flight: SingleFlight[str, str],
) -> None:
    share: ContextVar[str] = ContextVar("share")

    async def read() -> str:
        await asyncio.sleep(0)
        return share.get()

    async def caller(name: str) -> str:
        share.set(name)
        return await flight.do("key", read)

    first, second = asyncio.create_task(caller("first")), asyncio.create_task(caller("second"))

    assert await first == await second == "first"


# ---- inline: the first caller runs the call itself


async def test_inline_callers_of_one_key_share_one_call(
    flight: SingleFlight[str, str], call: Call
) -> None:
    callers = [asyncio.create_task(flight.do_inline("key", call)) for _ in range(3)]
    await asyncio.sleep(0)
    assert "key" in flight
    call.result.set_result("value")

    assert await asyncio.gather(*callers) == ["value"] * 3
    assert call.runs == 1
    assert "key" not in flight


async def test_the_inline_call_runs_in_the_first_callers_task(
    flight: SingleFlight[str, asyncio.Task[object] | None],
) -> None:
    async def running_task() -> asyncio.Task[object] | None:
        return asyncio.current_task()

    assert await flight.do_inline("key", running_task) is asyncio.current_task()


async def test_every_inline_caller_gets_the_exception_of_the_call(
    flight: SingleFlight[str, str], call: Call
) -> None:
    callers = [asyncio.create_task(flight.do_inline("key", call)) for _ in range(3)]
    await asyncio.sleep(0)
    error = ValueError("no")
    call.result.set_exception(error)

    assert await asyncio.gather(*callers, return_exceptions=True) == [error] * 3
    assert "key" not in flight


async def test_an_inline_exception_that_no_other_caller_shares_is_not_reported_as_unretrieved(
    flight: SingleFlight[str, str], call: Call
) -> None:
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    call.result.set_exception(ValueError("no"))
    try:
        with pytest.raises(ValueError, match="no"):
            await flight.do_inline("key", call)
        gc.collect()
    finally:
        loop.set_exception_handler(None)

    assert reported == []


async def test_when_the_caller_that_runs_the_call_is_cancelled_another_one_runs_it_again(
    flight: SingleFlight[str, str], call: Call
) -> None:
    first, second, third = (asyncio.create_task(flight.do_inline("key", call)) for _ in range(3))
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait({first})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert call.runs == 2
    call.result.set_result("value")

    assert first.cancelled()
    assert list(await asyncio.gather(second, third)) == ["value"] * 2
    assert call.runs == 2


async def test_cancelling_an_inline_caller_that_only_waits_leaves_the_call_as_it_is(
    flight: SingleFlight[str, str], call: Call
) -> None:
    first, second = (asyncio.create_task(flight.do_inline("key", call)) for _ in range(2))
    await asyncio.sleep(0)

    second.cancel()
    await asyncio.wait({second})
    call.result.set_result("value")

    assert await first == "value"
    assert call.runs == 1


async def test_a_forgotten_inline_call_is_joined_by_no_new_caller(
    flight: SingleFlight[str, str], call: Call
) -> None:
    early = asyncio.create_task(flight.do_inline("key", call))
    await asyncio.sleep(0)
    newer = Call()

    flight.forget("key")
    late = asyncio.create_task(flight.do_inline("key", newer))
    await asyncio.sleep(0)
    call.result.set_result("old")
    assert await early == "old"
    assert "key" in flight
    newer.result.set_result("new")

    assert await late == "new"
