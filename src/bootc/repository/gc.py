"""Garbage collection: removes what no reference leads to (composefs, "Garbage collection").

Owns: the sweep of a repository. :mod:`bootc.repository.reachable` finds what is needed.

Promises:

- The collection removes nothing before it knows everything that is needed. A root that
  cannot be read stops it. A reference to a missing object does not stop it and is reported.
  If an intact image cannot be understood, everything that it may need is kept.
- An object or link that cannot be removed only keeps what it leads to.
- Foreign files stay: a file whose name or type the repository would not use is reported.
- Links are removed first, then comes a sync, then objects. A pull trusts a stream or an image
  that has a link to be complete, so no link may outlive an object that it leads to, even if
  the power fails in between. (composefs-rs removes objects first: after a crash, a layer may
  be registered there whose files are gone.) A crash leaves objects without a link, which the
  next collection removes. ``docs/explanation/durability.md`` has the whole order.
- A dry run does the same in the same order, without removing and without the lock. Beside a
  running pull it also counts objects that the pull has stored and not yet referred to.

Memory grows with the number of needed objects, by about 150 bytes each, and with the size of
the largest stream or image.
"""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.events import Done, Progress, Sink, Start, null_sink, stage
from bootc.formats.digest import Algorithm, Digest, DigestError
from bootc.formats.erofs.image import InvalidImage
from bootc.formats.splitstream import SplitstreamError
from bootc.fs.atomic import OBJECT_PREFIX, SYMLINK_PREFIX
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.content import read_referring
from bootc.repository.links import (
    MAX_ENTRIES,
    BrokenReference,
    parse_object_link,
    parse_ref_target,
)
from bootc.repository.reachable import Needs, needs_of, possible_objects, reachable
from bootc.repository.refs import walk_links
from bootc.repository.repository import Repository
from bootc.repository.sealing import DAMAGE

_TASK = "gc"
_MARK_TASK = "gc-mark"
#: The first byte of each object's name.
_BUCKETS = frozenset(f"{byte:02x}" for byte in range(256))
_KINDS = (layout.STREAMS, layout.IMAGES)
#: The way out where nothing is damaged that could be repaired.
_REPLACE = "pull it again, or remove what refers to it"


class UnreadableRoot(Error):
    """The collection cannot know what is needed: a needed stream or image cannot be read."""

    def __init__(self, what: str, why: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"{what} is needed and {why}; nothing was removed from the repository",
            hint=hint or "check and repair the repository first: bootc internals cfs fsck --repair",
        )


class NotCollected(Error):
    """Some garbage could not be removed."""

    def __init__(self, failures: Collection[str]) -> None:
        first, *more = failures
        count = f"; so could {len(more)} more" if more else ""
        super().__init__(f"what nothing needs could not be removed: {first}{count}")


@dataclass(frozen=True, slots=True)
class GcReport:
    """What was removed, or would be."""

    objects_removed: int
    objects_bytes: int
    #: Links in ``images/``, references included.
    images_pruned: int
    #: Links in ``streams/``, references included.
    streams_pruned: int
    #: Temporary files of interrupted runs.
    leftovers_removed: int
    #: Foreign or malformed things that were left alone, and links that lead nowhere.
    warnings: tuple[str, ...]
    #: Garbage that could not be removed, each with the reason.
    failures: tuple[str, ...] = ()


def collect(
    repository: Repository,
    *,
    roots: Iterable[str] = (),
    keep: Iterable[str] = (),
    without: Collection[str] = (),
    dry_run: bool = False,
    wait: bool = True,
    sink: Sink = null_sink,
) -> GcReport:
    """Remove what neither a reference nor one of ``roots`` leads to.

    Args:
        repository: The repository; writable unless ``dry_run``.
        roots: Images (hex) and streams (content ids) to keep in addition to those that
            references keep. Each must exist.
        keep: The same, for images and streams that may be missing.
        without: For a dry run: references to streams, below ``refs/``, to treat as removed.
        dry_run: Remove nothing, and take no lock beyond the one held.
        wait: Wait until all other processes have closed the repository.
        sink: Told of waiting and of progress.

    Returns:
        The report. Garbage that could not be removed is no error here: see ``failures``.

    Raises:
        UnreadableRoot: something needed is damaged, or one of ``roots`` is not there.
        LockedByOther: another process has the repository open, and ``wait`` is false.
        LockedHere: this process has the repository open twice.
        OSError: reading failed; also EROFS, when it is open for reading only.
    """
    if dry_run:
        return _Collection(repository, dry_run=True, without=without).run(roots, keep, sink)
    assert not without, "without is for dry runs: a real run has removed these references already"
    repository.objects.require_writable()
    with repository.alone(wait=wait, sink=sink):
        return _Collection(repository, dry_run=False).run(roots, keep, sink)


def dangling_links(repository: Repository) -> tuple[int, int]:
    """Return how many links of images, and of streams, lead to nothing; references count."""
    algorithm, objects = repository.algorithm, repository.objects
    counts = []
    for kind in (layout.IMAGES, layout.STREAMS):
        links = _Collection(repository, dry_run=True)._read_links(kind)
        there = {
            name
            for name, raw in links.entries.items()
            if raw is not None
            and len(raw) == algorithm.digest_size
            and objects.exists(Digest(algorithm, raw))
        }
        gone = [name for name, raw in links.entries.items() if raw is not None]
        gone += links.refs.values()
        counts.append(sum(name not in there for name in gone))
    return counts[0], counts[1]


@dataclass(frozen=True, slots=True)
class _Links:
    """The links in ``streams/`` or ``images/``."""

    #: The object each leads to; None for a link that does not say what ours say.
    entries: dict[str, bytes | None]
    #: The entries that references keep, by the path of the reference below ``refs/``.
    refs: dict[str, str]
    #: Entries kept by references of a form we do not write and will not remove.
    foreign_refs: dict[str, str]


class _Collection:
    """One run of :func:`collect`."""

    def __init__(
        self, repository: Repository, *, dry_run: bool, without: Collection[str] = ()
    ) -> None:
        self._repository = repository
        self._without = without
        self._dir = repository.dir
        self._algorithm = repository.algorithm
        self._dry_run = dry_run
        self._warnings: list[str] = []
        self._failures: list[str] = []
        self._links: dict[str, _Links] = {}
        #: The name of a stream or image in messages.
        self._titles: dict[bytes, str] = {}
        #: The objects that streams and images consist of.
        self._registered: frozenset[bytes] = frozenset()
        #: The objects that ``roots`` ask for.
        self._demanded: set[bytes] = set()
        self._pruned = dict.fromkeys(_KINDS, 0)
        self._objects = self._bytes = self._leftovers = 0

    def run(self, roots: Iterable[str], keep: Iterable[str], sink: Sink) -> GcReport:
        with doing(f"Collecting garbage in {self._dir.path}"):
            # Objects that this handle has stored and not named yet count like any other.
            self._repository.objects.flush()
            with stage(sink, _MARK_TASK, "Finding what is needed"):
                live = self._mark(roots, keep)
            for kind in _KINDS:
                stuck = self._prune(kind, live)
                if stuck:
                    # No link may outlive an object it leads to.
                    live |= self._reached(stuck)
            self._forget_marks(live)
            if not self._dry_run:
                self._repository.sync()
            self._sweep_leftovers()
            self._sweep(live, sink)
        return GcReport(
            self._objects,
            self._bytes,
            images_pruned=self._pruned[layout.IMAGES],
            streams_pruned=self._pruned[layout.STREAMS],
            leftovers_removed=self._leftovers,
            warnings=tuple(self._warnings),
            failures=tuple(self._failures),
        )

    # -- what is needed

    def _mark(self, roots: Iterable[str], keep: Iterable[str]) -> set[bytes]:
        for kind in _KINDS:
            links = self._links[kind] = self._read_links(kind)
            if kind == layout.STREAMS:
                for path in self._without:
                    links.refs.pop(path, None)
            for name, raw in links.entries.items():
                if raw is not None:
                    self._titles.setdefault(raw, f"{kind}/{name}")
        self._registered = frozenset(self._titles)
        wanted = (raw for name in keep for raw in self._entries(name))
        return self._reached({*self._referred(), *self._asked_for(roots), *wanted})

    def _reached(self, needed: Iterable[bytes]) -> set[bytes]:
        registered = self._registered
        return reachable(needed, registered, lambda raw: self._examine(raw, raw in registered))

    def _read_links(self, kind: str) -> _Links:
        links = _Links({}, {}, {})
        if self._dir.exists(kind):
            with self._dir.open_dir(kind) as directory:
                for name in directory.names(MAX_ENTRIES):
                    if name != layout.REFS:
                        self._read_entry(directory, name, links)
                if directory.exists(layout.REFS):
                    with directory.open_dir(layout.REFS) as refs:
                        self._read_refs(refs, links)
        return links

    def _read_entry(self, directory: Dir, name: str, links: _Links) -> None:
        if not stat.S_ISLNK(directory.stat(name).st_mode):
            self._leave(directory, name, "is not a link")
            return
        try:
            links.entries[name] = parse_object_link(
                directory.readlink(name), f"{directory.path}/{name}"
            ).raw
        except BrokenReference as exc:
            links.entries[name] = None
            self._warnings.append(f"{one_line(exc)}: left alone")

    def _read_refs(self, refs: Dir, links: _Links) -> None:
        for path, target in walk_links(refs):
            if target is None:
                self._leave(refs, path, "is not a link")
                continue
            try:
                links.refs[path] = parse_ref_target(path, target, f"{refs.path}/{path}")
            except BrokenReference as exc:
                # composefs-rs looks at the last component only.
                links.foreign_refs[path] = target.rpartition("/")[2]
                self._warnings.append(f"{one_line(exc)}: left alone")

    def _referred(self) -> Iterator[bytes]:
        """Yield the objects of entries that references keep."""
        for kind, links in self._links.items():
            for path, name in (*links.refs.items(), *links.foreign_refs.items()):
                if name in links.entries:
                    yield self._entry(kind, name)
                elif path in links.refs:
                    self._warnings.append(
                        f"{kind}/{layout.REFS}/{path} refers to {name!r}, which does not exist"
                    )

    def _asked_for(self, roots: Iterable[str]) -> Iterator[bytes]:
        for name in roots:
            found = self._entries(name)
            if not found:
                raise UnreadableRoot(f"{name!r}", "is no image or stream here")
            self._demanded.update(found)
            yield from found

    def _entries(self, name: str) -> list[bytes]:
        """Return the objects of the image and the stream of this name, as far as they are there."""
        return [
            self._entry(kind, name) for kind, links in self._links.items() if name in links.entries
        ]

    def _entry(self, kind: str, name: str) -> bytes:
        raw = self._links[kind].entries[name]
        if raw is None:
            raise UnreadableRoot(f"{kind}/{name}", "links to no object", hint=_REPLACE)
        if kind == layout.IMAGES and raw.hex() != name:
            why = f"links to another object, {raw.hex()}"
            raise UnreadableRoot(f"{kind}/{name}", why, hint=_REPLACE)
        return raw

    def _examine(self, raw: bytes, registered: bool) -> Needs | None:
        algorithm = self._repository.algorithm
        title = self._titles.get(raw) or f"object {raw.hex()}"
        if len(raw) != algorithm.digest_size:
            why = f"is not named by {algorithm.hash_name}"
            raise UnreadableRoot(title, why, hint=_REPLACE)
        try:
            data = read_referring(self._repository.objects, Digest(algorithm, raw))
            needs = None if data is None else self._needs_of(data, title)
        except FileNotFoundError:
            if raw in self._demanded:
                raise UnreadableRoot(title, "its object is missing") from None
            self._warnings.append(f"{title} is referred to, and its object is missing")
            return None
        except (SplitstreamError, InvalidImage) as exc:
            why = f"cannot be read: {one_line(exc)}"
            raise UnreadableRoot(title, why, hint=_REPLACE) from exc
        except Error as exc:
            raise UnreadableRoot(title, f"cannot be read: {one_line(exc)}") from exc
        except OSError as exc:
            if exc.errno not in (*DAMAGE, errno.EFBIG):
                exc.add_note(f"Reading {title}")
                raise
            # EIO is also what fs-verity answers for damaged content.
            raise UnreadableRoot(title, f"cannot be read: {one_line(exc)}") from exc
        if needs is None:
            if registered:
                raise UnreadableRoot(title, "is neither a stream nor an image", hint=_REPLACE)
            return Needs()
        for named, name in needs.named.items():
            self._titles.setdefault(named, f"{name!r} of {title}" if name else f"part of {title}")
        return needs

    def _needs_of(self, data: bytes, title: str) -> Needs | None:
        algorithm = self._repository.algorithm
        try:
            return needs_of(data, algorithm)
        except InvalidImage as exc:
            # The digest is right: a newer program may have written a format we do not know.
            needs = Needs(possible_objects(data, algorithm))
            self._warnings.append(f"{title}: {exc.message}; all that it may need is kept")
            return needs

    # -- what is not

    def _prune(self, kind: str, live: set[bytes]) -> set[bytes]:
        """Remove links to what is not needed; return the objects of those that stay."""
        links = self._links[kind]
        for path, name in links.refs.items():
            if links.entries.get(name) not in live:
                self._unlink_link(kind, f"{layout.REFS}/{path}")
        return {
            raw
            for name, raw in links.entries.items()
            if raw is not None and raw not in live and not self._unlink_link(kind, name)
        }

    def _unlink_link(self, kind: str, path: str) -> bool:
        removed = self._unlink(self._dir, f"{kind}/{path}")
        self._pruned[kind] += removed
        return removed

    def _unlink(self, directory: Dir, path: str) -> bool:
        """Remove a file or link unless this is a dry run; tell whether it is gone, or would be."""
        if not self._dry_run:
            try:
                directory.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as exc:
                self._failed(exc)
                return False
        return True

    def _failed(self, exc: OSError) -> None:
        self._failures.append(one_line(exc))

    def _forget_marks(self, live: set[bytes]) -> None:
        """Remove the marks of streams that were removed or replaced."""
        if self._dry_run or not self._dir.exists(layout.VERIFIED):
            return
        streams = self._links[layout.STREAMS].entries
        with self._dir.open_dir(layout.VERIFIED) as marks:
            for name in marks.names(MAX_ENTRIES):
                if not stat.S_ISLNK(marks.stat(name).st_mode):
                    self._leave(marks, name, "is not a link")
                    continue
                raw = streams.get(name)
                if raw not in live or marks.readlink(name) != layout.link_to_object(raw.hex()):
                    marks.unlink(name)

    def _sweep_leftovers(self) -> None:
        """Remove temporary files of interrupted writers from the repository's own directory."""
        for name in self._dir.names():
            if name.startswith(SYMLINK_PREFIX):
                self._remove_leftover(self._dir, name, stat.S_IFLNK)
            elif name.startswith(OBJECT_PREFIX):
                self._remove_leftover(self._dir, name, stat.S_IFREG)

    def _sweep(self, live: set[bytes], sink: Sink) -> None:
        sink(Start(_TASK, "Removing what is not needed", len(_BUCKETS), "steps"))
        with self._dir.open_dir(layout.OBJECTS) as objects:
            done = 0
            for name in objects.names():
                if name in _BUCKETS and stat.S_ISDIR(objects.stat(name).st_mode):
                    self._sweep_bucket(objects, name, live)
                    done += 1
                    sink(Progress(_TASK, done))
                elif name.startswith(OBJECT_PREFIX):
                    self._remove_leftover(objects, name, stat.S_IFREG)
                else:
                    self._leave(objects, name, "is no directory of objects")
        sink(Done(_TASK))

    def _sweep_bucket(self, objects: Dir, first: str, live: set[bytes]) -> None:
        try:
            # A file system that somebody mounted there holds no objects of ours.
            with objects.open_same_mount(first) as bucket:
                for name in bucket.names():
                    self._sweep_object(bucket, name, _digest(first + name, self._algorithm), live)
        except OSError as exc:
            self._failed(exc)

    def _sweep_object(self, bucket: Dir, name: str, raw: bytes | None, live: set[bytes]) -> None:
        if raw is None:
            self._leave(bucket, name, "is no name of an object")
        elif raw not in live:
            info = bucket.stat(name)
            if not stat.S_ISREG(info.st_mode):
                self._leave(bucket, name, "is not a regular file")
            elif self._unlink(bucket, name):
                self._objects += 1
                self._bytes += info.st_size

    def _remove_leftover(self, directory: Dir, name: str, kind: int) -> None:
        # Beside a dry run others write, and one of them may have finished.
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IFMT(directory.stat(name).st_mode) != kind:
                self._leave(directory, name, "is not what its name says")
            elif self._unlink(directory, name):
                self._leftovers += 1

    def _leave(self, directory: Dir, name: str, why: str) -> None:
        self._warnings.append(f"{directory.path}/{name} {why}: left alone")


def _digest(name: str, algorithm: Algorithm) -> bytes | None:
    """Return the digest an object's name stands for."""
    with contextlib.suppress(DigestError):
        digest = Digest.from_hex(name)
        if digest.algorithm is algorithm:
            return digest.raw
    return None
