"""Every log call has an event id: a literal in snake case, with one meaning."""

import ast
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from checks.reference import log_events
from checks.reference.log_events import LogCall
from checks.reference.sources import calls, keyword, modules

_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@cache
def _log_calls() -> Sequence[LogCall]:
    return log_events.log_calls()


def test_every_log_call_has_an_event() -> None:
    assert [each for each in _log_calls() if not each.event] == []


def test_every_event_is_in_snake_case() -> None:
    events = {each.event for each in _log_calls()}
    assert [each for each in sorted(events) if not _SNAKE_CASE.fullmatch(each)] == []


def test_an_event_always_has_the_same_message() -> None:
    messages: defaultdict[str, set[str]] = defaultdict(set)
    for each in _log_calls():
        messages[each.event].add(each.message)
    assert {event: texts for event, texts in messages.items() if len(texts) > 1} == {}


def test_the_event_is_the_first_field_of_a_log_call() -> None:
    """A reader, and a tool that reads the source, finds it at the call itself."""
    hidden = [
        f"{module}:{call.lineno}"
        for module, tree in modules()
        for call in calls(tree)
        if log_events.is_log_call(call) and not _begins_with_event(keyword(call, "extra"))
    ]
    assert hidden == []


def _begins_with_event(fields: ast.expr | None) -> bool:
    match fields:
        case ast.Dict(keys=[ast.Constant(value="event"), *_]):
            return True
    return False


def test_the_levels_and_messages_are_found() -> None:
    found = {each.event: each for each in _log_calls()}
    assert found["periodic_job_failed"] == LogCall(
        event="periodic_job_failed",
        level="error",
        message="periodic job failed; it is retried every 15 s",
        module="broker/ops/periodic_jobs.py",
    )
    # Logged by `FailedRevocations.reporting`, which gets the event from its callers.
    assert found["revocation_failed"].level == "error"
    assert found["revocation_failed"].module == "broker/revocations/revoker.py"
