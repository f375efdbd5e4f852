"""Plain SQL in its own files: `-- name:` starts a query, the comment below it describes it."""

import re
from collections.abc import Mapping
from importlib import resources

_NAME = re.compile(r"^-- name: (?P<name>[a-z_]+)\s*$", re.MULTILINE)


def load_queries(package: str, file: str = "queries.sql") -> Mapping[str, str]:
    """Return the queries of a file of `package` by name. Raises `ValueError` on a repeated name."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    queries: dict[str, str] = {}
    for name, sql in zip(parts[::2], parts[1::2], strict=True):
        if name in queries:
            raise ValueError(f"{package}/{file}: two queries are named {name}")
        queries[name] = sql.strip()
    return queries
