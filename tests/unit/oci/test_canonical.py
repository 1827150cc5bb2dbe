"""Each real reason for two digests, by its known cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import write_dumpfile
from bootc.formats.tree import (
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Node,
    Stat,
    Symlink,
    Unverified,
)
from bootc.formats.treediff import compare
from bootc.formats.verity import verity_digest
from bootc.oci.canonical import explain_by, format_version, known_canonicalisations

USR_TIME = 1_700_000_000
DATA = b"d" * 100
DIGEST = verity_digest(DATA, Algorithm.SHA512)


def stat(mode: int = 0o755, mtime_ns: int = 5, **xattrs: bytes) -> Stat:
    named = {name.replace("_", ".").encode(): value for name, value in xattrs.items()}
    return Stat(mode, 0, 0, USR_TIME, mtime_ns, named)


def directory(**entries: Node) -> Directory:
    return Directory(stat(), {name.encode(): node for name, node in entries.items()})


def sealed() -> Directory:
    """A tree as it is measured: both transforms change nothing in it."""
    tool = Leaf(stat(0o4755, security_capability=b"\1"), External(DIGEST, 100))
    return directory(
        usr=directory(bin=directory(tool=tool, link=tool, a=Leaf(stat(), Inline(b"a" * 65)))),
        etc=directory(**{"a.conf": Leaf(stat(0o644), Inline(b"x"))}),
        run=directory(),
        boot=directory(),
        sysroot=directory(),
    )


def at(root: Directory, path: str) -> Node:
    node = root.lookup(path)
    assert node is not None
    return node


def folder(root: Directory, path: str) -> Directory:
    node = at(root, path)
    assert isinstance(node, Directory)
    return node


def read_content(content: Inline | External) -> bytes:
    if isinstance(content, Inline):
        return content.data
    raise Error("not at hand")


KNOWN = known_canonicalisations(Algorithm.SHA512, read_content)


def explained(a: Directory, b: Directory) -> list[tuple[str, bool, bool]] | None:
    before = [*write_dumpfile(a), *write_dumpfile(b)]
    applied = explain_by((a, b), list(compare(a, b)), KNOWN)
    assert [*write_dumpfile(a), *write_dumpfile(b)] == before, "the trees are only looked at"
    if applied is None:
        return None
    return [(one.canonicalisation.name, one.changes_a, one.changes_b) for one in applied]


def extracted(root: Directory) -> None:
    for _, node in root.walk():
        if isinstance(node, Directory):
            node.stat.mtime_s += 7


def whole_seconds(root: Directory) -> None:
    for _, node in root.walk():
        node.stat.mtime_ns = 0


def rebuilt(root: Directory) -> None:
    for _, node in root.walk():
        node.stat.mtime_s += 7


def labelled(root: Directory) -> None:
    for path, node in root.walk():
        node.stat.xattrs[b"security.selinux"] = b"system_u:" + path


def unfiltered(root: Directory) -> None:
    at(root, "etc/a.conf").stat.xattrs = {b"user.one": b"1"}
    at(root, "usr/bin").stat.xattrs = {b"trusted.two": b"2"}


def unlinked(root: Directory) -> None:
    tool = at(root, "usr/bin/tool")
    assert isinstance(tool, Leaf)
    folder(root, "usr/bin").entries[b"link"] = Leaf(tool.stat.copy(), tool.content)


def other_root(root: Directory) -> None:
    root.stat = Stat(0o700, 1, 1, 0, 0)


def mount_points_in_whole_seconds(root: Directory) -> None:
    for name in ("boot", "sysroot"):
        at(root, name).stat.mtime_ns = 0


def other_inline_limit(root: Directory) -> None:
    digest = verity_digest(b"a" * 65, Algorithm.SHA512)
    folder(root, "usr/bin").entries[b"a"] = Leaf(stat(), External(digest, 65))


def without_digests(root: Directory) -> None:
    tool = at(root, "usr/bin/tool")
    assert isinstance(tool, Leaf)
    tool.content = Unverified(DIGEST.object_path.encode(), 100)


def plain(root: Directory) -> None:
    folder(root, "boot").entries[b"loader"] = directory(x=Leaf(stat(), Fifo()))


def untransformed(root: Directory) -> None:
    other_root(root)
    unfiltered(root)
    folder(root, "run").entries[b"lock"] = directory()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (whole_seconds, [("nanoseconds", True, False)]),
        (extracted, [("directory-mtimes", True, True)]),
        (rebuilt, [("mtimes", True, True)]),
        (labelled, [("selinux-labels", False, True)]),
        (unfiltered, [("xattr-allowlist", False, True)]),
        (unlinked, [("hard-links", True, False)]),
        (other_root, [("root-from-usr", False, True)]),
        (mount_points_in_whole_seconds, [("boot-times", False, True)]),
        (other_inline_limit, [("storage", True, False)]),
        (without_digests, [("storage", False, True)]),
        (plain, [("boot-transform", False, True)]),
        (untransformed, [("oci-transform", False, True)]),
    ],
)
def test_known_causes(
    change: Callable[[Directory], None], expected: list[tuple[str, bool, bool]]
) -> None:
    b = sealed()
    change(b)
    assert explained(sealed(), b) == expected
    assert explained(b, sealed()) == [(name, in_b, in_a) for name, in_a, in_b in expected]


def test_several_causes_at_once() -> None:
    b = sealed()
    extracted(b)
    unlinked(b)
    labelled(b)
    assert explained(sealed(), b) == [
        ("hard-links", True, False),
        ("selinux-labels", False, True),
        ("directory-mtimes", True, True),
    ]


def test_a_change_that_takes_more_than_what_differs() -> None:
    a, b = sealed(), sealed()
    for root in (a, b):
        folder(root, "run").entries[b"lock"] = directory()
    folder(b, "run/lock").entries[b"x"] = directory()
    assert explained(a, b) == [("oci-transform", True, True)]


def test_both_transforms_in_their_order() -> None:
    b = sealed()
    plain(b)
    untransformed(b)
    assert explained(sealed(), b) == [
        ("oci-transform", False, True),
        ("boot-transform", False, True),
    ]


def test_a_change_that_leaves_something_for_another_one() -> None:
    # The boot transform copies whole seconds only.
    a, b = sealed(), sealed()
    at(b, "boot").stat.mtime_s = 0
    at(b, "boot").stat.mtime_ns = 0
    plain(b)
    assert explained(a, b) == [("boot-transform", False, True), ("boot-times", False, True)]


@pytest.mark.parametrize("path", ["etc/a.conf", "usr/bin/tool"])
def test_other_content_has_no_cure(path: str) -> None:
    b = sealed()
    leaf = at(b, path)
    assert isinstance(leaf, Leaf)
    leaf.content = Inline(b"other")
    extracted(b)
    assert explained(sealed(), b) is None


def test_four_causes_are_too_many() -> None:
    b = sealed()
    extracted(b)
    unlinked(b)
    labelled(b)
    other_inline_limit(b)
    assert explained(sealed(), b) is None


def test_a_transform_that_cannot_be_made_is_left_out() -> None:
    a, b = directory(usr=directory()), directory(usr=directory())
    b.entries[b"boot"] = directory()
    assert explained(a, b) is None


def test_equal_trees_need_nothing() -> None:
    assert explained(sealed(), sealed()) == []


def test_links_to_names_that_do_not_differ_themselves() -> None:
    b = sealed()
    at(b, "usr/bin/tool").stat.mode = 0o755
    unlinked(b)
    assert explained(sealed(), b) is None


def test_a_policy_that_is_no_directory() -> None:
    a, b = sealed(), sealed()
    for root in (a, b):
        folder(root, "etc").entries[b"selinux"] = Leaf(stat(), Symlink(b"elsewhere"))
    extracted(b)
    assert explained(a, b) == [("directory-mtimes", True, True)]


def test_the_guide_names_them_all() -> None:
    guide = (Path(__file__).parents[3] / "docs/howto/digest-mismatch.md").read_text("utf-8")
    for canonicalisation in (*KNOWN, format_version((1, 2))):
        assert f"`{canonicalisation.name}`" in guide


def test_format_versions() -> None:
    a, b = sealed(), sealed()
    whole_seconds(b)
    extracted(b)
    applied = explain_by((a, b), list(compare(a, b)), KNOWN, (format_version((1, 2)),))
    assert applied is not None
    assert [one.canonicalisation.name for one in applied] == ["directory-mtimes", "format-version"]


def test_versions_0_and_1_hold_the_same_times() -> None:
    a, b = sealed(), sealed()
    (applied,) = explain_by((a, b), [], KNOWN, (format_version((0, 1)),)) or ()
    assert (applied.canonicalisation.name, applied.changes_a, applied.changes_b) == (
        "format-version",
        False,
        False,
    )
    whole_seconds(b)
    (first, _) = explain_by((a, b), list(compare(a, b)), KNOWN, (format_version((0, 1)),)) or ()
    assert first.canonicalisation.name == "nanoseconds"
