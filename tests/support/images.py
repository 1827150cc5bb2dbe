"""Container images for tests, made by hand so that every quirk can be had.

A layer is a list of :func:`file`, :func:`directory` … members made into a tar
archive by :func:`layer`. A :class:`Layout` collects blobs, images and an index
in an OCI layout directory; nothing it writes is checked, so broken images are as
easy as good ones.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from bootc.formats import ocispec
from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.oci.append_layer import descriptor_json
from bootc.oci.layout_write import LayoutWriter
from bootc.oci.layoutdir import LayoutSource, open_layout
from bootc.oci.source import Source
from bootc.oci.trees import image_id_of, image_tree

MTIME = 1234567890
ARCHITECTURE = ocispec.go_architecture(os.uname().machine)
OTHER_ARCHITECTURE = "arm64" if ARCHITECTURE != "arm64" else "amd64"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
SUFFIXES = {"": "", "gzip": "+gzip", "zstd": "+zstd"}

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes, content: bytes = b"", **attributes: Any) -> Member:
    """Make any member; ``attributes`` are those of ``tarfile.TarInfo``."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mtime = MTIME
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def file(name: str, content: bytes = b"", mode: int = 0o644, **attributes: Any) -> Member:
    return member(name, tarfile.REGTYPE, content, mode=mode, **attributes)


def directory(name: str, mode: int = 0o755, **attributes: Any) -> Member:
    return member(name, tarfile.DIRTYPE, mode=mode, **attributes)


def symlink(name: str, target: str, **attributes: Any) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target, mode=0o777, **attributes)


def hardlink(name: str, target: str, **attributes: Any) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target, **attributes)


def xattr(name: str, value: str) -> dict[str, str]:
    """Return pax headers that set an extended attribute."""
    return {f"SCHILY.xattr.{name}": value}


def layer(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    """Make a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def bootable(*more: Member, kernel: bytes = b"", initramfs: bytes = b"") -> bytes:
    """Make a layer with the directories (and perhaps the kernel) a bootable image needs."""
    modules = "usr/lib/modules/6.12.0-test"
    members = [directory(d) for d in ("usr", "boot", "sysroot", "usr/lib", "usr/lib/modules")]
    if kernel:
        members += [
            directory(modules),
            file(f"{modules}/vmlinuz", kernel),
            file(f"{modules}/initramfs.img", initramfs),
        ]
    return layer(*members, *more)


def compress(data: bytes, compression: str) -> bytes:
    match compression:
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor().compress(data)
        case _:
            return data


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """An OCI layout directory under construction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests: list[dict[str, Any]] = []
        self.write_index()

    def blob_path(self, digest: str) -> Path:
        return self.path / "blobs" / Path(*digest.split(":"))

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Store a blob and return its descriptor; ``more`` overrides fields of it."""
        digest = sha256(data)
        self.blob_path(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def document(self, value: Mapping[str, Any], media_type: str, **more: Any) -> dict[str, Any]:
        """Store JSON and return its descriptor."""
        return self.blob(json.dumps(value, separators=(",", ":")).encode(), media_type, **more)

    def image(
        self,
        layers: Sequence[bytes],
        *,
        tag: str | None = None,
        compression: str = "gzip",
        config: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        descriptor: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Add an image; the mappings override top-level fields. Return its descriptor."""
        descriptors = [
            self.blob(compress(data, compression), LAYER_TYPE + SUFFIXES[compression])
            for data in layers
        ]
        configuration = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Labels": {"containers.bootc": "1"}},
            "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in layers]},
            **(config or {}),
        }
        entry = self.document(
            {
                "schemaVersion": 2,
                "mediaType": ocispec.MANIFEST,
                "config": self.document(configuration, ocispec.CONFIG),
                "layers": descriptors,
                **(manifest or {}),
            },
            ocispec.MANIFEST,
            **(descriptor or {}),
        )
        self.add(entry, tag=tag)
        return entry

    def add(self, entry: Mapping[str, Any], *, tag: str | None = None) -> None:
        """Put an entry into the index."""
        marked = dict(entry)
        if tag is not None:
            marked["annotations"] = {ocispec.REF_NAME: tag}
        self.manifests.append(marked)
        self.write_index()

    def write_index(self, manifests: Iterable[Mapping[str, Any]] | None = None) -> None:
        """Write index.json, from ``manifests`` or what was added."""
        entries = list(self.manifests if manifests is None else manifests)
        (self.path / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "mediaType": ocispec.INDEX, "manifests": entries})
        )

    def reference(self, tag: str | None = None) -> str:
        """Return the image reference of the layout, or of one image in it."""
        return f"oci:{self.path}" if tag is None else f"oci:{self.path}:{tag}"


def single(path: Path, *layers: bytes, **options: Any) -> Layout:
    """Make a layout that holds one image."""
    layout = Layout(path)
    layout.image(layers, **options)
    return layout


@contextmanager
def opened(layout: Layout, tag: str | None = None) -> Iterator[LayoutSource]:
    """Open an image of a layout as the source of a pull."""
    with open_layout(ImageReference.parse(layout.reference(tag)), ARCHITECTURE) as source:
        yield source


def put_image(layout: LayoutWriter, data: bytes) -> OciDigest:
    """Have the library write an image of one layer; return the digest of its manifest."""
    digest = OciDigest.of(data)
    layout.add(digest, iter((data[:99], data[99:])))
    value: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(digest)]},
    }
    config = layout.put(json.dumps(value).encode(), ocispec.CONFIG)
    value = {
        "schemaVersion": 2,
        "config": descriptor_json(config),
        "layers": [{"mediaType": LAYER_TYPE, "digest": str(digest), "size": len(data)}],
    }
    manifest = layout.put(json.dumps(value).encode(), ocispec.MANIFEST)
    layout.commit(manifest)
    return manifest.digest


def compute_image_id(
    source: Source,
    *,
    bootable: bool = True,
    algorithm: Algorithm = Algorithm.SHA512,
    architecture: str | None = None,
) -> Digest:
    """Return the image id that a pull ends with, without storing anything."""
    tree = image_tree(source, bootable=bootable, algorithm=algorithm, architecture=architecture)
    return image_id_of(tree.root, algorithm)
