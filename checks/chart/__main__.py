"""The command: `python -m checks.chart [--check]`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from checks.chart import readme, schema

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
COPIES = (
    ("deploy/alerts", "*.yaml"),
    ("deploy/alerts/optional", "*.yaml"),
    ("deploy/dashboards", "*.json"),
)
"""Helm reads nothing outside of its folder, and not every checkout keeps symbolic links."""


def generated() -> Iterator[tuple[Path, str | None]]:
    """Each generated file and what must be in it; None where it must not exist."""
    yield CHART / "values.schema.json", schema.build()
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    text = (CHART / "README.md").read_text(encoding="utf-8")
    yield CHART / "README.md", readme.build(text, values)
    for folder, pattern in COPIES:
        target = CHART / "files" / Path(folder).name
        sources = {path.name: path for path in (ROOT / folder).glob(pattern)}
        for name in sorted(sources.keys() | {path.name for path in target.glob(pattern)}):
            source = sources.get(name)
            yield target / name, source.read_text(encoding="utf-8") if source else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what differs, or with --check only name it and end with 1."""
    parser = argparse.ArgumentParser(prog="python -m checks.chart")
    parser.add_argument("--check", action="store_true", help="change nothing, name what differs")
    is_check = parser.parse_args(arguments).check
    different = [(path, text) for path, text in generated() if _content(path) != text]
    for path, text in different:
        sys.stdout.write(
            f"{path.relative_to(ROOT)}{' is out of date: make chart' if is_check else ''}\n"
        )
        if not is_check:
            _write(path, text)
    return 1 if is_check and different else 0


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
