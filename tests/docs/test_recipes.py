"""The code that the guides for callers show works as it stands, against the fake that they show."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.documents import blocks, text_of

CALENDAR = "https://www.googleapis.com/auth/calendar.readonly"


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """The names that the guides define, with the fake broker of one of them running."""
    shown: dict[str, Any] = {"KEY": "tb_test"}
    (fake,) = blocks(text_of("docs/how-to/test-your-service.md"), "py")
    exec(fake, shown)
    shown["FakeBroker"].log_message = lambda *_: None
    for kind in ("python", "py"):
        for code in blocks(text_of("docs/how-to/add-the-broker-to-a-service.md"), kind):
            exec(code, shown)
    (refusals,) = blocks(text_of("docs/how-to/handle-refusals.md"), "py")
    exec(refusals, shown)
    yield shown
    shown["server"].shutdown()
    shown["server"].server_close()


def test_the_first_function_returns_a_token(names: dict[str, Any]) -> None:
    assert names["google_token"]("alice") == "ya29.test"


def test_the_first_function_raises_the_code_of_a_problem(names: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="grant_not_found"):
        names["google_token"]("unknown")


def test_google_auth_fetches_its_token_from_the_broker(names: dict[str, Any]) -> None:
    credentials = names["credentials"]("alice", [CALENDAR])
    credentials.refresh(None)
    assert credentials.token == "ya29.test"
    assert credentials.valid


class Answer:
    """An answer of the broker, as `requests` returns it."""

    def __init__(self, status: int, **members: Any) -> None:
        self.status_code, self.ok = status, status < 400
        self.headers = {"Retry-After": "2"}
        self._members = {"detail": "", "request_id": "1", **members}

    def json(self) -> dict[str, Any]:
        return self._members


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404, code="grant_not_found"), "GrantMissing"),
        (Answer(409, code="reauthorization_required"), "GrantMissing"),
        (Answer(409, code="scope_not_granted", missing=[CALENDAR]), "GrantMissing"),
        (Answer(429, code="rate_limited"), "TryLater"),
        (Answer(503, code="google_unavailable"), "TryLater"),
        (Answer(403, code="forbidden"), "RuntimeError"),
    ],
)
def test_each_refusal_becomes_an_exception(
    answer: Answer, error: str, names: dict[str, Any]
) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  (classes that the guide defines)
        names["check"](answer)
    assert type(raised.value).__name__ == error


def test_a_refusal_keeps_what_the_caller_needs(names: dict[str, Any]) -> None:
    with pytest.raises(names["GrantMissing"]) as missing:
        names["check"](Answer(409, code="scope_not_granted", missing=[CALENDAR]))
    assert missing.value.scopes == [CALENDAR]
    with pytest.raises(names["TryLater"]) as later:
        names["check"](Answer(503, code="storage_unavailable"))
    assert 2 <= later.value.seconds <= 4


def test_a_success_is_returned(names: dict[str, Any]) -> None:
    assert names["check"](Answer(200, access_token="a"))["access_token"] == "a"
