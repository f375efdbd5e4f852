"""Plain SQL kept in its own files: `-- name:` begins a query, the comment under it describes it."""

import re
from collections.abc import Mapping
from importlib import resources

_NAME = re.compile(r"^-- name: (?P<name>[a-z_]+)\s*$", re.MULTILINE)


def load_queries(package: str) -> Mapping[str, str]:
    """The queries of `package`/queries.sql by name. Raises `ValueError` on a repeated one."""
    text = resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    queries: dict[str, str] = {}
    for name, sql in zip(parts[::2], parts[1::2], strict=True):
        if name in queries:
            raise ValueError(f"{package}: two queries are named {name}")
        queries[name] = sql.strip()
    return queries
