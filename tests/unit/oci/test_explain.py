"""Reports about real files, directories and images."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bootc.errors import Error
from bootc.formats.dialect import Dialect
from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import DumpfileError, write_dumpfile
from bootc.formats.erofs.image import InvalidImage
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference, ImageReferenceError
from bootc.formats.libcomposefs import erofs as libcomposefs
from bootc.formats.libcomposefs.tree import CTree
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat
from bootc.formats.treediff import Aspect
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.tree_read import read_tree
from bootc.oci.explain import Comparison, NotATree, SideKind, explain
from bootc.oci.layoutdir import LayoutError
from bootc.oci.local import ActiveRoot, directory_tree
from bootc.oci.names import XattrMode
from bootc.oci.source import open_source
from bootc.oci.trees import image_tree
from bootc.repository.sink import DigestOnly
from support import images
from support.images import compute_image_id

MTIME = 1_700_000_000


def tree(algorithm: Algorithm = Algorithm.SHA512) -> Directory:
    def directory(**entries: Directory | Leaf) -> Directory:
        named = {name.encode(): node for name, node in entries.items()}
        return Directory(Stat(0o755, 0, 0, MTIME, 5), named)

    data = b"d" * 100
    file = Leaf(Stat(0o755, 0, 0, MTIME, 7), External(verity_digest(data, algorithm), 100))
    return directory(usr=directory(a=file, b=file), run=directory())


def dump(path: Path, root: Directory) -> str:
    path.write_bytes(b"".join(write_dumpfile(root)))
    return str(path)


def image(path: Path, root: Directory, version: int = 1) -> str:
    path.write_bytes(mkfs_erofs(root, version=version))
    return str(path)


def causes(report: Comparison) -> list[str] | None:
    if report.explanation is None:
        return None
    return [applied.canonicalisation.name for applied in report.explanation]


def test_a_dumpfile_and_its_image(tmp_path: Path) -> None:
    a, b = dump(tmp_path / "a", tree()), image(tmp_path / "b", tree())
    report = explain(a, b)
    assert report.equal
    assert (report.a.name, report.a.kind, report.a.entries) == (a, SideKind.DUMPFILE, 5)
    assert (report.b.name, report.b.kind, report.b.format_version) == (b, SideKind.IMAGE, 1)
    expected = verity_digest((tmp_path / "b").read_bytes(), Algorithm.SHA512)
    assert (report.a.digest, report.b.digest) == (expected, expected)
    assert (report.findings, report.explanation, report.writers) == ((), (), None)


def test_other_metadata(tmp_path: Path) -> None:
    changed = tree()
    changed.entries[b"usr"].stat.mtime_s += 1
    report = explain(dump(tmp_path / "a", tree()), image(tmp_path / "b", changed))
    assert not report.equal
    (finding,) = report.findings
    assert (finding.aspect, finding.entries, finding.directories) == (Aspect.MTIME, 1, 1)
    assert causes(report) == ["directory-mtimes"]


@pytest.mark.parametrize(("version", "aspects"), [(0, []), (2, [Aspect.MTIME_NS])])
def test_format_versions(tmp_path: Path, version: int, aspects: list[Aspect]) -> None:
    report = explain(dump(tmp_path / "a", tree()), image(tmp_path / "b", tree(), version))
    assert (report.a.format_version, report.b.format_version) == (1, version)
    assert [finding.aspect for finding in report.findings] == aspects
    assert causes(report) == ["format-version"]


def test_the_tree_decides_on_the_hash(tmp_path: Path) -> None:
    root = tree(Algorithm.SHA256)
    empty = Directory(root.stat)
    report = explain(dump(tmp_path / "a", empty), image(tmp_path / "b", root))
    assert report.b.digest == verity_digest((tmp_path / "b").read_bytes(), Algorithm.SHA256)
    assert report.a.digest.algorithm is Algorithm.SHA256


def test_trees_named_by_different_hashes(tmp_path: Path) -> None:
    a, b = dump(tmp_path / "a", tree()), dump(tmp_path / "b", tree(Algorithm.SHA256))
    report = explain(a, b)
    assert [(f.aspect, f.entries) for f in report.findings] == [(Aspect.ALGORITHM, 2)]
    assert report.explanation is None
    assert report.a.digest.algorithm is Algorithm.SHA512
    assert report.b.digest.algorithm is Algorithm.SHA256


def test_equal_trees_in_other_bytes(tmp_path: Path) -> None:
    a = image(tmp_path / "a", tree())
    b = image(tmp_path / "b", tree())
    raw = bytearray((tmp_path / "b").read_bytes())
    raw[1024 + 64 : 1024 + 66] = b"me"  # the volume's name
    (tmp_path / "b").write_bytes(raw)
    report = explain(a, b)
    assert not report.equal
    assert (report.findings, report.explanation) == ((), ())
    assert report.writers == (Dialect.RUST, None)


def test_an_image_by_the_rules_of_the_c_tools(tmp_path: Path) -> None:
    root = tree()
    xattrs = {b"user.%03d" % i: b"" for i in range(130)}  # they share 128 of an inode
    root.entries[b"usr"].stat.xattrs = xattrs
    root.entries[b"run"].stat.xattrs = xattrs
    theirs = tmp_path / "b"
    theirs.write_bytes(libcomposefs.mkfs_erofs(CTree(root)))
    report = explain(image(tmp_path / "a", root), str(theirs))
    assert not report.equal
    assert report.writers == (Dialect.RUST, Dialect.C)


def test_an_erofs_image_that_is_no_composefs_image(tmp_path: Path) -> None:
    a, b = image(tmp_path / "a", tree(), 2), image(tmp_path / "b", tree(), 2)
    raw = bytearray((tmp_path / "b").read_bytes())
    raw[:32] = bytes(32)
    (tmp_path / "b").write_bytes(raw)
    report = explain(a, b)
    assert (report.a.format_version, report.b.format_version) == (2, None)
    # Nothing in it means anything to composefs: a file of an object is a hole with xattrs.
    assert (Aspect.CONTENT, b"") in [(f.aspect, f.name) for f in report.findings]
    assert report.explanation is None


def test_a_dumpfile_from_a_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    lines = b"".join(write_dumpfile(tree()))
    writer = threading.Thread(target=fifo.write_bytes, args=(lines,), daemon=True)
    writer.start()
    report = explain(str(fifo), image(tmp_path / "b", tree()))
    writer.join(10)
    assert report.equal


def container(path: Path) -> str:
    return images.single(path, images.bootable(images.file("usr/f", b"x" * 65))).reference()


def tree_of(reference: str, *, bootable: bool) -> Directory:
    with open_source(ImageReference.parse(reference)) as source:
        return image_tree(source, bootable=bootable).root


def test_a_container_image_is_read_the_way_its_id_is_computed(tmp_path: Path) -> None:
    reference = container(tmp_path / "layout")
    with open_source(ImageReference.parse(reference)) as source:
        expected = compute_image_id(source)
    report = explain(reference, dump(tmp_path / "b", tree_of(reference, bootable=True)))
    assert report.equal
    assert (report.a.digest, report.a.kind) == (expected, SideKind.CONTAINER)


def test_plain_and_bootable(tmp_path: Path) -> None:
    reference = images.single(
        tmp_path / "layout", images.bootable(images.file("boot/x", b"x"))
    ).reference()
    plain = image(tmp_path / "b", tree_of(reference, bootable=False))
    assert causes(explain(reference, plain)) == ["boot-transform"]
    assert explain(reference, plain, bootable=False).equal


def test_a_changed_image_has_no_cure(tmp_path: Path) -> None:
    reference = container(tmp_path / "layout")
    root = tree_of(reference, bootable=True)
    usr = root.entries[b"usr"]
    assert isinstance(usr, Directory)
    usr.entries[b"f"] = Leaf(usr.entries[b"f"].stat, Inline(b"other"))
    report = explain(reference, dump(tmp_path / "b", root))
    assert [finding.aspect for finding in report.findings] == [Aspect.CONTENT]
    assert report.explanation is None


def rootfs(path: Path, *, policy: bool = False) -> Path:
    """Make a directory like an extracted image, all of one time."""
    for name in ("usr/bin", "boot/loader", "sysroot", "run/lock", "etc"):
        (path / name).mkdir(parents=True)
    (path / "usr/bin/tool").write_bytes(b"tool" * 100)
    (path / "usr/bin/link").hardlink_to(path / "usr/bin/tool")
    if policy:
        files = path / "etc/selinux/demo/contexts/files"
        files.mkdir(parents=True)
        (path / "etc/selinux/config").write_text("SELINUXTYPE=demo\n")
        rules = "/.* system_u:object_r:default_t:s0\n/usr/bin/.* system_u:object_r:bin_t:s0\n"
        (files / "file_contexts").write_text(rules)
    for found in sorted(path.rglob("*"), reverse=True):
        os.utime(found, ns=(0, MTIME * 10**9 + 5), follow_symlinks=False)
    return path


def raw_tree(path: Path) -> Directory:
    with Dir.open(path) as directory:
        return read_tree(directory, DigestOnly(Algorithm.SHA512))


def sealed_tree(path: Path) -> Directory:
    with Dir.open(path) as directory:
        return directory_tree(directory).root


def test_a_directory_is_read_the_way_its_id_is_computed(tmp_path: Path) -> None:
    root = rootfs(tmp_path / "root")
    report = explain(str(root), image(tmp_path / "b", sealed_tree(root)))
    assert report.equal
    assert report.a.kind is SideKind.DIRECTORY
    assert explain(str(root), str(root), bootable=False).equal


def test_a_directory_copied_without_times_and_links(tmp_path: Path) -> None:
    root = rootfs(tmp_path / "root")
    expected = image(tmp_path / "b", sealed_tree(root))
    link = root / "usr/bin/link"
    link.unlink()
    link.write_bytes((root / "usr/bin/tool").read_bytes())
    os.utime(link, ns=(0, MTIME * 10**9 + 5))
    report = explain(str(root), expected)
    assert [f.aspect for f in report.findings] == [Aspect.MTIME, Aspect.LINKS]
    assert causes(report) == ["hard-links", "directory-mtimes"]


def test_user_xattrs_are_kept_on_demand(tmp_path: Path) -> None:
    root = rootfs(tmp_path / "root")
    try:
        os.setxattr(root / "usr", "user.x", b"1")
    except OSError as exc:
        pytest.skip(f"no user xattrs here: {exc}")
    expected = image(tmp_path / "b", sealed_tree(root))
    report = explain(str(root), expected, xattrs=XattrMode.KEEP_USER_XATTRS)
    assert [(f.aspect, f.name, f.only_a) for f in report.findings] == [
        (Aspect.XATTR, b"user.x", 2)  # the root is like /usr
    ]
    assert causes(report) == ["xattr-allowlist"]


def test_labels_are_made_with_the_policy_of_either_side(tmp_path: Path) -> None:
    root = rootfs(tmp_path / "root", policy=True)
    before = raw_tree(root)
    policy = before.lookup("etc/selinux/demo/contexts/files/file_contexts")
    assert isinstance(policy, Leaf)
    assert isinstance(policy.content, External), "only the directory can tell what is in it"
    dumped = dump(tmp_path / "b", before)
    report = explain(dumped, str(root))
    assert causes(report) == ["oci-transform", "boot-transform"]
    # Without the directory nobody can tell what the labels are.
    assert causes(explain(dumped, image(tmp_path / "c", sealed_tree(root)))) == [
        "oci-transform",
        "boot-emptied",
    ]


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", NotATree, "neither an EROFS image nor a dumpfile"),
        (b"#!/bin/sh\n", NotATree, "neither an EROFS image nor a dumpfile"),
        (b"/ 0 40755 2 0 0 0 0.0 -\n", DumpfileError, "9 columns"),
        (bytes(1024) + b"\xe2\xe1\xf5\xe0", InvalidImage, "ends within its superblock"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, error: type[Error], text: str) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    with pytest.raises(error, match=text):
        explain(str(bad), dump(tmp_path / "b", tree()))
    with pytest.raises(error, match=text):
        explain(dump(tmp_path / "b", tree()), str(bad))


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("/nowhere/at/all", NotATree, "there is no /nowhere/at/all"),
        ("oci:/nowhere/at/all", LayoutError, "there is no directory /nowhere/at/all"),
        ("ocl:there", ImageReferenceError, "names no transport"),
        ("/", ActiveRoot, "Cannot operate on active root filesystem"),
    ],
)
def test_names_of_nothing(tmp_path: Path, name: str, error: type[Error], text: str) -> None:
    with pytest.raises(error, match=text):
        explain(dump(tmp_path / "b", tree()), name)


def test_a_name_below_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        explain(dump(tmp_path / "b", tree()), str(tmp_path / "b" / "c"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error") as info:
        explain("/proc/self/mem", dump(tmp_path / "b", tree()))
    assert info.value.__notes__ == ["Reading /proc/self/mem"]
