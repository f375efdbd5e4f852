"""Commands run_in_terminal into a terminal, with answers to their prompts."""

import os
import pty
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from select import select

_READ_BYTES = 65_536
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_END_SECONDS = 10.0

Answers = Sequence[tuple[str, str]]
"""Part of each prompt, and what is run_in_terminal then; in the order of the prompts."""


def run_in_terminal(
    commands: str,
    folder: Path,
    environment: Mapping[str, str],
    answers: Answers = (),
    *,
    within: float = 180,
) -> str:
    """Run them in a terminal; return its output. Raises `AssertionError` if one failed."""
    terminal, its_end = pty.openpty()
    try:
        shell = subprocess.Popen(
            ("bash", "-euo", "pipefail", "-c", commands),
            cwd=folder,
            env=environment,
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            start_new_session=True,
        )
        os.close(its_end)
        shown = _talk(terminal, shell, list(answers), time.monotonic() + within)
    finally:
        os.close(terminal)
    assert shell.wait(_END_SECONDS) == 0, f"{commands}\nfailed:\n{shown[-6000:]}"
    return _COLOURS.sub("", shown).replace("\r\n", "\n")


def _talk(
    terminal: int, shell: subprocess.Popen[bytes], answers: list[tuple[str, str]], deadline: float
) -> str:
    shown, seen = "", 0
    while True:
        if time.monotonic() > deadline:
            shell.kill()
            raise AssertionError(f"it did not end; its output:\n{shown[-6000:]}")
        if not select([terminal], [], [], 0.5)[0]:
            continue
        try:
            part = os.read(terminal, _READ_BYTES)
        except OSError:  # The other end is closed.
            part = b""
        if not part:
            assert not answers, f"it never asked for {answers[0][0]}:\n{shown[-6000:]}"
            return shown
        shown += part.decode(errors="replace")
        if answers and answers[0][0] in shown[seen:]:
            _, answer = answers.pop(0)
            seen = len(shown)
            os.write(terminal, answer.encode() + b"\n")
