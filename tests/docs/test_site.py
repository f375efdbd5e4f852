"""The site that `make docs` builds."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from checks.site_links import on_page_markdown, outward_links_to_source

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_warning_and_without_other_hosts(tmp_path: Path) -> None:
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
    assert 'href="create-the-oauth-client.html#3-the-client"' in page
    foreign = {
        f"{path.relative_to(tmp_path)}: {address}"
        for path in tmp_path.rglob("*.html")
        for address in _loaded(path.read_text(encoding="utf-8"))
        if re.match(r"(https?:)?//", address)
    }
    assert not foreign, "the site loads something from another host"
    flows = (tmp_path / "explanation/flows.html").read_text(encoding="utf-8")
    assert flows.count("<svg") > 10
    assert 'class="mermaid"' not in flows


def _loaded(page: str) -> list[str]:
    """Return the addresses that a browser fetches to show the page."""
    sources = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', page)
    styles = re.findall(r'<link[^>]*\srel="(?:stylesheet|preload|icon)"[^>]*\shref="([^"]+)"', page)
    return sources + styles + re.findall(r"url\(([^)]+)\)", page)


def test_built_by_hand_it_leads_out_to_the_checkout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/terraform.md"))
    monkeypatch.delenv("SOURCE_URL", raising=False)
    text = on_page_markdown("[a](../../deploy/terraform/aws/README.md)", page=page)
    assert text == f"[a]({(ROOT / 'deploy/terraform/aws/README.md').as_uri()})"


def test_links_within_the_documents_stay() -> None:
    text = "[a](../reference/cli.md#deploy) [b](../../README.md#commands) [c](https://example.org/../d)"
    assert outward_links_to_source(text, folder="how-to", source="https://s/") == (
        "[a](../reference/cli.md#deploy) [b](https://s/README.md#commands) [c](https://example.org/../d)"
    )
