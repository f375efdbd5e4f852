"""The files that the image is made from, without an engine."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.docs.documents import ROOT, text_of


def test_the_wheel_has_the_product_and_nothing_for_developers(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(tmp_path), str(_copy(tmp_path))),
        ],
        check=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"broker"}
    assert not [name for name in names if "devstack" in name]
    assert {"broker/cli/serve.py", "broker/py.typed"} <= set(names)
    assert [name for name in names if name.endswith(".sql")]


def _copy(folder: Path) -> Path:
    """Copy what the wheel is built from; a build in the checkout would leave files there."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "broker", "devstack"):
        (source / name).symlink_to(ROOT / name)
    return source


def test_the_base_image_has_a_tag_and_a_digest() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text_of("Dockerfile"), re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_the_dockerfile_fetches_no_front_end() -> None:
    assert not re.search(r"^#\s*syntax\s*=", text_of("Dockerfile"), re.MULTILINE)


def test_the_build_context_has_only_the_listed_files() -> None:
    rules = [line for line in text_of(".dockerignore").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert allowed
    assert all((ROOT / name).exists() for name in allowed)
    assert "devstack" not in allowed


def test_the_lock_of_the_build_has_hashes() -> None:
    lock = text_of("requirements/build.txt")
    pins = re.findall(r"^\S+==\S+ \\$", lock, re.MULTILINE)
    assert pins
    assert lock.count("--hash=sha256:") >= len(pins)
