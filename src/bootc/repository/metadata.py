"""``meta.json``: the description of a repository.

Owns: its bytes and the rules about versions and features (composefs, "meta.json").
Promises: the bytes equal those that the reference implementation writes. A repository with
features that this code does not know is refused, and the error names them. The file does
*not* say whether the repository is secure: fs-verity on the file itself does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from bootc.errors import Error
from bootc.formats.digest import Algorithm, DigestError

VERSION = 1
#: The feature that says images have the EROFS format 1.
V1_EROFS = "v1_erofs"
#: All formats; 0 and 1 are the layout of C's mkcomposefs.
EROFS_FORMATS = (0, 1, 2)
#: The format of new repositories.
DEFAULT_EROFS_FORMAT = 1
#: No program writes a larger meta.json.
MAX_BYTES = 64 * 1024

#: Characters that JSON can escape and UTF-8 cannot encode.
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
_KNOWN_READ_ONLY_COMPATIBLE = frozenset({V1_EROFS})


class MetadataError(Error):
    """A repository's ``meta.json`` makes no sense."""


class UnsupportedRepository(Error):
    """The repository needs a feature that this version does not know."""


@dataclass(frozen=True, slots=True)
class ErofsFormats:
    """The EROFS formats that images are written in: the default one, and extra ones."""

    default: int
    extra: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """Every format once, the default format first."""
        return (self.default, *(number for number in self.extra if number != self.default))


@dataclass(frozen=True, slots=True)
class Metadata:
    """The content of ``meta.json``; the defaults are those of a new repository."""

    algorithm: Algorithm = Algorithm.SHA512
    compatible: tuple[str, ...] = ()
    read_only_compatible: tuple[str, ...] = (V1_EROFS,)
    incompatible: tuple[str, ...] = ()
    erofs_formats: ErofsFormats | None = ErofsFormats(DEFAULT_EROFS_FORMAT)

    @classmethod
    def new(cls, algorithm: Algorithm, erofs_format: int = DEFAULT_EROFS_FORMAT) -> Metadata:
        """Return the description of a new repository whose images have a certain format."""
        features = (V1_EROFS,) if erofs_format == 1 else ()
        return cls(
            algorithm, read_only_compatible=features, erofs_formats=ErofsFormats(erofs_format)
        )

    def effective_erofs_formats(self) -> ErofsFormats:
        """Return the formats that apply, also if the field and the feature disagree.

        Old tools wrote ``{"default": 2}`` unasked, so the feature wins over it. A repository
        with neither is older than the choice.
        """
        if self.erofs_formats is not None and self.erofs_formats != ErofsFormats(2):
            return self.erofs_formats
        return ErofsFormats(1 if V1_EROFS in self.read_only_compatible else 2)

    def require_supported(self, where: str, *, writable: bool) -> None:
        """Refuse a repository that needs features this version does not know.

        Raises:
            UnsupportedRepository: it needs one even for reading, or for writing if ``writable``.
        """
        if self.incompatible:
            raise UnsupportedRepository(
                f"{where} needs unknown features: {_listed(self.incompatible)}",
                hint="use a newer version of this program",
            )
        unknown = [f for f in self.read_only_compatible if f not in _KNOWN_READ_ONLY_COMPATIBLE]
        if writable and unknown:
            raise UnsupportedRepository(
                f"{where} can only be read, it has unknown features: {_listed(unknown)}",
                hint="use a newer version of this program",
            )

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        document: dict[str, object] = {
            "version": VERSION,
            "algorithm": self.algorithm.label,
            "features": {
                "compatible": list(self.compatible),
                "read-only-compatible": list(self.read_only_compatible),
                "incompatible": list(self.incompatible),
            },
        }
        if self.erofs_formats is not None:
            formats: dict[str, object] = {"default": self.erofs_formats.default}
            if self.erofs_formats.extra:
                formats["extra"] = sorted(self.erofs_formats.extra)
            document["erofs_formats"] = formats
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes, where: str) -> Metadata:
        """Parse the file's content.

        Args:
            data: The content.
            where: Its path, for messages.

        Raises:
            MetadataError: it is not JSON, or a member has the wrong type or value.
            UnsupportedRepository: its version is newer than this code.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise MetadataError(f"{where} is not JSON: {exc}") from exc
        if not isinstance(document, dict):
            raise MetadataError(f"{where} is not a JSON object")
        version = document.get("version")
        if not _is_integer(version) or version < 1:
            raise MetadataError(f"{where}: version is {version!r:.40}, not a positive number")
        if version > VERSION:
            raise UnsupportedRepository(
                f"{where} has version {version}, this program knows {VERSION}",
                hint="use a newer version of this program",
            )
        features = document.get("features", {})
        if not isinstance(features, dict):
            raise MetadataError(f"{where}: features is not an object")
        return cls(
            algorithm=_algorithm(document.get("algorithm"), where),
            compatible=_strings(features, "compatible", where),
            read_only_compatible=_strings(features, "read-only-compatible", where),
            incompatible=_strings(features, "incompatible", where),
            erofs_formats=_erofs_formats(document.get("erofs_formats"), where),
        )


def _algorithm(value: Any, where: str) -> Algorithm:
    try:
        return Algorithm.from_label(value)
    except DigestError as exc:
        raise MetadataError(f"{where}: {exc}") from exc


def _strings(features: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = features.get(name, [])
    if not isinstance(value, list) or not all(
        isinstance(item, str) and not _HALF_CHARACTER.search(item) for item in value
    ):
        raise MetadataError(f"{where}: features.{name} is not a list of strings")
    return tuple(value)


def _erofs_formats(value: Any, where: str) -> ErofsFormats | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MetadataError(f"{where}: erofs_formats is not an object")
    extra = value.get("extra", [])
    if not isinstance(extra, list):
        raise MetadataError(f"{where}: erofs_formats.extra is not a list")
    for number in (value.get("default"), *extra):
        if not _is_integer(number) or number not in EROFS_FORMATS:
            raise MetadataError(f"{where}: unknown EROFS format {number!r:.40}")
    return ErofsFormats(value["default"], tuple(sorted(set(extra))))


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return f"{', '.join(repr(name) for name in names):.200}"
