"""The state directories of deployments, ``state/deploy/<image id>/`` in the physical root.

An image is read-only. Its deployment keeps here what a machine may change:

- ``<image id>.origin``: where the image came from, and how the deployment boots.
- ``<image id>.imginfo``: the documents of the image, if an old bootc installed it.
- ``etc``: a complete copy of the image's ``/etc``. ``bootc.deploy.etc`` reads and replaces it.
- ``var``: a link to the one ``/var`` that all deployments share.
- ``pinned``: an empty file; the user wants to keep the deployment.
- ``finalize-failure.json``: why a shutdown did not make the deployment the default.
- ``etc-decisions.json``: decisions about its ``/etc``; ``bootc.deploy.etc.decisions`` parses it.

``state/cleanup-failures.json``, above these directories, lists what the last clean-up could not
remove. :mod:`bootc.deploy.host.statedir_lifecycle` creates and removes the directories;
:mod:`bootc.deploy.host.notes` has the formats of the notes.

Promises: no file is read beyond a limit. A writer replaces a file in one step, so a reader finds
the old content or the new. A change survives a power cut once the call has returned. Writing
what is there already, or removing what is not there, succeeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from bootc.deploy.host import notes
from bootc.deploy.host.notes import CleanupFailure, FinalizeFailure, LegacyDocuments
from bootc.errors import doing
from bootc.formats.digest import Digest, DigestError
from bootc.formats.ocispec import MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES
from bootc.formats.origin import Origin, parse_origin, serialise_origin
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.repository import layout

PINNED = "pinned"
DECISIONS = "etc-decisions.json"

_MAX_ORIGIN_BYTES = 1 << 16
_MAX_DECISIONS_BYTES = 1 << 20
_MAX_IMGINFO_BYTES = MAX_MANIFEST_BYTES + MAX_CONFIG_BYTES

_T = TypeVar("_T")


class StateDir:
    """The state directory of one deployment, open. Close it, or use it as a context manager.

    Args:
        directory: The directory; it belongs to the StateDir from now on.
        image_id: Its deployment.

    Attributes:
        dir: The directory, for code that works on ``etc`` and the directories beside it.
    """

    __slots__ = ("_image_id", "dir")

    def __init__(self, directory: Dir, image_id: Digest) -> None:
        self.dir = directory
        self._image_id = image_id

    @classmethod
    def open(cls, physical: Dir, image_id: Digest) -> Self:
        """Open the state directory of a deployment.

        Raises:
            FileNotFoundError: the deployment has none.
            OSError: it is no directory, or cannot be opened.
        """
        return cls(physical.open_dir(layout.state_dir(image_id.hex)), image_id)

    @property
    def path(self) -> str:
        """How messages name the directory."""
        return self.dir.path

    @property
    def imginfo_name(self) -> str:
        """The name of the file that :meth:`read_imginfo` reads."""
        return f"{self._image_id.hex}.imginfo"

    def close(self) -> None:
        """Close the directory; closing twice is fine."""
        self.dir.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read_origin(self) -> Origin:
        """Return where the deployment came from and how it boots.

        Raises:
            FileNotFoundError: it has no origin file.
            OriginError: the file is malformed.
            OSError: the file cannot be read.
        """
        return parse_origin(self.dir.read_bytes(self._origin_name, _MAX_ORIGIN_BYTES))

    def write_origin(self, origin: Origin) -> None:
        """Write down where the deployment came from and how it boots."""
        self._write(self._origin_name, serialise_origin(origin))

    def read_imginfo(self) -> LegacyDocuments | None:
        """Return the documents that an old bootc put beside the origin, or None without them.

        Raises:
            MalformedNote: the file is malformed.
            OSError: the file cannot be read.
        """
        return _read(self.dir, self.imginfo_name, _MAX_IMGINFO_BYTES, notes.parse_imginfo)

    def is_pinned(self) -> bool:
        """Tell whether the user wants to keep the deployment. A file of any kind says so."""
        return self.dir.exists(PINNED)

    def set_pinned(self, pinned: bool) -> None:
        """Write down whether the user wants to keep the deployment."""
        if self.is_pinned() == pinned:
            return
        with doing(f"{'Pinning' if pinned else 'Unpinning'} {self.path}"):
            if pinned:
                self._write(PINNED, b"")
            else:
                _remove(self.dir, PINNED)

    def read_failure(self) -> FinalizeFailure | None:
        """Return why a shutdown did not make the deployment the default, or None.

        Raises:
            MalformedNote: the note is malformed.
            OSError: the note cannot be read.
        """
        name = notes.FINALIZE_FAILURE
        return _read(self.dir, name, notes.MAX_NOTE_BYTES, notes.parse_failure)

    def write_failure(self, failure: FinalizeFailure) -> None:
        """Write down why a shutdown does not make the deployment the default."""
        with doing(f"Recording the failure in {self.path}"):
            self._write(notes.FINALIZE_FAILURE, notes.serialise_failure(failure))

    def clear_failure(self) -> None:
        """Remove the note that :meth:`write_failure` wrote."""
        with doing(f"Clearing the failure in {self.path}"):
            _remove(self.dir, notes.FINALIZE_FAILURE)

    def read_decisions(self) -> bytes | None:
        """Return the file of decisions about ``/etc``, or None if nobody has decided anything."""
        with doing("Reading what was decided about /etc"):
            return _read(self.dir, DECISIONS, _MAX_DECISIONS_BYTES, bytes)

    def write_decisions(self, data: bytes) -> None:
        """Replace the file of decisions about ``/etc``."""
        with doing("Storing what was decided about /etc"):
            self._write(DECISIONS, data)

    @property
    def _origin_name(self) -> str:
        return layout.origin_name(self._image_id.hex)

    def _write(self, name: str, data: bytes) -> None:
        atomic.write_file(self.dir, name, data, durable=True)


@dataclass(frozen=True, slots=True)
class StateEntry:
    """A name in ``state/deploy``.

    Attributes:
        name: The name.
        deployment: The deployment that it names. Something other than a state directory may have
            the name.
        is_leftover: It is a state directory that bootc is removing. A name that is neither a
            deployment nor a leftover is foreign.
    """

    name: str
    deployment: Digest | None
    is_leftover: bool


def deployments_path(physical: Dir) -> str:
    """Return how messages name ``state/deploy``."""
    return f"{physical.path}/{layout.STATE_DEPLOY}"


def state_path(physical: Dir, image_id: Digest) -> str:
    """Return how messages name the state directory of a deployment, also of one without it."""
    return f"{physical.path}/{layout.state_dir(image_id.hex)}"


def has_state(sysroot: str, image_id: Digest) -> bool:
    """Tell whether a physical root has the state directory of a deployment, for any user."""
    return os.path.isdir(os.path.join(sysroot, layout.state_dir(image_id.hex)))


def has_origin(sysroot: str, image_id: Digest) -> bool:
    """Tell whether a physical root has a deployment, complete or damaged: its origin exists."""
    directory = os.path.join(sysroot, layout.state_dir(image_id.hex))
    return os.path.lexists(os.path.join(directory, layout.origin_name(image_id.hex)))


def list_states(physical: Dir) -> list[StateEntry]:
    """Return what is in ``state/deploy``, sorted by name.

    Raises:
        OSError: it cannot be read.
    """
    with physical.open_dir(layout.STATE_DEPLOY) as directory:
        return [_entry(name) for name in directory.names()]


def cleanup_failures_path(physical: Dir) -> str:
    """Return how messages name the note of the last clean-up."""
    return f"{physical.path}/{layout.STATE}/{notes.CLEANUP_FAILURES}"


def read_cleanup_failures(physical: Dir) -> tuple[CleanupFailure, ...]:
    """Return what the last clean-up could not remove.

    Raises:
        MalformedNote: the note is malformed.
        OSError: the note cannot be read.
    """
    try:
        directory = physical.open_dir(layout.STATE)
    except FileNotFoundError:
        return ()
    with directory:
        name, parse = notes.CLEANUP_FAILURES, notes.parse_cleanup_failures
        return _read(directory, name, notes.MAX_NOTE_BYTES, parse) or ()


def write_cleanup_failures(physical: Dir, failures: Sequence[CleanupFailure]) -> None:
    """Write down what a clean-up could not remove. Without failures, remove the note."""
    with (
        physical.open_dir(layout.STATE) as directory,
        doing(f"Recording what could not be removed in {directory.path}"),
    ):
        if failures:
            data = notes.serialise_cleanup_failures(failures)
            atomic.write_file(directory, notes.CLEANUP_FAILURES, data, durable=True)
        else:
            _remove(directory, notes.CLEANUP_FAILURES)


def _entry(name: str) -> StateEntry:
    try:
        return StateEntry(name, Digest.from_hex(name), is_leftover=False)
    except DigestError:
        return StateEntry(name, None, is_leftover=name.startswith(layout.REMOVED_PREFIX))


def _read(directory: Dir, name: str, limit: int, parse: Callable[[bytes], _T]) -> _T | None:
    try:
        data = directory.read_bytes(name, limit)
    except FileNotFoundError:
        return None
    return parse(data)


def _remove(directory: Dir, name: str) -> None:
    # Something other than a file may have the name.
    directory.remove_tree(name)
    os.fsync(directory.fileno())
