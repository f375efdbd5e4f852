"""Logs as JSON lines on stdout; nothing of other libraries below WARNING, for they print headers.

What must never be logged never reaches a log call: secrets travel as `Secret`, and user ids through
`cut_user_id`. There is no filter that would hide a mistake here.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_PLAIN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def cut_user_id(user_id: str) -> str:
    """A user id as logs may show it: `abcdefgh***`; short ones lose their second half."""
    kept = user_id[: min(8, max(1, len(user_id) // 2))]
    return f"{kept}***"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, `extra`, and where it broke."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _PLAIN_ATTRIBUTES:
                line[name] = value
        if record.exc_info:
            line["exception"] = _frames(record.exc_info[1])
        text = json.dumps(line, default=str, ensure_ascii=False)
        # Half of a surrogate pair can't be written; as an escape it can, and stays JSON.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _frames(error: BaseException | None) -> list[str]:
    """The chain of exception types and the lines they came from.

    The messages of other libraries' exceptions are left out: they quote input, URLs and rows.
    """
    chain: list[str] = []
    while error is not None and len(chain) < 40:
        own = type(error).__module__.startswith("broker.")
        chain.append(f"{type(error).__qualname__}: {error}" if own else type(error).__qualname__)
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            chain.append(f"  {code.co_filename}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return chain


def configure_logging(level: str) -> None:
    """Send everything to stdout as JSON lines; only the broker's own loggers go below WARNING."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("broker").setLevel(level)
    logging.captureWarnings(capture=True)
