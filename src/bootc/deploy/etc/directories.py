"""Three directories merged like three versions of ``/etc``.

Source: bootc, "internals dir-diff".
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from bootc.deploy.etc.apply import replace_directory
from bootc.deploy.etc.merge import Merge, merge_etc
from bootc.errors import doing
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import Directory, External, Leaf
from bootc.fs.dir import Dir
from bootc.fs.tree_read import read_tree
from bootc.repository.sink import DigestOnly


def merge_directories(pristine: str, current: str, new: str, *, apply: bool) -> Merge:
    """Merge the changes from one directory to another into a third.

    Args:
        pristine: The original version.
        current: The local version.
        new: The new version.
        apply: Replace the new version by the result, unless there are conflicts.

    Raises:
        ContentChanged: a file changed while it was read. The new version is unchanged.
        OSError: a directory cannot be read, or the new version cannot be replaced.
    """
    with ExitStack() as stack:
        trees: list[Directory] = []
        files: dict[Digest, tuple[Dir, bytes]] = {}
        for path in (pristine, current, new):
            with doing(f"Reading {path}"):
                directory = stack.enter_context(Dir.open(path))
                trees.append(read_tree(directory, DigestOnly(Algorithm.SHA512)))
            for place, node in trees[-1].walk():
                if isinstance(node, Leaf) and isinstance(node.content, External):
                    files[node.content.digest] = directory, place[1:]

        def open_content(content: External) -> int:
            directory, place = files[content.digest]
            return directory.open_file(os.fsdecode(place), os.O_RDONLY | os.O_NONBLOCK)

        merge = merge_etc(*trees)
        if apply and not merge.unresolved:
            above, name = os.path.split(os.path.realpath(new))
            with Dir.open(above) as parent:
                replace_directory(parent, name, f".{name}.bootc-merged", merge.tree, open_content)
    return merge
