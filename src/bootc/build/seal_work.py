"""The directory in which an image is sealed: files to sign, signed files, and a manifest of both.

- ``unsigned/NAME`` is a file to sign, ``signed/NAME`` the same file with a signature. The signer
  writes only there.
- ``seal.json`` says what the files are. Its keys: ``version``, now 1; ``image``, the digest of the
  manifest of the image; ``files``, a list of ``name``, ``path`` in the sealed image, ``size`` and
  ``sha256`` of the unsigned file; ``cmdline``, the kernel command line of the unified kernel image,
  or null if that waits for the signature of another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.formats.shellquote import shell_quoted
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.printable import printable

_MANIFEST = "seal.json"
_UNSIGNED, _SIGNED = "unsigned", "signed"
_VERSION = 1
_MAX_BYTES = 1 << 20
_MAX_FILES = 16
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class WrongWork(Error):
    """A directory for sealing does not hold what its manifest says."""


@dataclass(frozen=True, slots=True)
class WorkFile:
    """A file to sign.

    Attributes:
        name: Its name in the directory.
        path: Its path in the sealed image.
        size_bytes: The size of the unsigned file.
        sha256: The digest of the unsigned file, in hex.
    """

    name: str
    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WorkManifest:
    """The state of a directory: the digest of the image, the files, and the UKI's command line.

    Without a unified kernel image (UKI) there is no command line.
    """

    image: str
    files: tuple[WorkFile, ...]
    cmdline: str | None


class Work:
    """A directory for sealing."""

    def __init__(self, directory: Dir) -> None:
        self._dir = directory

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str) -> Iterator[Work]:
        """Open a directory for sealing: an empty one, or one of an earlier run.

        Raises:
            WrongWork: the directory has other files.
            OSError: it cannot be opened.
        """
        with doing(f"Opening {shell_quoted(path)}"):
            opened = Dir.open(os.path.abspath(path))
        with opened as directory:
            other = {name for name in directory.names() if not name.startswith(atomic.FILE_PREFIX)}
            if _MANIFEST not in other and other - {_UNSIGNED, _SIGNED}:
                raise WrongWork(
                    f"{shell_quoted(path)} has other files", hint="name a new or an empty directory"
                )
            yield cls(directory)

    def read(self) -> WorkManifest | None:
        """Return the manifest; None if there is none.

        Raises:
            WrongWork: it is malformed, or of a newer version.
        """
        if not self._dir.exists(_MANIFEST):
            return None
        where = f"{self._dir.path}/{_MANIFEST}"
        try:
            return _parse(self._dir.read_bytes(_MANIFEST, _MAX_BYTES))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise WrongWork(
                f"{shell_quoted(where)} is not a manifest of this version of bootc",
                hint="remove the directory and run: bootc container seal prepare",
            ) from None

    def write(self, manifest: WorkManifest) -> None:
        """Write the manifest. The files of it are there already."""
        value = {
            "version": _VERSION,
            "image": manifest.image,
            "files": [
                {"name": f.name, "path": f.path, "size": f.size_bytes, "sha256": f.sha256}
                for f in manifest.files
            ],
            "cmdline": manifest.cmdline,
        }
        data = json.dumps(value, indent=2).encode() + b"\n"
        atomic.write_file(self._dir, _MANIFEST, data, durable=True)

    def add(self, name: str, path: str, chunks: Iterable[bytes]) -> WorkFile:
        """Write a file to sign.

        Args:
            name: Its name.
            path: Its path in the sealed image.
            chunks: Its content.
        """
        self._dir.ensure_dir(_SIGNED).close()
        found = hashlib.sha256()
        size = 0

        def hashed() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                found.update(chunk)
                size += len(chunk)
                yield chunk

        with self._dir.ensure_dir(_UNSIGNED) as home:
            atomic.write_stream(home, name, hashed())
        return WorkFile(name, path, size, found.hexdigest())

    def unsigned(self, name: str) -> str:
        """Return the path of a file to sign."""
        return f"{self._dir.path}/{_UNSIGNED}/{name}"

    def signed(self, name: str) -> str:
        """Return the path of a signed file."""
        return f"{self._dir.path}/{_SIGNED}/{name}"

    def waiting(self, files: Iterable[WorkFile]) -> tuple[WorkFile, ...]:
        """Return the files that nothing has signed yet."""
        return tuple(f for f in files if not os.path.lexists(self.signed(f.name)))

    def check(self, file: WorkFile) -> None:
        """Ensure that an unsigned file is the one of the manifest.

        Raises:
            WrongWork: it is another one.
            OSError: it cannot be read.
        """
        found = hashlib.sha256()
        for chunk in self._dir.read_chunks(f"{_UNSIGNED}/{file.name}"):
            found.update(chunk)
        if found.hexdigest() != file.sha256:
            raise WrongWork(
                f"{shell_quoted(self.unsigned(file.name))} was changed",
                hint="run again: bootc container seal prepare",
            )


def _parse(data: bytes) -> WorkManifest:
    value = json.loads(data)
    if value["version"] != _VERSION or len(value["files"]) > _MAX_FILES:
        raise ValueError
    files = tuple(_file(entry) for entry in value["files"])
    cmdline = value["cmdline"]
    return WorkManifest(_text(value["image"]), files, None if cmdline is None else _text(cmdline))


def _file(entry: dict[str, object]) -> WorkFile:
    name, path, sha256, size = (entry[key] for key in ("name", "path", "sha256", "size"))
    file = WorkFile(_text(name), _text(path), size, _text(sha256))  # type: ignore[arg-type]
    plain = file.name not in ("", ".", "..") and "/" not in file.name
    if not plain or type(size) is not int or not _SHA256.match(file.sha256):
        raise ValueError
    return file


def _text(value: object) -> str:
    if not isinstance(value, str) or value != printable(value):
        raise ValueError
    return value
