"""Canonicalisations: known changes that make two trees equal that should be equal.

The module knows the reasons why a builder and a machine see one image as two trees. Each reason
comes with a change that removes the difference. :func:`explain_by` searches for the smallest set
of changes that explains two given trees. It has tried out the set that it returns: after these
changes to both trees, no difference is left. It does not change the given trees. It copies only
the entries that differ, therefore its time grows with the number of differences.

Sources: composefs-rs 0.9, ``transform_for_oci`` and ``transform_for_boot``; reports of
digests that differ: bootc issues 2194, 2334, 2353, composefs-rs issues 34, 107, 132,
212, 337, 396, composefs issue 444.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import Algorithm, Digest, DigestError
from bootc.formats.tree import Content, Directory, External, Inline, Leaf, Node, Stat, Unverified
from bootc.formats.treediff import Aspect, Difference, compare, summarise
from bootc.formats.verity import verity_digest
from bootc.oci.seal import transform_for_boot, transform_for_oci
from bootc.oci.selabel import ReadContent

_SELINUX = b"security.selinux"
_CAPABILITY = b"security.capability"
#: Entries that the transforms read even if they do not differ.
_CONTEXT = (b"/usr", b"/run", b"/boot", b"/sysroot")
_POLICY = b"/etc/selinux"
#: Trees that need more changes at once are simply different trees.
_MAX_COMBINED = 3
#: Bounds of a search without success: sets tried on a sample, and samples.
_MAX_TRIALS = 30
_MAX_ROUNDS = 8
#: Differences of each class in the first sample, and differences added in each round.
_SAMPLE = 50


@dataclass(frozen=True, slots=True)
class Canonicalisation:
    """One known change. ``apply`` may change its argument, and returns the changed tree."""

    name: str
    #: Completes "equal when …".
    condition: str
    #: The cause and the remedy, for the user.
    advice: str
    #: The differences that the change can remove.
    removes: frozenset[Aspect]
    apply: Callable[[Directory], Directory]


@dataclass(frozen=True, slots=True)
class Applied:
    """A canonicalisation that is part of an explanation, and the sides it changes."""

    canonicalisation: Canonicalisation
    changes_a: bool
    changes_b: bool


def explain_by(
    pair: tuple[Directory, Directory],
    differences: Sequence[Difference],
    candidates: Sequence[Canonicalisation],
    always: Sequence[Canonicalisation] = (),
) -> tuple[Applied, ...] | None:
    """Return the smallest set of canonicalisations that makes two trees equal.

    The function finds a set with a sample of each class of differences, and then tries it with
    all differences. Differences that are left join the sample.

    Args:
        pair: The trees.
        differences: The result of :func:`bootc.formats.treediff.compare`.
        candidates: The changes to try, narrow ones before those that remove more. Of several
            equally small sets the first is taken.
        always: Changes that are part of every set, and are applied last.

    Returns:
        The set in the order of use; None if no set of at most three candidates is enough.
    """
    aspects = {difference.aspect for difference in differences}
    relevant = [candidate for candidate in candidates if candidate.removes & aspects]
    whole = None
    sample = [d for finding in summarise(differences, _SAMPLE) for d in finding.examples]
    for _ in range(_MAX_ROUNDS):
        chosen = _search(_Trial(pair, sample), relevant, always)
        if chosen is None:
            return None
        whole = whole or _Trial(pair, differences)
        applied, left = whole.apply(chosen)
        if not left:
            return applied
        sample += left
    return None


def _search(
    trial: _Trial, candidates: Iterable[Canonicalisation], always: Sequence[Canonicalisation]
) -> tuple[Canonicalisation, ...] | None:
    """Return the smallest set that leaves no difference in a trial, in the order of use."""
    base = trial.removed_by(always)
    useful = [
        (candidate, removed)
        for candidate in candidates
        if (removed := trial.removed_by((candidate, *always))) - base
    ]
    trials = 0
    for size in range(_MAX_COMBINED + 1):
        for combination in itertools.combinations(useful, size):
            if base.union(*(removed for _, removed in combination)) != trial.differences:
                continue
            # Wide changes first: for example, a transform makes labels, then they are compared.
            chosen = (*(candidate for candidate, _ in reversed(combination)), *always)
            if not trial.apply(chosen)[1]:
                return chosen
            trials += 1
            if trials == _MAX_TRIALS:
                return None
    return None


_Key = tuple[bytes, Aspect, bytes]


class _Trial:
    """Canonicalises copies of the entries that some differences concern."""

    def __init__(self, pair: tuple[Directory, Directory], about: Iterable[Difference]) -> None:
        self._paths = {path for d in about for path in (d.path, *d.first_names)}
        self._a, self._b = (_excerpt(tree, self._paths) for tree in pair)

    @functools.cached_property
    def differences(self) -> frozenset[_Key]:
        """All differences between the copies."""
        return _keys(compare(self._a, self._b))

    def removed_by(self, changes: Sequence[Canonicalisation]) -> frozenset[_Key]:
        """Return the differences that changes remove; none if a change cannot be made."""
        a, b = self._a, self._b
        try:
            for change in changes:
                a, b = change.apply(a.copy()), change.apply(b.copy())
        except Error:
            return frozenset()
        return self.differences - _keys(compare(a, b))

    def apply(
        self, changes: Sequence[Canonicalisation]
    ) -> tuple[tuple[Applied, ...], list[Difference]]:
        """Return the effect of each change, and some of the differences that are left after all.

        Raises:
            Error: a change cannot be made.
        """
        a, b = self._a, self._b
        applied = []
        for change in changes:
            new_a, new_b = change.apply(a.copy()), change.apply(b.copy())
            applied.append(Applied(change, self._touched(a, new_a), self._touched(b, new_b)))
            a, b = new_a, new_b
        return tuple(applied), list(itertools.islice(compare(a, b), _SAMPLE))

    def _touched(self, before: Directory, after: Directory) -> bool:
        """Tell whether a change concerns an entry that differs, not only other copied entries."""
        return any(
            d.path in (self._above if d.aspect is Aspect.ENTRY else self._paths)
            for d in compare(before, after)
        )

    @functools.cached_property
    def _above(self) -> frozenset[bytes]:
        """Paths whose removal would remove an entry that differs."""
        return frozenset(
            path[: slash.start()]
            for path in self._paths
            for slash in re.finditer(rb"(?<=.)/|\Z", path, re.DOTALL)
        )


def _keys(differences: Iterable[Difference]) -> frozenset[_Key]:
    return frozenset((d.path, d.aspect, d.name) for d in differences)


def _excerpt(root: Directory, paths: Iterable[bytes]) -> Directory:
    """Copy some entries, their parent directories, and the entries that the transforms read."""
    copy = Directory(root.stat.copy())
    leaves: dict[int, Leaf] = {}
    policy = root.lookup(_POLICY)
    policy_paths = () if policy is None else _paths_below(policy)
    for path in itertools.chain(paths, _CONTEXT, policy_paths):
        source, target = root, copy
        for name in path.split(b"/"):
            if not name:
                continue
            node = source.entries.get(name)
            if node is None:
                break
            twin = target.entries.get(name) or leaves.get(id(node))
            if twin is None:
                twin = _twin(node)
                if isinstance(twin, Leaf):
                    leaves[id(node)] = twin
            target.entries[name] = twin
            if isinstance(node, Leaf) or isinstance(twin, Leaf):
                break
            source, target = node, twin
    return copy


def _twin(node: Node) -> Node:
    """Copy an entry without the entries below it."""
    stat = node.stat.copy()
    return Directory(stat) if isinstance(node, Directory) else Leaf(stat, node.content)


def _paths_below(policy: Directory | Leaf) -> Iterator[bytes]:
    if isinstance(policy, Directory):
        for path, _ in policy.walk():
            yield _POLICY + path


def _on_each(change: Callable[[Stat], None]) -> Callable[[Directory], Directory]:
    def apply(root: Directory) -> Directory:
        for _, node in root.walk():
            change(node.stat)
        return root

    return apply


def _drop_nanoseconds(meta: Stat) -> None:
    meta.mtime_ns = 0


def _drop_mtime(meta: Stat) -> None:
    meta.mtime_s = meta.mtime_ns = 0


def _drop_label(meta: Stat) -> None:
    meta.xattrs.pop(_SELINUX, None)


def _keep_capability(meta: Stat) -> None:
    meta.xattrs = {k: v for k, v in meta.xattrs.items() if k == _CAPABILITY}


def _drop_directory_mtimes(root: Directory) -> Directory:
    for _, node in root.walk():
        if isinstance(node, Directory):
            _drop_mtime(node.stat)
    return root


def _time_mount_points(root: Directory) -> Directory:
    usr = root.lookup("usr")
    for name in ("boot", "sysroot"):
        node = root.lookup(name)
        if usr is not None and node is not None:
            node.stat.mtime_s, node.stat.mtime_ns = usr.stat.mtime_s, usr.stat.mtime_ns
    return root


def _empty_mount_points(root: Directory) -> Directory:
    usr = root.lookup("usr")
    for name in ("boot", "sysroot"):
        node = root.lookup(name)
        if usr is not None and isinstance(node, Directory):
            node.entries.clear()
            node.stat.mtime_s = usr.stat.mtime_s
    return root


def _root_from_usr(root: Directory) -> Directory:
    usr = root.lookup("usr")
    if usr is not None:
        root.stat = usr.stat.copy()
    return root


def _break_links(root: Directory) -> Directory:
    for _, node in root.walk():
        if isinstance(node, Directory):
            for name, below in node.entries.items():
                if isinstance(below, Leaf):
                    node.entries[name] = Leaf(below.stat.copy(), below.content)
    return root


def _name_objects(algorithm: Algorithm) -> Callable[[Directory], Directory]:
    def as_object(content: Content) -> Content:
        if isinstance(content, Inline) and content.data:
            return External(verity_digest(content.data, algorithm), content.size_bytes)
        if isinstance(content, External):
            return External(content.digest, content.size_bytes)
        if isinstance(content, Unverified):
            try:
                digest = Digest.from_hex(content.path.replace(b"/", b"").decode("ascii", "replace"))
            except DigestError:
                return content
            return External(digest, content.size_bytes)
        return content

    def apply(root: Directory) -> Directory:
        for _, node in root.walk():
            if isinstance(node, Leaf):
                node.content = as_object(node.content)
        return root

    return apply


def _for_oci(root: Directory) -> Directory:
    transform_for_oci(root)
    return root


_BOTH_BOOTABLE = (
    "one side is the plain container tree, the other the bootable one: compute both with or both "
    "without --plain"
)
_TIMES = frozenset({Aspect.MTIME, Aspect.MTIME_NS})
_METADATA = _TIMES | {Aspect.MODE, Aspect.OWNER, Aspect.XATTR}


def format_version(versions: tuple[int | None, int | None]) -> Canonicalisation:
    """Return the canonicalisation of trees whose images have different format versions.

    Args:
        versions: The versions; None means an EROFS image that is not a composefs image.
    """
    whole_seconds = 2 in versions
    return Canonicalisation(
        "format-version",
        "both are written in the same format version"
        + (" (version 2 keeps whole seconds only)" if whole_seconds else ""),
        "make one image again in the version of the other"
        if None in versions
        else "composefs's default went from version 2 to 1 in 2026: accept both digests, or make "
        "one image again in the version of the other",
        frozenset({Aspect.MTIME_NS}) if whole_seconds else frozenset(),
        _on_each(_drop_nanoseconds) if whole_seconds else lambda root: root,
    )


def known_canonicalisations(
    algorithm: Algorithm, read_content: ReadContent
) -> tuple[Canonicalisation, ...]:
    """Return all known canonicalisations, narrow ones first.

    Args:
        algorithm: The algorithm of the object names.
        read_content: Reads the SELinux policy of either tree; may raise an ``Error``.
    """

    def for_boot(root: Directory) -> Directory:
        return transform_for_boot(root, read_content)

    return (
        *_METADATA_CANONICALISATIONS,
        Canonicalisation(
            "storage",
            "it does not matter which contents are in the image and which are objects",
            "the tools disagree on how small a file in the image must be (here 64 bytes), or on "
            "noting the digests of objects: use the same version of one tool",
            frozenset({Aspect.STORAGE}),
            _name_objects(algorithm),
        ),
        Canonicalisation(
            "boot-transform",
            "/boot and /sysroot are emptied and labels made by the image's SELinux policy, if any",
            _BOTH_BOOTABLE,
            _METADATA | {Aspect.ENTRY, Aspect.LINKS},
            for_boot,
        ),
        # If the policy cannot be read, boot-transform fails.
        Canonicalisation(
            "boot-emptied",
            "/boot and /sysroot are emptied",
            _BOTH_BOOTABLE,
            _METADATA | {Aspect.ENTRY},
            _empty_mount_points,
        ),
        Canonicalisation(
            "oci-transform",
            "the root is made like /usr, /run emptied, and no xattr kept but security.capability",
            "one side is the tree before this transform: dump or measure it after",
            _METADATA | {Aspect.ENTRY},
            _for_oci,
        ),
    )


_METADATA_CANONICALISATIONS = (
    Canonicalisation(
        "boot-times",
        "/boot and /sysroot get the whole modification time of /usr",
        "tools differ in whether they copy its nanoseconds: use the same version of one tool, or "
        "give /usr a time of whole seconds",
        _TIMES,
        _time_mount_points,
    ),
    Canonicalisation(
        "root-from-usr",
        "the root directory gets the metadata of /usr",
        "layers and extracted directories do not agree about the root: compute both digests with "
        "a current tool, which takes it from /usr",
        _METADATA,
        _root_from_usr,
    ),
    Canonicalisation(
        "nanoseconds",
        "modification times are cut to whole seconds",
        "archives without PAX times and images of version 2 lose the fractions: build both from "
        "the same archive, or set whole seconds when building the image",
        frozenset({Aspect.MTIME_NS}),
        _on_each(_drop_nanoseconds),
    ),
    Canonicalisation(
        "directory-mtimes",
        "modification times of directories are ignored",
        "extracting sets the times of directories the layers do not list, or of all: compute the "
        "digest from the image and not from an extracted directory, or let the build set all "
        "times (buildah: --source-date-epoch, --rewrite-timestamp)",
        _TIMES,
        _drop_directory_mtimes,
    ),
    Canonicalisation(
        "mtimes",
        "all modification times are ignored",
        "the same content was built twice, or copied without its times: copy with them (cp -a), "
        "or let the build set them all (buildah: --source-date-epoch, --rewrite-timestamp)",
        _TIMES,
        _on_each(_drop_mtime),
    ),
    Canonicalisation(
        "selinux-labels",
        "security.selinux is removed",
        "labels come from a host's policy, or are missing on one side: compute both digests with "
        "a tool that labels by the image's own policy",
        frozenset({Aspect.XATTR}),
        _on_each(_drop_label),
    ),
    Canonicalisation(
        "xattr-allowlist",
        "no xattr is kept but security.capability",
        "one side was not filtered, or otherwise: compute both digests with a current tool and "
        "the same --xattrs",
        frozenset({Aspect.XATTR}),
        _on_each(_keep_capability),
    ),
    Canonicalisation(
        "hard-links",
        "every name counts as a file of its own",
        "copying lost hard links: copy with them (cp -a, rsync -H, tar), or compute the digest "
        "from the image",
        frozenset({Aspect.LINKS}),
        _break_links,
    ),
)
