from __future__ import annotations

import pytest

from bootc.formats.filecontexts import FileContextsError
from bootc.formats.tree import Directory, External, Inline, Leaf, Node, Stat, Symlink
from bootc.oci.names import XattrMode
from bootc.oci.seal import SealError, transform_for_boot, transform_for_oci
from bootc.oci.selabel import LabelError


def stat(mtime_s: int, mtime_ns: int = 0, **xattrs: str) -> Stat:
    named = {name.replace("__", ".").encode(): value.encode() for name, value in xattrs.items()}
    return Stat(0o755, 1, 2, mtime_s, mtime_ns, named)


def root(**entries: Node) -> Directory:
    return Directory(Stat(), {name.encode(): node for name, node in entries.items()})


def file(data: bytes = b"", **xattrs: str) -> Leaf:
    return Leaf(stat(5, **xattrs), Inline(data))


def read_content(content: Inline | External) -> bytes:
    assert isinstance(content, Inline)
    return content.data


def bootable(**more: Node) -> Directory:
    return root(
        usr=Directory(stat(100, 7)),
        boot=Directory(stat(1, 2), {b"vmlinuz": file()}),
        sysroot=Directory(stat(3, 4)),
        **more,
    )


def test_root_becomes_like_usr() -> None:
    tree = root(usr=Directory(stat(100, 7, security__capability="c", user__x="y")))
    transform_for_oci(tree)
    assert tree.stat == stat(100, 7, security__capability="c")
    assert tree.stat is not tree.entries[b"usr"].stat


def test_run_is_emptied() -> None:
    run = Directory(Stat(0o700, 8, 9, 1, 2), {b"lock": file()})
    transform_for_oci(tree := root(usr=Directory(stat(100, 7)), run=run))
    assert tree.entries[b"run"] is run
    assert run.entries == {}
    assert run.stat == Stat(0o700, 8, 9, 100, 7)
    # Something else under that name is left alone.
    link = Leaf(stat(5), Symlink(b"/var/run"))
    transform_for_oci(tree := root(usr=Directory(stat(100, 7)), run=link))
    assert tree.entries[b"run"] is link
    assert link.stat == stat(5)


def test_only_capabilities_are_kept() -> None:
    ping = file(security__capability="c", security__selinux="s", user__x="y", trusted__z="t")
    transform_for_oci(root(usr=Directory(stat(1, user__d="e"), {b"ping": ping})))
    assert ping.stat.xattrs == {b"security.capability": b"c"}


def test_no_usr() -> None:
    with pytest.raises(SealError, match="no directory /usr"):
        transform_for_oci(root(etc=Directory()))
    with pytest.raises(SealError, match="no directory /usr"):
        transform_for_oci(root(usr=file()))


def test_boot_and_sysroot_are_emptied() -> None:
    tree = bootable()
    booted = transform_for_boot(tree, read_content)
    boot, sysroot = booted.entries[b"boot"], booted.entries[b"sysroot"]
    assert isinstance(boot, Directory)
    assert boot.entries == {}
    # Seconds only, as composefs-rs does it.
    assert boot.stat == stat(100, 2)
    assert sysroot.stat == stat(100, 4)
    assert booted.entries[b"usr"] is tree.entries[b"usr"]
    # The tree it was made from is as before.
    assert isinstance(tree.lookup("boot/vmlinuz"), Leaf)
    assert tree.entries[b"boot"].stat == stat(1, 2)


@pytest.mark.parametrize("name", ["boot", "sysroot"])
def test_mount_points_must_exist(name: str) -> None:
    tree = bootable()
    del tree.entries[name.encode()]
    with pytest.raises(SealError, match=f"no directory /{name}"):
        transform_for_boot(tree, read_content)
    tree.entries[name.encode()] = file()
    with pytest.raises(SealError, match=f"no directory /{name}"):
        transform_for_boot(tree, read_content)


def with_policy(rules: bytes) -> Directory:
    files = Directory(Stat(), {b"file_contexts": file(rules)})
    contexts = Directory(Stat(), {b"contexts": Directory(Stat(), {b"files": files})})
    selinux = {b"config": file(b"SELINUXTYPE=mine\n"), b"mine": contexts}
    return bootable(etc=Directory(Stat(), {b"selinux": Directory(Stat(), selinux)}))


def test_labels() -> None:
    tree = with_policy(b"/.* any\n/usr usr\n/boot/.+ never\n")
    booted = transform_for_boot(tree, read_content)
    labels = {path: node.stat.xattrs.get(b"security.selinux") for path, node in booted.walk()}
    assert labels[b"/boot"] == labels[b"/sysroot"] == labels[b"/etc/selinux/config"] == b"any"
    assert labels[b"/usr"] == b"usr"
    assert b"/boot/vmlinuz" not in labels
    assert booted.entries[b"boot"].stat.mtime_s == 100
    # The tree it was made from is as before.
    assert not any(node.stat.xattrs for _, node in tree.walk())
    assert isinstance(tree.lookup("boot/vmlinuz"), Leaf)


def test_policies_that_fail() -> None:
    with pytest.raises(FileContextsError, match="/file_contexts:2: '\\[': not supported"):
        transform_for_boot(with_policy(b"/a b\n[ c\n"), read_content)
    tree = with_policy(b"")
    tree.lookup("etc/selinux/mine/contexts/files").entries.clear()  # type: ignore[union-attr]
    with pytest.raises(LabelError, match="has no /etc/selinux/mine/contexts/files/file_contexts"):
        transform_for_boot(tree, read_content)


def test_user_attributes_are_kept_on_demand() -> None:
    ping = file(security__capability="c", security__selinux="s", user__x="y", userx="z")
    transform_for_oci(
        tree := root(usr=Directory(stat(1, user__d="e"), {b"ping": ping})),
        XattrMode.KEEP_USER_XATTRS,
    )
    assert ping.stat.xattrs == {b"security.capability": b"c", b"user.x": b"y"}
    assert tree.stat.xattrs == {b"user.d": b"e"}
