"""The runbooks' commands, as an operator copies them.

A script replaces `kubectl` and `docker compose`; it runs their command locally.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import click
import pytest

from broker.cli import main
from checks.reference.log_events import log_calls
from tests.deploy.rule_files import panels
from tests.docs.documents import ROOT, blocks, text_of
from tests.docs.test_documents import commands_of

RUNBOOKS = "docs/how-to/runbooks.md"
OF_PROMETHEUS = {"Targets"}
"""Pages of Prometheus whose names look like panels."""

_LINES = [
    line for block in blocks(text_of(RUNBOOKS), "bash") for line in block.splitlines() if line
]
_DEFINITIONS = [line for line in _LINES if re.match(r"\w+\(\) \{", line)]
_COMMANDS = sorted({line for line in _LINES if line.startswith("broker ")})
_QUERIES = re.findall(r'sql "(SELECT [^"]*)"', text_of(RUNBOOKS))
_ON_THE_WAY = """#!/bin/sh
# Replaces kubectl and docker: runs the words after the container's name, or shows the log.
case " $* " in
    *" logs "*) cat "$LOG"; exit ;;
    *" broker broker "*) while [ "$1" != broker ]; do shift; done; shift ;;
    *" -- "*) while [ "$1" != -- ]; do shift; done; shift ;;
esac
[ "$1" = broker ] && shift
exec "$PYTHON" -c 'from broker.cli import main; main()' "$@"
"""


def of_placeholders(command: str, file: Path) -> list[str]:
    """Return the command's words after `broker`, with valid values for the placeholders."""
    for placeholder, value in (
        ("FILE", str(file)),
        ("NUMBER:MAC", f"1:{'0' * 64}"),
        ("ID", "user-1"),
    ):
        command = re.sub(rf"\b{placeholder}\b", value, command)
    return command.split()[1:]


@pytest.mark.parametrize("command", _COMMANDS)
def test_each_command_is_valid(command: str, tmp_path: Path) -> None:
    words = of_placeholders(command, file := tmp_path / "file")
    file.write_text("{}", encoding="utf-8")
    current: click.Command = main
    while isinstance(current, click.Group):
        current = commands_of(current)[words.pop(0)]
    current.make_context(current.name, words)


def test_there_are_commands_and_queries() -> None:
    assert len(_COMMANDS) > 10
    assert len(_QUERIES) > 4
    assert len(_DEFINITIONS) == 6


@pytest.mark.parametrize("query", _QUERIES)
async def test_each_query_can_be_run(query: str, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.fetch(query.replace("(PID)", "(0)"))
    finally:
        await connection.close()


@pytest.mark.parametrize("platform", [0, 1], ids=["kubernetes", "compose"])
def test_the_functions_run_a_command_in_a_replica(
    platform: int, database_url: str, tmp_path: Path
) -> None:
    for name in ("kubectl", "docker"):
        (tmp_path / name).write_text(_ON_THE_WAY, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    log.write_text('{"level": "ERROR", "message": "storage_unavailable"}\n', encoding="utf-8")
    functions = _DEFINITIONS[3 * platform :][:3]
    asked = (
        "broker audit show --outcome not_recorded --since 1d && logs | grep -c storage_unavailable"
    )
    done = subprocess.run(
        ["bash", "-euc", "\n".join([*functions, asked])],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "LOG": str(log),
            "DATABASE_URL": database_url,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "no record matches\n"), done.stdout
    assert done.stdout.splitlines()[-1] == "1"


def test_the_broker_logs_each_event_that_the_runbooks_search() -> None:
    searched = re.findall(r"logs \| grep (?!-)(\S+)", text_of(RUNBOOKS))
    assert len(searched) > 5
    assert set(searched) <= {each.event for each in log_calls()}


def test_each_named_panel_exists() -> None:
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text_of(RUNBOOKS)))
    assert len(named) > 5
    assert named <= {panel["title"] for panel in panels()} | OF_PROMETHEUS
