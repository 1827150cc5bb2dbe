"""Small ``/etc`` trees, written down briefly and told apart as a merge tells them."""

from __future__ import annotations

from bootc.formats.tree import Content, Directory, Inline, Leaf, Node, Stat, Symlink

#: One second for all: a merge does not look at times, comparing its result does.
MTIME = 1_700_000_000


def stat(mode: int, uid: int = 0, gid: int = 0, **xattrs: bytes) -> Stat:
    names = {name.replace("__", ".").encode(): value for name, value in xattrs.items()}
    return Stat(mode, uid, gid, MTIME, 0, names)


def file(content: str | Content = "", mode: int = 0o644, **xattrs: bytes) -> Leaf:
    if isinstance(content, str):
        content = Inline(content.encode())
    return Leaf(stat(mode, **xattrs), content)


def link(target: str) -> Leaf:
    return Leaf(stat(0o777), Symlink(target.encode()))


def directory(mode: int = 0o755, /, **entries: Node | str) -> Directory:
    return Directory(stat(mode), _entries(entries))


def etc(entries: dict[str, Node | str] | None = None, /, **more: Node | str) -> Directory:
    """Return a tree; a string is a file that contains it, underscores are dots."""
    return Directory(stat(0o755), _entries({**(entries or {}), **more}))


def _entries(entries: dict[str, Node | str]) -> dict[bytes, Node]:
    return {
        name.replace("_", ".").encode(): file(node) if isinstance(node, str) else node
        for name, node in entries.items()
    }


def listing(tree: Directory) -> dict[str, str]:
    """Return what is where: the content of files, ``-> target``, or ``mode/`` of a directory."""
    found = {}
    for path, node in tree.walk():
        if path == b"/":
            continue
        if isinstance(node, Directory):
            text = f"{node.stat.mode:o}/"
        elif isinstance(node.content, Inline):
            text = node.content.data.decode()
        elif isinstance(node.content, Symlink):
            text = f"-> {node.content.target.decode()}"
        else:
            text = type(node.content).__name__
        found[path[1:].decode()] = text
    return found
