"""Puts into the chart what only a release knows: whose it is, and where its image is.

`python3 -m checks.chart.published IMAGE REPOSITORY VERSION` changes the files of helm/ before `helm
package`: the image becomes the default, and Artifact Hub gets links. Needs nothing but Python.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

CHART = Path(__file__).parents[2] / "helm"
_IMAGE = '  repository: ""\n'
_ANNOTATIONS = "\nannotations:\n"
_RELATIVE = "](../"


def publish(chart: Path, image: str, repository: str, version: str) -> None:
    """Rewrite the chart. Raises `ValueError` where a file is not as expected."""
    about = f"{repository}/blob/v{version}"
    page = f"{about}/docs/how-to/deploy-kubernetes.md"
    _replace(chart / "values.yaml", _IMAGE, f"  repository: {image}\n")
    _replace(chart / "README.md", _RELATIVE, f"]({about}/")
    _replace(
        chart / "Chart.yaml",
        _ANNOTATIONS,
        f"\nhome: {repository}\n"
        f"sources:\n  - {repository}\n"
        "annotations:\n"
        "  artifacthub.io/images: |\n"
        f"    - name: token-broker\n      image: {image}:{version}\n"
        "  artifacthub.io/links: |\n"
        f"    - name: Deploy on Kubernetes\n      url: {page}\n"
        f"    - name: Changelog\n      url: {about}/CHANGELOG.md\n",
    )


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{path} does not hold {old.strip()!r}")
    # Only the first image is the broker's; links are all alike.
    changed = text.replace(old, new) if old == _RELATIVE else text.replace(old, new, 1)
    path.write_text(changed, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m checks.chart.published")
    parser.add_argument("image", help="without tag, such as ghcr.io/example/token-broker")
    parser.add_argument("repository", help="its address, such as https://git.example.com/broker")
    parser.add_argument("version")
    given = parser.parse_args(arguments)
    publish(CHART, given.image, given.repository, given.version)
    return 0


if __name__ == "__main__":
    sys.exit(main())
