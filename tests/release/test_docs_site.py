"""The site that `make docs` builds."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from checks.site_links import on_page_markdown, outward_links_to_source

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_warning_and_leads_out_to_the_source(tmp_path: Path) -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "SOURCE_URL": "https://git.example.com/blob/main"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "how-to/terraform.html").read_text(encoding="utf-8")
    assert 'href="https://git.example.com/blob/main/deploy/terraform/aws/README.md"' in page
    assert 'href="../google-setup.html#3-the-client"' in page


def test_built_by_hand_it_leads_out_to_the_checkout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/terraform.md"))
    monkeypatch.delenv("SOURCE_URL", raising=False)
    text = on_page_markdown("[a](../../deploy/terraform/aws/README.md)", page=page)
    assert text == f"[a]({(ROOT / 'deploy/terraform/aws/README.md').as_uri()})"


def test_links_within_the_documents_stay() -> None:
    text = (
        "[a](../operations.md#deploy) [b](../../README.md#commands) [c](https://example.org/../d)"
    )
    assert outward_links_to_source(text, folder="how-to", source="https://s/") == (
        "[a](../operations.md#deploy) [b](https://s/README.md#commands) [c](https://example.org/../d)"
    )
