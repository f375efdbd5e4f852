"""JSON log lines on stdout. Other libraries log from WARNING, since below that they log headers.

Each log call has an `event`, a stable id. Nothing secret reaches a log call: secrets are of type
`Secret`, and user ids pass through `cut_user_id`. No filter hides a mistake.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_PLAIN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def cut_user_id(user_id: str) -> str:
    """Return a user id as logs may show it: `abcdefgh***`; a short one loses its second half."""
    kept = user_id[: min(8, max(1, len(user_id) // 2))]
    return f"{kept}***"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, event, message, `extra` and exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        fields = {k: v for k, v in vars(record).items() if k not in _PLAIN_ATTRIBUTES}
        if "event" in fields:
            line["event"] = fields.pop("event")
        line["message"] = record.getMessage()
        line.update(fields)
        if record.exc_info:
            line["exception"] = _frames(record.exc_info[1])
        text = json.dumps(line, default=str, ensure_ascii=False)
        # A lone surrogate can't be encoded as UTF-8; as a JSON escape it can.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _frames(error: BaseException | None) -> list[str]:
    """Return the chain of exception types with their frames.

    Messages of other libraries' exceptions are left out: they quote input, URLs and rows.
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
    """Log JSON lines to stdout. `level` is for the broker's own loggers."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("broker").setLevel(level)
    logging.captureWarnings(capture=True)
