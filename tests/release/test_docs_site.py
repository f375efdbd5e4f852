"""The site that `make docs` builds."""

import os
import subprocess
import sys
from pathlib import Path

from checks.site_links import outward_links_to_source

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


def test_links_within_the_documents_stay() -> None:
    text = (
        "[a](../operations.md#deploy) [b](../../README.md#commands) [c](https://example.org/../d)"
    )
    assert outward_links_to_source(text, folder="how-to", source="https://s/") == (
        "[a](../operations.md#deploy) [b](https://s/README.md#commands) [c](https://example.org/../d)"
    )
