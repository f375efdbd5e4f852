"""Images and charts as OCI layouts, and a local registry to push them to."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.optional_parts import skip_without
from tests.support.processes import free_port, running

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def required_tool(name: str) -> str:
    """Return the path of a tool; without it, skip the test (`skip_without`)."""
    path = shutil.which(name)
    if path is None:
        skip_without(f"there is no {name} on this machine (`.ci/run` installs it)")
    return path


@dataclass(frozen=True)
class Layout:
    """An OCI image layout, filled blob by blob."""

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> "Layout":
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")
        return cls(folder)

    def add_blob(self, media_type: str, content: bytes | Mapping[str, object]) -> dict[str, object]:
        """Add a blob; return its descriptor."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def tag(self, tag: str, descriptor: Mapping[str, object]) -> None:
        """Write the index, so that `oci:FOLDER:TAG` refers to the described blob."""
        tagged = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [tagged]}
        (self.folder / "index.json").write_text(json.dumps(index), encoding="ascii")


def image_layout(folder: Path, tag: str, files: Mapping[str, bytes]) -> Layout:
    """Write an image of two architectures with one layer."""
    layout = Layout.new(folder)
    archive = _archive(files)
    layer = layout.add_blob(LAYER, gzip.compress(archive, mtime=0))
    diff = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    manifests = []
    for architecture in ("amd64", "arm64"):
        config = layout.add_blob(
            IMAGE_CONFIG,
            {
                "os": "linux",
                "architecture": architecture,
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [diff]},
            },
        )
        manifest = layout.add_blob(
            MANIFEST,
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]},
        )
        manifests.append({**manifest, "platform": {"os": "linux", "architecture": architecture}})
    layout.tag(
        tag,
        layout.add_blob(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}),
    )
    return layout


def chart_layout(folder: Path, tag: str, metadata: Mapping[str, str]) -> Layout:
    """Write a chart in the form in which Helm pushes it."""
    layout = Layout.new(folder)
    name = metadata["name"]
    files = {f"{name}/Chart.yaml": json.dumps(metadata).encode(), f"{name}/values.yaml": b"{}\n"}
    config = layout.add_blob(CHART_CONFIG, metadata)
    layer = layout.add_blob(CHART_LAYER, gzip.compress(_archive(files), mtime=0))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    layout.tag(tag, layout.add_blob(MANIFEST, manifest))
    return layout


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Registry:
    """A running registry; `host` is the first part of its references."""

    host: str

    def push(self, layout: Layout, tag: str, name: str) -> str:
        """Push all architectures; return the digest in the registry."""
        digest_file = layout.folder / "digest"
        self._skopeo(
            *("copy", "--all", "--dest-tls-verify=false", "--digestfile", str(digest_file)),
            *(f"oci:{layout.folder}:{tag}", f"docker://{self.host}/{name}:{tag}"),
        )
        return digest_file.read_text(encoding="ascii")

    def manifest(self, name: str, reference: str) -> dict[str, object]:
        """Return a manifest from the registry; `reference` is `:TAG` or `@DIGEST`."""
        manifest: dict[str, object] = json.loads(self._raw_manifest(name, reference))
        return manifest

    def digest(self, name: str, reference: str) -> str:
        """Return the digest of a manifest in the registry."""
        raw = self._raw_manifest(name, reference).encode()
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"

    def _raw_manifest(self, name: str, reference: str) -> str:
        return self._skopeo(
            *("inspect", "--raw", "--tls-verify=false", f"docker://{self.host}/{name}{reference}")
        )

    def _skopeo(self, *arguments: str) -> str:
        return subprocess.run(
            [required_tool("skopeo"), "--insecure-policy", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout


@contextmanager
def local_registry(folder: Path) -> Iterator[Registry]:
    """Run Debian's docker-registry on loopback, with its blobs in `folder`."""
    binary = required_tool("docker-registry")
    host = f"127.0.0.1:{free_port()}"
    configuration = folder / "registry.yml"
    configuration.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"level": "warn"},
                "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
                "http": {"addr": host},
            }
        ),
        encoding="ascii",
    )
    command = [binary, "serve", str(configuration)]
    with running(command, answers_at=f"http://{host}/v2/", log=folder / "registry.log"):
        yield Registry(host)
