"""Hypothesis strategies for whole file system trees, and a way to compare two.

The strategies lean on what image layouts find hard: directories round the 2 KiB and
4 KiB limits, tails, long link targets, shared xattrs, hard links across directories,
whiteouts, names like the root's stubs.
"""

from __future__ import annotations

from hypothesis import strategies as st

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import write_dumpfile
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Node,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

_ODD_NAMES = [b"00", b"ff", b"Ab", b"!", b"-", b"...", b".a", b"\xff\xfe", b"a b\n=\\", b"n" * 255]
_XATTR_NAMES = [
    b"security.selinux",
    b"security.capability",
    b"user.foo",
    b"user.overlay.metacopy",
    b"trusted.foo",
    b"trusted.overlay.opaque",
    b"trusted.overlay.overlay.redirect",
    b"trusted.overlay.metacopy",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"lustre.x",
    b"plain",
]


_NAMES = st.one_of(
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"|").replace(b"\0", b"0"))
    .filter(lambda name: name not in (b".", b"..")),
    st.sampled_from(_ODD_NAMES),
)


def _stats(*, version_2: bool) -> st.SearchStrategy[Stat]:
    owners = st.sampled_from([0, 1, 1000, 65535, 65536, 2**32 - 1])
    values = st.one_of(
        st.sampled_from([b"", b"x", b"-", b"system_u:object_r:usr_t:s0\0"]),
        st.binary(max_size=20),
        st.integers(0, 1500).map(lambda n: b"v" * n),
    )
    return st.builds(
        Stat,
        mode=st.integers(0, 0o7777),
        uid=owners,
        gid=owners,
        mtime_s=st.sampled_from([0, 1, 1_700_000_000, 2**33]),
        mtime_ns=st.just(0) if version_2 else st.sampled_from([0, 5, 999_999_999]),
        xattrs=st.dictionaries(st.sampled_from(_XATTR_NAMES), values, max_size=4).map(_possible),
    )


def _possible(xattrs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Fill empty ACLs: there are none, and the C tools do not see them."""
    return {k: v or b"acl" if b"posix_acl" in k else v for k, v in xattrs.items()}


def _contents(algorithm: Algorithm, *, version_2: bool) -> st.SearchStrategy[Content]:
    longest_inline, longest_link = (512, 1024) if version_2 else (5000, 4095)
    # Version 2 is frozen with one chunk index a file, which is enough for 2**43 bytes. Of
    # larger files fsck.erofs misses the others.
    large = [2**32 - 1, 2**32, 2**43] + ([] if version_2 else [2**44, 2**50])
    sizes = st.one_of(st.integers(1, 10_000), st.sampled_from(large))
    digests = st.binary(min_size=algorithm.digest_size, max_size=algorithm.digest_size)
    devices = st.sampled_from([1, 0x103, 2**32 - 1])
    return st.one_of(
        st.builds(Inline, st.one_of(st.binary(max_size=64), _lengths(0, longest_inline))),
        st.builds(External, digests.map(lambda raw: Digest(algorithm, raw)), sizes),
        st.builds(Unverified, st.sampled_from([b"ab/cd", b"ab/cd.file"]), sizes),
        st.builds(Sparse, sizes),
        st.builds(Symlink, _lengths(1, longest_link)),
        st.builds(CharDevice, devices),
        st.just(CharDevice(0)),
        st.builds(BlockDevice, st.one_of(st.just(0), devices)),
        st.just(Fifo()),
        st.just(Socket()),
    )


def _lengths(low: int, high: int) -> st.SearchStrategy[bytes]:
    """Bytes whose length matters, not their values."""
    return (
        st.integers(low, high)
        .map(lambda n: b"abcdefg\n" * (n // 8 + 1))
        .flatmap(
            lambda raw: st.integers(max(low, len(raw) - 8), min(high, len(raw))).map(
                lambda n: raw[:n]
            )
        )
    )


@st.composite
def trees(
    draw: st.DrawFn, algorithm: Algorithm = Algorithm.SHA256, *, version_2: bool = False
) -> Directory:
    """A tree that composefs images and dumpfiles can both hold, images of version 2, too."""
    stats = _stats(version_2=version_2)
    contents = _contents(algorithm, version_2=version_2)
    root = Directory(draw(stats))
    directories = [root]
    leaves: list[Leaf] = []
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(directories))
        name = draw(_NAMES)
        if name in parent.entries:
            continue
        kind = draw(st.sampled_from(["directory", "leaf", "leaf", "leaf", "link"]))
        if kind == "directory":
            child = Directory(draw(stats))
            directories.append(child)
            parent.entries[name] = child
        elif kind == "link" and leaves:
            parent.entries[name] = draw(st.sampled_from(leaves))
        else:
            leaf = Leaf(draw(stats), draw(contents))
            parent.entries[name] = leaf
            if leaf.content != CharDevice(0):  # whiteouts cannot be hard links
                leaves.append(leaf)
    if draw(st.booleans()):
        _crowd(draw, draw(st.sampled_from(directories)), draw(stats))
    for directory in filter(holds_whiteouts, directories):
        # Not to be told from the mark an image puts there itself.
        directory.stat.xattrs.pop(b"trusted.overlay.opaque", None)
    return root


def _crowd(draw: st.DrawFn, directory: Directory, meta: Stat) -> None:
    """Fill a directory so that its entries cross block limits."""
    width = draw(st.sampled_from([4, 20, 200]))
    for i in range(draw(st.integers(1, 9000 // (12 + width)))):
        name = b"%0*d" % (width, i)
        directory.entries.setdefault(name, Leaf(meta, Inline(b"")))


def holds_whiteouts(node: Node) -> bool:
    """Whether this is a directory with a whiteout in it."""
    return isinstance(node, Directory) and any(
        isinstance(child, Leaf) and child.content == CharDevice(0)
        for child in node.entries.values()
    )


def text_of(root: Directory) -> list[bytes]:
    """Everything a tree holds, hard links included, as comparable lines."""
    return list(write_dumpfile(root))
