"""Container images of a single static program, without a container engine."""

import hashlib
import io
import json
import tarfile
from pathlib import Path


def write(out: Path, name: str, program: Path, architecture: str) -> None:
    """Write an archive as `docker save` does, which `ctr images import` reads: the program alone, at `/NAME`.

    ``name`` is the image's full name, ``architecture`` Go's word for it (amd64, arm64).
    """
    layer = _layer(program)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    partial = out.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "layer.tar", layer)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    partial.rename(out)


def write_index(out: Path, name: str, manifest: bytes, config: bytes) -> None:
    """Write an OCI layout of one image without its layers, for a runtime that has them."""
    kind = json.loads(manifest).get("mediaType", "application/vnd.oci.image.manifest.v1+json")
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    described = {"mediaType": kind, "digest": _digest(manifest), "size": len(manifest), "annotations": named}
    with tarfile.open(out, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}).encode())
        for blob in (manifest, config):
            _add(archive, f"blobs/sha256/{_digest(blob).partition(':')[2]}", blob)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _layer(program: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        _add(layer, program.name, program.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
