"""Logs: one JSON object a line, nothing of other libraries below WARNING, no words of theirs."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.database.database import StorageUnavailable
from broker.secret import Secret
from broker.telemetry.logs import JsonFormatter, configure_logging, cut_user_id

PLANTED = "hunter2"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What has been logged since it was last asked; afterwards logging is as it was."""
    root, broker = logging.getLogger(), logging.getLogger("broker")
    handlers, level, own_level = root.handlers[:], root.level, broker.level
    yield lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    broker.setLevel(own_level)
    logging.captureWarnings(capture=False)


def _formatted(error: BaseException) -> dict[str, Any]:
    record = logging.makeLogRecord({"msg": "failed", "exc_info": (type(error), error, None)})
    line: dict[str, Any] = json.loads(JsonFormatter().format(record))
    return line


def _raised(error: Exception, cause: Exception | None = None) -> Exception:
    """The error as if it had been raised, with a traceback."""
    try:
        _raise(error, cause)
    except Exception as caught:
        return caught
    raise AssertionError


def _raise(error: Exception, cause: Exception | None) -> None:
    raise error from cause


def test_a_line_is_one_json_object(lines: Lines) -> None:
    configure_logging("INFO")
    logging.getLogger("broker.test").info("one\nline", extra={"reason": "a\nb"})
    (line,) = lines()
    assert line["message"] == "one\nline"
    assert line["reason"] == "a\nb"
    assert (line["level"], line["logger"]) == ("INFO", "broker.test")
    assert line["time"].endswith("+00:00")


def test_arguments_are_put_into_the_message(lines: Lines) -> None:
    configure_logging("INFO")
    logging.getLogger("broker.test").warning("%s of %d", "one", 2)
    assert lines()[0]["message"] == "one of 2"


def test_extra_fields_keep_their_types(lines: Lines) -> None:
    configure_logging("INFO")
    fields = {"count": 3, "names": ["a", "b"], "nothing": None, "inner": {"a": 1.5}}
    logging.getLogger("broker.test").info("fields", extra=fields)
    (line,) = lines()
    assert fields.items() <= line.items()


def test_a_secret_is_masked_wherever_it_stands(lines: Lines) -> None:
    configure_logging("INFO")
    secret = Secret(PLANTED)
    logging.getLogger("broker.test").info("a %s", secret, extra={"a": secret, "b": [secret]})
    (line,) = lines()
    assert PLANTED not in str(line)
    assert line["a"] == "***"


def test_no_field_of_the_records_own_is_shown(lines: Lines) -> None:
    configure_logging("INFO")
    logging.getLogger("broker.test").info("plain")
    assert set(lines()[0]) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("odd", ["\ud800", "\x00", "\u2028", "\N{GRINNING FACE}", '"\\'])
def test_odd_characters_stay_json_that_can_be_written(odd: str) -> None:
    record = logging.makeLogRecord({"msg": f"a{odd}b"})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line.encode("utf-8"))["message"] == f"a{odd}b"


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.binary() | st.integers()))
def test_whatever_is_logged_is_one_line_of_json(text: str, field: dict[str, Any]) -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "planted": field})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line.encode())["message"] == text


# ---- exceptions


@pytest.mark.parametrize(
    "error",
    [
        ValueError(PLANTED),
        KeyError(PLANTED),
        UnicodeDecodeError("utf-8", PLANTED.encode(), 0, 1, PLANTED),
        OSError(2, "No such file", PLANTED),
        asyncpg.UniqueViolationError(f"Key (token)=({PLANTED}) already exists."),
        ExceptionGroup(PLANTED, [ValueError(PLANTED)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_shows_its_type_and_not_its_words(error: Exception) -> None:
    line = _formatted(_raised(error))
    assert PLANTED not in json.dumps(line)
    assert line["exception"][0] == type(error).__qualname__


def test_an_exception_of_ours_shows_its_words() -> None:
    line = _formatted(_raised(StorageUnavailable("ConnectionRefusedError")))
    assert line["exception"][0] == "StorageUnavailable: ConnectionRefusedError"


def test_an_exception_shows_where_it_came_from() -> None:
    frames = _formatted(_raised(ValueError()))["exception"]
    assert any("test_logs.py:" in frame and frame.endswith(" _raise") for frame in frames)


def test_the_cause_is_shown_the_same_way() -> None:
    line = _formatted(_raised(StorageUnavailable("away"), cause=ValueError(PLANTED)))
    assert [entry for entry in line["exception"] if not entry.startswith("  ")] == [
        "StorageUnavailable: away",
        "ValueError",
    ]
    assert PLANTED not in json.dumps(line)


def test_a_chain_without_end_is_cut() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert len(_formatted(one)["exception"]) <= 100


def test_an_exception_without_one_is_fine(lines: Lines) -> None:
    configure_logging("INFO")
    logging.getLogger("broker.test").exception("nothing was raised")  # noqa: LOG004  (that is it)
    assert lines()[0]["message"] == "nothing was raised"


def test_no_local_variable_is_shown(lines: Lines) -> None:
    configure_logging("DEBUG")
    try:
        _raise_with_a_local(PLANTED)
    except ValueError:
        logging.getLogger("broker.test").exception("failed")
    assert PLANTED not in str(lines())


def _raise_with_a_local(local: str) -> None:
    raise ValueError(local)


# ---- levels


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_our_own_loggers_go_by_the_level(lines: Lines, level: str) -> None:
    configure_logging(level)
    logger = logging.getLogger("broker.test")
    for name in ("DEBUG", "INFO", "WARNING", "ERROR"):
        logger.log(logging.getLevelNamesMapping()[name], "said")
    names = ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert [line["level"] for line in lines()] == names[names.index(level) :]


@pytest.mark.parametrize(
    "name", ["httpx2", "httpcore2", "hvac", "urllib3.connectionpool", "asyncpg", "authlib",
             "uvicorn.error", "asyncio", "a.library.nobody.knows"],
)  # fmt: skip
def test_other_libraries_are_held_at_warning_whatever_the_level(lines: Lines, name: str) -> None:
    configure_logging("DEBUG")
    logger = logging.getLogger(name)
    logger.debug(PLANTED)
    logger.info(PLANTED)
    logger.warning("heard")
    assert [line["message"] for line in lines()] == ["heard"]


def test_other_libraries_are_heard_at_warning_though_we_are_held_at_error(
    lines: Lines,
) -> None:
    configure_logging("ERROR")
    logging.getLogger("a.library").warning("heard")
    assert [line["message"] for line in lines()] == ["heard"]


def test_warnings_are_logged_as_lines(lines: Lines) -> None:
    configure_logging("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    (line,) = lines()
    assert (line["level"], line["logger"]) == ("WARNING", "py.warnings")
    assert "old ways" in line["message"]


def test_configuring_twice_does_not_say_everything_twice(lines: Lines) -> None:
    configure_logging("INFO")
    configure_logging("INFO")
    logging.getLogger("broker.test").info("once")
    assert len(lines()) == 1


# ---- user ids


@pytest.mark.parametrize(
    ("user_id", "cut"),
    [
        ("abcdefghijklmnop", "abcdefgh***"),
        ("abcdefghijklmnopq" * 10, "abcdefgh***"),
        ("ada@example.com", "ada@exa***"),
        ("abcd", "ab***"),
        ("abc", "a***"),
        ("a", "a***"),
    ],
)
def test_a_user_id_is_cut(user_id: str, cut: str) -> None:
    assert cut_user_id(user_id) == cut


@given(st.text(min_size=2, max_size=255))
def test_at_most_half_of_a_user_id_and_8_characters_are_shown(user_id: str) -> None:
    shown = cut_user_id(user_id).removesuffix("***")
    assert user_id.startswith(shown)
    assert len(shown) <= min(8, len(user_id) // 2)
