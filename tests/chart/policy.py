"""Checks all objects of the chart with checkov's rules for Kubernetes (`make policy`).

checkov has a separate venv: a hundred packages, 290 MB. A run takes about fifteen seconds.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.chart.rendering import MINIMAL, MONITORING, Object, merged, render_texts
from tests.chart.switches import DRILL, INGRESS, ROUTE, SCALING, VAULT

PINNED: Object = {"image": {"digest": "sha256:" + "a" * 64, "pullPolicy": "Always"}}
SCENARIOS: dict[str, Object] = {
    "minimal": PINNED,
    "initContainer": merged(PINNED, {"migrations": {"mode": "initContainer"}}),
    "all": merged(
        *(PINNED, VAULT, DRILL, INGRESS, ROUTE, SCALING),
        {"drill": {"image": {"digest": PINNED["image"]["digest"]}}},
    ),
}
ACCEPTED = {
    ("CKV_K8S_21", ""): "Helm sets the namespace when it installs",
    ("CKV_K8S_11", ""): "no CPU limit on purpose: throttling shows up as latency",
    ("CKV_K8S_40", "CronJob"): "the user that owns the backups, not one of the chart's choice",
    ("CKV_K8S_8", "Pod"): "the pod of `helm test` ends by itself",
    ("CKV_K8S_9", "Pod"): "the pod of `helm test` ends by itself",
    ("CKV2_K8S_6", "Pod"): "no one connects to the pod of `helm test`",
}
"""Accepted findings, by check and kind of object (empty: any), with the reason."""


def main(arguments: Sequence[str]) -> int:
    """Check with the checkov at the given path. Return 1 if there is a finding that is not
    accepted.
    """
    (checkov,) = arguments
    with tempfile.TemporaryDirectory() as folder:
        for name, values in SCENARIOS.items():
            _write(Path(folder) / f"{name}.yaml", values)
        report = _run(checkov, folder)
    if not report["summary"]["passed"]:
        raise RuntimeError("checkov checked nothing")
    found = sorted(set(_failures(report)))
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.stdout.write(f"{report['summary']['passed']} checks passed, {len(found)} failed\n")
    return 1 if found else 0


def _write(path: Path, values: Object) -> None:
    texts = render_texts(merged(MINIMAL, values), apis=MONITORING)
    objects = [text for name, text in texts.items() if name != "NOTES.txt" and text.strip()]
    path.write_text("\n---\n".join(objects), encoding="utf-8")


def _run(checkov: str, folder: str) -> dict[str, Any]:
    options = ("--framework", "kubernetes", "--directory", folder, "--output", "json")
    process = subprocess.run(
        [checkov, *options, "--quiet", "--compact", "--skip-download"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    report: dict[str, Any] = json.loads(process.stdout)
    return report


def _failures(report: dict[str, Any]) -> Iterator[str]:
    for one in report["results"]["failed_checks"]:
        kind = one["resource"].partition(".")[0]
        if not {(one["check_id"], ""), (one["check_id"], kind)} & ACCEPTED.keys():
            yield f"{one['check_id']} {one['resource']} ({one['file_path']}): {one['check_name']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
