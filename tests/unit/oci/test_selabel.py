from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bootc.formats.filecontexts import FileContexts, parse_file_contexts
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
from bootc.formats.verity import Algorithm, verity_digest
from bootc.oci.selabel import (
    MAX_FILE_BYTES,
    LabelError,
    find_policy,
    label_tree,
    policy_contents,
)

FILES = "etc/selinux/mine/contexts/files"
CONFIG = b"SELINUXTYPE=mine\n"


def leaf(content: Content | bytes = b"", **xattrs: bytes) -> Leaf:
    content = Inline(content) if isinstance(content, bytes) else content
    return Leaf(Stat(0o644, xattrs={b"security.selinux": b"old"}), content)


def tree(files: dict[str, Node | bytes]) -> Directory:
    """Make a tree of paths, with the directories they need."""
    root = Directory(Stat(0o755, xattrs={b"security.selinux": b"old", b"user.x": b"y"}))
    for path, node in files.items():
        *above, name = path.split("/")
        directory = root
        for part in above:
            below = directory.entries.setdefault(part.encode(), Directory(Stat(0o755)))
            assert isinstance(below, Directory)
            directory = below
        directory.entries[name.encode()] = leaf(node) if isinstance(node, bytes) else node
    return root


def read(content: Inline | External) -> bytes:
    assert isinstance(content, Inline)
    return content.data


def policy_of(files: dict[str, Node | bytes]) -> FileContexts | None:
    return find_policy(tree(files), read)


def labels(root: Directory) -> dict[str, str | None]:
    found = {}
    for path, node in root.walk():
        label = node.stat.xattrs.get(b"security.selinux")
        found[path.decode()] = None if label is None else label.decode()
    return found


def contexts(rules: str, aliases: dict[bytes, bytes] | None = None) -> FileContexts:
    return FileContexts(parse_file_contexts(rules.encode(), "rules"), aliases or {})


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"etc/passwd": b""},
        {"etc/selinux/semanage.conf": b""},
        {"etc/selinux/config": b"SELINUX=permissive\n"},
        {"etc/selinux/config": b"#SELINUXTYPE=mine\nSELINUXTYPE\n"},
    ],
)
def test_no_policy(files: dict[str, Node | bytes]) -> None:
    assert policy_of(files) is None


@pytest.mark.parametrize(
    "config",
    [
        b"SELINUXTYPE=mine",
        b"#x\n selinuxtype \t=  mine \r\nSELINUXTYPE=other\n",
        b"# SELINUXTYPE=other\nSELINUX = enforcing\n\xff\nSELINUXTYPE=mine\n",
    ],
)
def test_all_files_are_read(config: bytes) -> None:
    policy = policy_of(
        {
            "etc/selinux/config": config,
            f"{FILES}/file_contexts": b"/.* base\n/a base\n/b base\n/c base\n",
            f"{FILES}/file_contexts.local": b"/b local\n/c local\n",
            f"{FILES}/file_contexts.homedirs": b"/c homedirs\n",
            f"{FILES}/file_contexts.subs": b"/s /one\n/t /one\n",
            f"{FILES}/file_contexts.subs_dist": b"/t /two\n",
        }
    )
    assert policy is not None
    root = label_tree(tree({"a": b"", "b": b"", "c": b"", "d": b""}), policy)
    assert labels(root) == {
        **{"/": "base", "/a": "base", "/b": "local", "/c": "homedirs", "/d": "base"}
    }
    assert policy.aliases == {b"/s": b"/one", b"/t": b"/two"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"etc": leaf(Symlink(b"usr/etc"))}, "/etc is not a directory"),
        ({"etc/selinux": b""}, "/etc/selinux is not a directory"),
        ({"etc/selinux/config": leaf(Symlink(b"x"))}, "/etc/selinux/config is not a regular file"),
        ({"etc/selinux/config": Directory()}, "/etc/selinux/config is not a regular file"),
        ({"etc/selinux/config": leaf(Sparse(9))}, "/etc/selinux/config is not a regular file"),
        ({"etc/selinux/config": b"SELINUXTYPE=\xff"}, "SELINUXTYPE is not UTF-8"),
        ({"etc/selinux/config": CONFIG}, "selects the SELinux policy 'mine' but has no /etc/"),
        ({"etc/selinux/config": b"SELINUXTYPE=\n"}, "selects the SELinux policy '' but has no"),
        ({"etc/selinux/config": b"SELINUXTYPE=../x"}, "the SELinux policy '../x' but has no"),
        ({"etc/selinux/config": CONFIG, FILES: b""}, f"/{FILES} is not a directory"),
        (
            {"etc/selinux/config": CONFIG, f"{FILES}/file_contexts": leaf(Fifo())},
            f"/{FILES}/file_contexts is not a regular file",
        ),
    ],
)
def test_unusable(files: dict[str, Node | bytes], message: str) -> None:
    with pytest.raises(LabelError, match=re.escape(message)):
        policy_of(files)


def external(size: int) -> External:
    return External(verity_digest(b"%d" % size, Algorithm.SHA256), size)


def test_large_files_are_refused_unread() -> None:
    files: dict[str, Node | bytes] = {"etc/selinux/config": leaf(external(MAX_FILE_BYTES + 1))}
    with pytest.raises(LabelError, match="/etc/selinux/config is larger than 16777216 bytes"):
        policy_of(files)
    assert policy_contents(tree(files)) == set()


def test_what_may_be_read_ahead() -> None:
    assert policy_contents(tree({})) == set()
    small, half = external(100), external(MAX_FILE_BYTES // 2)
    wanted = tree(
        {
            "etc/selinux/config": leaf(small),
            f"{FILES}/file_contexts": leaf(half),
            f"{FILES}/file_contexts.local": b"inline",
            f"{FILES}/file_contexts.bin": leaf(external(200)),
            "etc/selinux/other/contexts/files/file_contexts": leaf(external(MAX_FILE_BYTES)),
            "etc/passwd": leaf(external(300)),
        }
    )
    assert policy_contents(wanted) == {small, half}


def test_labels_replace_what_was_there() -> None:
    before = tree({"a": b"", "none": b"", "no/match": b""})
    after = label_tree(before, contexts("/ root\n/a a\n/none <<none>>\n/no no"))
    assert labels(after) == {"/": "root", "/a": "a", "/none": None, "/no": "no", "/no/match": None}
    assert after.stat.xattrs == {b"security.selinux": b"root", b"user.x": b"y"}
    assert labels(before)["/a"] == "old"
    assert before.stat.xattrs[b"security.selinux"] == b"old"


def test_types() -> None:
    letters: dict[str, Content] = {
        "-1": Inline(b""),
        "-2": Unverified(b"x", 1),
        "-3": Sparse(1),
        "l": Symlink(b"x"),
        "c": CharDevice(1),
        "b": BlockDevice(1),
        "p": Fifo(),
        "s": Socket(),
    }
    rules = "".join(f"/.* -{letter} {letter}\n" for letter in "-lcbpsd")
    root = label_tree(tree({n: leaf(c) for n, c in letters.items()}), contexts(rules))
    assert labels(root) == {"/": "d", **{f"/{name}": name[0] for name in letters}}


def test_aliases_hold_for_all_below() -> None:
    aliases = {
        b"/lib64": b"/usr/lib",
        b"/usr/lib/private": b"/secret",
        b"/etc/x": b"/usr/lib/",
        b"/": b"/never",
        b"/file": b"/usr/lib/f",
        b"/top": b"/",
    }
    rules = "/usr/lib lib\n/usr/lib/ slash\n/usr/lib/f f\n/secret/f s\n/never/.* n\n/file no\n/r r"
    root = label_tree(
        tree(
            {
                **{"lib64/f": b"", "lib64/private/f": b"", "usr/lib/private/f": b""},
                **{"etc/x/f": b"", "file": b"", "top/r": b"", "lib64x/f": b""},
            }
        ),
        contexts(rules, aliases),
    )
    found = {path: label for path, label in labels(root).items() if label}
    assert found == {
        **{"/lib64": "lib", "/lib64/f": "f", "/lib64/private/f": "s"},
        **{"/usr/lib": "lib", "/usr/lib/private/f": "s", "/etc/x": "slash", "/etc/x/f": "f"},
        **{"/file": "f", "/top/r": "r"},
    }


def shares(root: Directory) -> Callable[[str, str], bool]:
    return lambda a, b: root.lookup(a) is root.lookup(b)


def test_hard_links_are_split_by_label() -> None:
    shared = leaf(b"1")
    names = ["a1", "a2", "b1", "b2", "c", "none1", "none2", "z/a3"]
    before = tree(dict.fromkeys(names, shared))
    after = label_tree(before, contexts("/(.*/)?a[0-9] a\n/b. b\n/c c\n"))
    same = shares(after)
    assert same("a1", "a2")
    assert same("a1", "z/a3")
    # All others are compared with the first name alone, and so even two like each other part.
    others = [after.lookup(name) for name in ("a1", "b1", "b2", "c", "none1", "none2")]
    assert len({id(node) for node in others}) == len(others)
    assert labels(after)["/b2"] == "b"
    assert labels(after)["/none2"] is None
    assert shares(before)("a1", "none2")


def test_links_of_one_label_stay() -> None:
    shared = leaf(Symlink(b"x"))
    after = label_tree(tree({"a": shared, "d/b": shared}), contexts("/.* all"))
    assert shares(after)("a", "d/b")
    assert after.lookup("a") is not shared


def test_deeper_than_python_calls() -> None:
    root = Directory()
    at = root
    for _ in range(3000):
        below = Directory()
        at.entries[b"d"] = below
        at = below
    labelled = label_tree(root, contexts("/(d/)*d deep"))
    assert sum(label == "deep" for label in labels(labelled).values()) == 3000


def test_order_decides_which_link_is_first() -> None:
    shared = leaf(b"1")
    # Bytewise and depth first: /a/z comes before /a.b.
    root = tree({"a.b": shared, "a/z": shared, "b": shared})
    after = label_tree(root, contexts("/a/z one\n/a.b two\n/b one"))
    assert shares(after)("a/z", "b")
    assert not shares(after)("a/z", "a.b")


def test_the_order_is_of_names_not_of_paths() -> None:
    root = tree({"a": Directory(Stat(), {b"z": (shared := leaf(b"1"))}), "a.b": shared})
    assert [path for path, _ in label_tree(root, contexts("/.* x")).walk()] == [
        *(b"/", b"/a", b"/a/z", b"/a.b")
    ]
