"""Images and charts as OCI layouts, and a registry of one's own to push them to."""

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

from tests.support.local_servers import running
from tests.support.optional_parts import skip_without
from tests.support.processes import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def required_tool(name: str) -> str:
    """Its path; without it the test is skipped, or fails where every part is required."""
    path = shutil.which(name)
    if path is None:
        skip_without(f"there is no {name} on this machine (`.ci/run` installs it)")
    return path


@dataclass(frozen=True)
class Layout:
    """An OCI image layout that grows by what is put into it."""

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> "Layout":
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")
        return cls(folder)

    def put(self, media_type: str, content: bytes | Mapping[str, object]) -> dict[str, object]:
        """A blob's descriptor."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def name(self, tag: str, descriptor: Mapping[str, object]) -> None:
        """What the layout holds, for who copies `oci:FOLDER:TAG`."""
        named = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
        (self.folder / "index.json").write_text(json.dumps(index), encoding="ascii")


def image_layout(folder: Path, tag: str, files: Mapping[str, bytes]) -> Layout:
    """An image of two architectures with one layer."""
    layout = Layout.new(folder)
    archive = _archive(files)
    layer = layout.put(LAYER, gzip.compress(archive, mtime=0))
    diff = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    manifests = []
    for architecture in ("amd64", "arm64"):
        config = layout.put(
            IMAGE_CONFIG,
            {
                "os": "linux",
                "architecture": architecture,
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [diff]},
            },
        )
        manifest = layout.put(
            MANIFEST,
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]},
        )
        manifests.append({**manifest, "platform": {"os": "linux", "architecture": architecture}})
    layout.name(
        tag, layout.put(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    )
    return layout


def chart_layout(folder: Path, tag: str, metadata: Mapping[str, str]) -> Layout:
    """A chart as Helm pushes it."""
    layout = Layout.new(folder)
    name = metadata["name"]
    files = {f"{name}/Chart.yaml": json.dumps(metadata).encode(), f"{name}/values.yaml": b"{}\n"}
    config = layout.put(CHART_CONFIG, metadata)
    layer = layout.put(CHART_LAYER, gzip.compress(_archive(files), mtime=0))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    layout.name(tag, layout.put(MANIFEST, manifest))
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
    """A running registry; `host` is its name in a reference."""

    host: str

    def push(self, layout: Layout, tag: str, name: str) -> str:
        """Push with all architectures: the digest in the registry."""
        digest_file = layout.folder / "digest"
        self._skopeo(
            *("copy", "--all", "--dest-tls-verify=false", "--digestfile", str(digest_file)),
            *(f"oci:{layout.folder}:{tag}", f"docker://{self.host}/{name}:{tag}"),
        )
        return digest_file.read_text(encoding="ascii")

    def manifest(self, name: str, reference: str) -> dict[str, object]:
        """As the registry answers it; `reference` is `:TAG` or `@DIGEST`."""
        found: dict[str, object] = json.loads(self._raw_manifest(name, reference))
        return found

    def digest(self, name: str, reference: str) -> str:
        """Of what the registry has by that reference."""
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
    """Debian's docker-registry, on loopback, with its blobs in `folder`."""
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
