"""SELinux labels of a tree, given by the policy that the tree itself holds.

The labels are those of composefs-rs, because they are part of the image and so of its id. The
given tree is not changed.

- ``/etc/selinux/config`` names the policy (``SELINUXTYPE``). Without a name there are no labels.
- The ``contexts/files/`` of the policy say which label a path gets
  (:mod:`bootc.formats.filecontexts`).
- A path that is an alias, and every path below it, is looked up as the path it stands for.
- If the names of one file get different labels, they become separate files.

Source: composefs-rs 0.9, ``composefs-boot/src/selabel.rs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bootc.errors import Error
from bootc.formats.filecontexts import (
    FileContexts,
    FileType,
    Rule,
    parse_file_contexts,
    parse_subs,
)
from bootc.formats.tree import (
    Directory,
    External,
    FileKind,
    Inline,
    Leaf,
    Node,
    Stat,
    kind_of,
)

_Entry = tuple[bytes, Node]
ReadContent = Callable[[Inline | External], bytes]

#: The limit for a file of a policy, which is read as a whole. Fedora's have less than 1 MB.
MAX_FILE_BYTES = 1 << 24

_XATTR = b"security.selinux"
_CONFIG = "etc/selinux/config"
#: Both enums name the types alike.
_FILE_TYPES = {kind: FileType[kind.name] for kind in FileKind}
# Rules of later files win.
_RULES = ("file_contexts", "file_contexts.local", "file_contexts.homedirs")
_ALIASES = ("file_contexts.subs", "file_contexts.subs_dist")


class LabelError(Error):
    """The policy of a tree cannot be used."""


def policy_contents(root: Directory) -> set[External]:
    """Return the contents that :func:`find_policy` will probably read, for reading ahead.

    If there are several policies, some may be left out, so that the contents fit into memory.
    """
    names = {_CONFIG.rpartition("/")[2].encode(), *(name.encode() for name in _RULES + _ALIASES)}
    directory = root.lookup("etc/selinux")
    contents: set[External] = set()
    left = MAX_FILE_BYTES
    for path, node in directory.walk() if isinstance(directory, Directory) else ():
        content = node.content if isinstance(node, Leaf) else None
        if isinstance(content, External) and path.rpartition(b"/")[2] in names:
            left -= content.size_bytes
            if left >= 0:
                contents.add(content)
    return contents


def find_policy(root: Directory, read_content: ReadContent) -> FileContexts | None:
    """Return the policy that a tree selects, or None if it selects no policy.

    Raises:
        LabelError: the policy is missing, or one of its files is not a regular file.
        FileContextsError: the policy is malformed.
    """
    return read_policy(lambda path: _read(root, path, read_content))


def read_policy(read: Callable[[str], bytes | None]) -> FileContexts | None:
    """Return the policy that a root selects, or None if it selects no policy.

    Args:
        read: Returns the content of a file below the root, or None if there is no such file.

    Raises:
        LabelError: the policy is missing.
        FileContextsError: the policy is malformed.
        Error, OSError: what ``read`` raises.
    """
    config = read(_CONFIG)
    name = None if config is None else _policy_name(config)
    if name is None:
        return None
    prefix = f"etc/selinux/{name}/contexts/files/"
    rules: list[Rule] = []
    for file in _RULES:
        data = read(prefix + file)
        if data is not None:
            rules += parse_file_contexts(data, f"/{prefix}{file}")
        elif file == _RULES[0]:
            raise LabelError(
                f"the image selects the SELinux policy {name!r} but has no /{prefix}{file}",
                hint=f"install the policy, or remove SELINUXTYPE from /{_CONFIG} of the image",
            )
    aliases: dict[bytes, bytes] = {}
    for file in _ALIASES:
        data = read(prefix + file)
        if data is not None:
            aliases |= parse_subs(data, f"/{prefix}{file}")
    return FileContexts(rules, aliases)


def label_tree(root: Directory, policy: FileContexts) -> Directory:
    """Return a copy of the tree with the labels of ``policy``, and no other labels."""
    #: Labels and copies of leaves, by identity of the original.
    seen: dict[int, tuple[bytes | None, Leaf]] = {}

    def labelled(leaf: Leaf, path: bytes) -> Leaf:
        label = policy.lookup(path, _FILE_TYPES[kind_of(leaf.content)])
        first = seen.get(id(leaf))
        # As in composefs-rs, a name is compared with the first name only: if the third name has
        # the label of the second, it still becomes a third file.
        if first is not None and first[0] == label:
            return first[1]
        copy = Leaf(_with_label(leaf.stat, label), leaf.content)
        seen.setdefault(id(leaf), (label, copy))
        return copy

    def enter(directory: Directory, path: bytes) -> tuple[Directory, bytes, Iterator[_Entry]]:
        label = policy.lookup(path, FileType.DIRECTORY)
        copy = Directory(_with_label(directory.stat, label))
        prefix = path if path.endswith(b"/") else path + b"/"
        return copy, prefix, iter(directory.sorted_entries())

    levels = [enter(root, b"/")]
    top = levels[0][0]
    while levels:
        copy, prefix, entries = levels[-1]
        for name, node in entries:
            path = policy.aliases.get(prefix + name, prefix + name)
            if isinstance(node, Leaf):
                copy.entries[name] = labelled(node, path)
                continue
            levels.append(enter(node, path))
            copy.entries[name] = levels[-1][0]
            break
        else:
            levels.pop()
    return top


def _with_label(stat: Stat, label: bytes | None) -> Stat:
    labelled = stat.copy()
    if label is None:
        labelled.xattrs.pop(_XATTR, None)
    else:
        labelled.xattrs[_XATTR] = label
    return labelled


def _policy_name(config: bytes) -> str | None:
    """Return the value of the first SELINUXTYPE line."""
    for line in config.split(b"\n"):
        key, equals, value = line.partition(b"=")
        if equals and key.strip().lower() == b"selinuxtype":
            try:
                return value.strip().decode()
            except UnicodeDecodeError:
                raise LabelError(f"/{_CONFIG}: SELINUXTYPE is not UTF-8") from None
    return None


def _read(root: Directory, path: str, read_content: ReadContent) -> bytes | None:
    """Return the content of a file, or None if the file does not exist."""
    node: Node = root
    walked = ""
    for name in path.split("/"):
        if not isinstance(node, Directory):
            raise LabelError(f"{walked} is not a directory")
        below = node.entries.get(name.encode())
        if below is None:
            return None
        node, walked = below, f"{walked}/{name}"
    if isinstance(node, Directory) or not isinstance(node.content, Inline | External):
        raise LabelError(f"{walked} is not a regular file")
    if node.content.size_bytes > MAX_FILE_BYTES:
        raise LabelError(f"{walked} is larger than {MAX_FILE_BYTES} bytes")
    return read_content(node.content)
