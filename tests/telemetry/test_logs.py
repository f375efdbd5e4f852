"""Logs: one JSON object per line; other libraries from WARNING, without their exception texts."""

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
    """Return the lines logged since the last call; logging is restored afterwards."""
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
    """Return the error after it was raised, with a traceback."""
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


def test_arguments_are_part_of_the_message(lines: Lines) -> None:
    configure_logging("INFO")
    logging.getLogger("broker.test").warning("%s of %d", "one", 2)
    assert lines()[0]["message"] == "one of 2"


def test_extra_fields_keep_their_types(lines: Lines) -> None:
    configure_logging("INFO")
    fields = {"count": 3, "names": ["a", "b"], "nothing": None, "inner": {"a": 1.5}}
    logging.getLogger("broker.test").info("fields", extra=fields)
    (line,) = lines()
    assert fields.items() <= line.items()


def test_the_event_id_follows_the_logger(lines: Lines) -> None:
    configure_logging("INFO")
    fields = {"reason": "a", "event": "postgres_unavailable"}
    logging.getLogger("broker.test").info("unavailable", extra=fields)
    (line,) = lines()
    assert list(line) == ["time", "level", "logger", "event", "message", "reason"]
    assert line["event"] == "postgres_unavailable"


def test_a_secret_is_masked_in_message_and_fields(lines: Lines) -> None:
    configure_logging("INFO")
    secret = Secret(PLANTED)
    logging.getLogger("broker.test").info("a %s", secret, extra={"a": secret, "b": [secret]})
    (line,) = lines()
    assert PLANTED not in str(line)
    assert line["a"] == "***"


def test_no_attribute_of_the_record_itself_is_shown(lines: Lines) -> None:
    configure_logging("INFO")
    logging.getLogger("broker.test").info("plain")
    assert set(lines()[0]) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("char", ["\ud800", "\x00", "\u2028", "\N{GRINNING FACE}", '"\\'])
def test_unusual_characters_stay_valid_json(char: str) -> None:
    record = logging.makeLogRecord({"msg": f"a{char}b"})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line.encode("utf-8"))["message"] == f"a{char}b"


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.binary() | st.integers()))
def test_any_text_is_one_line_of_json(text: str, field: dict[str, Any]) -> None:
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
def test_a_foreign_exception_shows_its_type_without_its_text(error: Exception) -> None:
    line = _formatted(_raised(error))
    assert PLANTED not in json.dumps(line)
    assert line["exception"][0] == type(error).__qualname__


def test_an_exception_of_the_broker_shows_its_text() -> None:
    line = _formatted(_raised(StorageUnavailable("ConnectionRefusedError")))
    assert line["exception"][0] == "StorageUnavailable: ConnectionRefusedError"


def test_an_exception_shows_its_frames() -> None:
    frames = _formatted(_raised(ValueError()))["exception"]
    assert any("test_logs.py:" in frame and frame.endswith(" _raise") for frame in frames)


def test_the_cause_is_shown_in_the_same_way() -> None:
    line = _formatted(_raised(StorageUnavailable("refused"), cause=ValueError(PLANTED)))
    assert [entry for entry in line["exception"] if not entry.startswith("  ")] == [
        "StorageUnavailable: refused",
        "ValueError",
    ]
    assert PLANTED not in json.dumps(line)


def test_an_endless_chain_is_cut() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert len(_formatted(one)["exception"]) <= 100


def test_logger_exception_without_an_exception(lines: Lines) -> None:
    configure_logging("INFO")
    logging.getLogger("broker.test").exception("nothing was raised")  # noqa: LOG004  (what is tested)
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
def test_the_brokers_own_loggers_have_the_configured_level(lines: Lines, level: str) -> None:
    configure_logging(level)
    logger = logging.getLogger("broker.test")
    for name in ("DEBUG", "INFO", "WARNING", "ERROR"):
        logger.log(logging.getLevelNamesMapping()[name], "shown")
    names = ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert [line["level"] for line in lines()] == names[names.index(level) :]


@pytest.mark.parametrize(
    "name", ["httpx2", "httpcore2", "hvac", "urllib3.connectionpool", "asyncpg", "authlib",
             "uvicorn.error", "asyncio", "an.unknown.library"],
)  # fmt: skip
def test_other_libraries_log_from_warning_at_any_level(lines: Lines, name: str) -> None:
    configure_logging("DEBUG")
    logger = logging.getLogger(name)
    logger.debug(PLANTED)
    logger.info(PLANTED)
    logger.warning("shown")
    assert [line["message"] for line in lines()] == ["shown"]


def test_other_libraries_log_from_warning_if_the_broker_logs_from_error(
    lines: Lines,
) -> None:
    configure_logging("ERROR")
    logging.getLogger("a.library").warning("shown")
    assert [line["message"] for line in lines()] == ["shown"]


def test_python_warnings_are_logged(lines: Lines) -> None:
    configure_logging("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("outdated", DeprecationWarning, stacklevel=1)
    (line,) = lines()
    assert (line["level"], line["logger"]) == ("WARNING", "py.warnings")
    assert "outdated" in line["message"]


def test_configuring_twice_does_not_log_twice(lines: Lines) -> None:
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
