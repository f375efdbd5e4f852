"""The examples of docs/how-to/deploy-kubernetes.md, as values."""

import re
from typing import Any

import yaml

from tests.chart.rendering import Object, merged, the
from tests.docs.documents import section, text_of

GUIDE = text_of("docs/how-to/deploy-kubernetes.md")


def _examples(text: str) -> list[Any]:
    """Return its YAML blocks, without the indentation of a list."""
    found = re.findall(r"^( *)```yaml\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(re.sub(f"(?m)^{indent}", "", block)) for indent, block in found]


(INSTALL,) = _examples(section(GUIDE, "## Install"))
INSTALL["callers"]["file"]["callers"]["calendar-sync"]["keys"] = ["sha256:" + "0" * 64]
WORKLOAD, CALLER = _examples(section(GUIDE, "### Callers without keys"))
# As its heading says: in addition to the above, instead of the caller with a key.
KEYLESS = merged(INSTALL, {"callers": {"file": {"callers": {"calendar-sync": {}}}}})
KEYLESS["callers"] = WORKLOAD["callers"]
KEYLESS = merged(KEYLESS, WORKLOAD)
OTHERS = [
    values
    for heading in ("## Let callers in", "## Secrets from elsewhere", "## Monitoring")
    for values in _examples(section(GUIDE, heading).split("### Callers without keys")[0])
] + _examples(section(GUIDE, "## Backup drill"))

(VAULT,) = (values for values in OTHERS if "vaultToken" in values)


def callers_file(objects: list[Object]) -> str:
    """Return the callers file of the rendered objects."""
    return str(the(objects, "ConfigMap", "-callers")["data"]["callers.yaml"])
