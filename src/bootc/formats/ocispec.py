"""The JSON of container images: descriptors, manifests, indexes, configurations.

Promises: a parsed value has the right types, digests and sizes in every field. Anything
else raises :class:`ImageSpecError` with the name of the field. Unknown fields are ignored,
as the specification demands. A document is identified by its raw bytes: nothing here
writes JSON. The parser refuses documents that other programs read differently: a key
twice in an object (Go takes the last, Rust refuses), or a field in two spellings of
different case (the same field for Go).

Docker's "schema 2" manifests and lists differ only in their media types and are read
alike.

Format: OCI image specification 1.1; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from bootc.errors import Error
from bootc.formats.digest import DigestError, OciDigest
from bootc.printable import printable

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
_DOCKER = "application/vnd.docker."
_DOCKER_INDEX = f"{_DOCKER}distribution.manifest.list.v2+json"
_DOCKER_MANIFEST = f"{_DOCKER}distribution.manifest.v2+json"
_DOCKER_CONFIG = f"{_DOCKER}container.image.v1+json"

INDEX_TYPES = frozenset({INDEX, _DOCKER_INDEX})
MANIFEST_TYPES = frozenset({MANIFEST, _DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({CONFIG, _DOCKER_CONFIG})
#: Layers that are tar archives, compressed or not.
LAYER_TYPES = frozenset(
    {
        *(
            f"application/vnd.oci.image.layer.{kind}tar{suffix}"
            for kind in ("v1.", "nondistributable.v1.")
            for suffix in ("", "+gzip", "+zstd")
        ),
        *(
            f"{_DOCKER}image.rootfs.{kind}diff.tar{suffix}"
            for kind in ("", "foreign.")
            for suffix in ("", ".gzip", ".zstd")
        ),
    }
)

#: Annotation of an index entry that names it within a layout directory.
REF_NAME = "org.opencontainers.image.ref.name"

#: No image needs larger documents. The limits bound the memory for reading one. A pull refuses
#: larger documents, so every stored document can be read.
MAX_MANIFEST_BYTES = 4 << 20
MAX_CONFIG_BYTES = 16 << 20
_MAX_SIZE = (1 << 63) - 1
#: JSON can escape these halves of a character. Files and terminals cannot take them.
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")

#: Names of machines (``uname -m``) as the Go language, and so images, spell them.
_GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "386",
    "armv7l": "arm",
    "armv6l": "arm",
    "loongarch64": "loong64",
}


_T = TypeVar("_T")


class ImageSpecError(Error):
    """A document of an image is malformed, or is a document of another type."""


class WrongArchitecture(Error):
    """The image cannot run on this machine."""


def go_architecture(machine: str) -> str:
    """Return the architecture name images use for a machine name of ``uname``."""
    return _GO_ARCHITECTURES.get(machine, machine)


@dataclass(frozen=True, slots=True)
class Platform:
    """The purpose of an index entry."""

    architecture: str
    os: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob: its media type, digest and size."""

    media_type: str
    digest: OciDigest
    size_bytes: int
    annotations: Mapping[str, str]
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests: one image for several platforms, or the contents of a layout."""

    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, raw: bytes, what: str = "image index") -> Index:
        """Parse an index, or a Docker manifest list.

        Raises:
            ImageSpecError: a field is missing or wrong; ``what`` names the document.
        """
        top = _document(raw, what, INDEX_TYPES, MAX_MANIFEST_BYTES)
        return cls(top.items("manifests", _descriptor))

    def for_platform(self, architecture: str) -> tuple[Descriptor, ...]:
        """Return the Linux images for an architecture; failing those, the unmarked ones."""
        wanted = Platform(architecture, "linux")
        images = [m for m in self.manifests if m.media_type in MANIFEST_TYPES | INDEX_TYPES]
        exact = tuple(m for m in images if m.platform == wanted)
        return exact or tuple(m for m in images if m.platform is None)

    def architectures(self) -> list[str]:
        """Return the architectures of the marked entries, sorted."""
        return sorted({m.platform.architecture for m in self.manifests if m.platform})


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Parse the manifest of a container image.

        Raises:
            ImageSpecError: a field is missing or wrong, or this is another kind of artifact.
        """
        top = _document(raw, "image manifest", MANIFEST_TYPES, MAX_MANIFEST_BYTES)
        artifact = top.text("artifactType", default="")
        config = _descriptor(top.child("config"))
        if config.media_type not in CONFIG_TYPES:
            kind = artifact or config.media_type
            raise ImageSpecError(
                f"this is no container image but an artifact of type {kind!r:.200}"
            )
        layers = top.items("layers", _descriptor)
        for number, layer in enumerate(layers):
            if layer.media_type not in LAYER_TYPES:
                raise ImageSpecError(
                    f"image manifest: layers[{number}].mediaType: {_no_layer(layer.media_type)}",
                    hint="a layer is a tar archive, compressed by gzip or zstd, or not at all",
                )
        return cls(config, layers, top.texts("annotations"))


def _no_layer(media_type: str) -> str:
    """Say what is wrong with the type of a layer."""
    for separator in "+.":
        archive, _, compression = media_type.rpartition(separator)
        if archive in LAYER_TYPES:
            return f"a layer compressed by {compression!r:.40}, which layers cannot be"
    return f"unknown layer type {media_type!r:.200}"


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The configuration of an image, as far as an operating system needs it."""

    architecture: str
    os: str
    created: str | None
    labels: Mapping[str, str]
    diff_ids: tuple[OciDigest, ...]

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Parse an image configuration.

        Raises:
            ImageSpecError: a field is missing or wrong.
        """
        top = _document(raw, "image configuration", frozenset(), MAX_CONFIG_BYTES)
        rootfs = top.child("rootfs")
        if (kind := rootfs.text("type")) != "layers":
            raise ImageSpecError(
                f"image configuration: rootfs.type: {kind!r:.200} instead of 'layers'"
            )
        runtime = top.child("config", optional=True)
        return cls(
            architecture=top.text("architecture"),
            os=top.text("os"),
            created=top.text("created", default="") or None,
            labels=runtime.texts("Labels"),
            diff_ids=rootfs.items("diff_ids", _Field.digest),
        )

    def check_platform(self, architecture: str) -> None:
        """Refuse an image this machine cannot boot.

        Raises:
            WrongArchitecture: it is for another architecture or operating system.
        """
        if self.architecture != architecture:
            found = printable(self.architecture, 200)
            raise WrongArchitecture(f"the image is for {found}, this machine is {architecture}")
        if self.os != "linux":
            raise WrongArchitecture(f"the image is for the operating system {self.os!r:.200}")


class _RepeatedKey(Exception):
    """An object has a key twice; the text is the key."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, inside in pairs:
        if key in value:
            raise _RepeatedKey(key)
        value[key] = inside
    return value


def _document(raw: bytes, what: str, media_types: frozenset[str], limit: int) -> _Field:
    """Parse JSON; with ``media_types`` also check schemaVersion and mediaType."""
    if len(raw) > limit:
        raise ImageSpecError(f"{what}: {len(raw)} bytes, and {limit} are the limit")
    try:
        value = json.loads(raw, object_pairs_hook=_object)
    except _RepeatedKey as exc:
        raise ImageSpecError(f"{what}: the key {printable(str(exc), 200)} stands twice") from None
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno} column {exc.colno}"
        raise ImageSpecError(f"{what}: not JSON: {exc.msg}: {where}") from exc
    except UnicodeDecodeError as exc:
        raise ImageSpecError(f"{what}: not JSON: not UTF-8 at offset {exc.start}") from exc
    except RecursionError as exc:
        raise ImageSpecError(f"{what}: not JSON that can be read: nested too deeply") from exc
    except ValueError as exc:
        # Python reads no longer numbers.
        raise ImageSpecError(f"{what}: not JSON that can be read: a number is too long") from exc
    top = _Field(what, "", value)
    top.mapping()
    if media_types:
        if (version := top.get("schemaVersion")).value != 2:
            # Not quoted: repr() may fail for a value as deeply nested as the parser allows.
            raise version.wrong("2")
        media_type = top.text("mediaType", default="")
        if media_type and media_type not in media_types:
            raise ImageSpecError(f"{what}: mediaType: unexpected {media_type!r:.200}")
    return top


def _descriptor(entry: _Field) -> Descriptor:
    platform = None
    if entry.get("platform").value is not None:
        marked = entry.child("platform")
        platform = Platform(marked.text("architecture"), marked.text("os"))
    return Descriptor(
        media_type=entry.text("mediaType"),
        digest=entry.get("digest").digest(),
        size_bytes=entry.get("size").size(),
        annotations=entry.texts("annotations"),
        platform=platform,
    )


@dataclass(frozen=True, slots=True)
class _Field:
    """A JSON value that knows its path, for error messages."""

    document: str
    path: str
    value: Any

    def wrong(self, wanted: str) -> ImageSpecError:
        found = "missing" if self.value is None else f"not {wanted}"
        where = f"{self.document}: {self.path}" if self.path else self.document
        return ImageSpecError(f"{where}: {found}")

    def mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return self.value

    def get(self, key: str) -> _Field:
        """Return the value of a key of the specification."""
        field = self.below(key)
        folded = key.casefold()
        for other in self.mapping():
            if other != key and other.casefold() == folded:
                where = f"{self.document}: {field.path}"
                raise ImageSpecError(f"{where}: stands there as {printable(other, 200)}, too")
        return field

    def below(self, key: str) -> _Field:
        path = f"{self.path}.{printable(key, 200)}" if self.path else printable(key, 200)
        return _Field(self.document, path, self.mapping().get(key))

    def child(self, key: str, *, optional: bool = False) -> _Field:
        field = self.get(key)
        if optional and field.value is None:
            return _Field(field.document, field.path, {})
        field.mapping()
        return field

    def text(self, key: str, *, default: str | None = None) -> str:
        field = self.get(key)
        if field.value is None and default is not None:
            return default
        return field.string()

    def string(self) -> str:
        if not isinstance(self.value, str) or _HALF_CHARACTER.search(self.value):
            raise self.wrong("a string")
        return self.value

    def texts(self, key: str) -> Mapping[str, str]:
        field = self.child(key, optional=True)
        if any(_HALF_CHARACTER.search(name) for name in field.mapping()):
            raise field.wrong("keyed by strings")
        return {name: field.below(name).string() for name in field.mapping()}

    def items(self, key: str, parse: Callable[[_Field], _T]) -> tuple[_T, ...]:
        field = self.get(key)
        if not isinstance(field.value, list):
            raise field.wrong("a list")
        return tuple(
            parse(_Field(self.document, f"{field.path}[{number}]", value))
            for number, value in enumerate(field.value)
        )

    def digest(self) -> OciDigest:
        if not isinstance(self.value, str):
            raise self.wrong("a digest")
        try:
            return OciDigest.parse(self.value)
        except DigestError as exc:
            raise self.wrong("a digest") from exc

    def size(self) -> int:
        if type(self.value) is not int or not 0 <= self.value <= _MAX_SIZE:
            raise self.wrong("a size")
        return self.value
