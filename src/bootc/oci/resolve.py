"""Paths of entries of layers, resolved in the tree of an image as a kernel would in a chroot.

Symlinks among the parent directories are followed, the last name never is. ``..`` in the target
of a symlink ends at the root of the tree, and an absolute target starts there: no path leads out.
"""

from __future__ import annotations

from collections.abc import Callable

from bootc.formats.tree import Directory, Symlink

#: As many symlinks as the kernel follows in one path.
MAX_LINKS = 40
#: Steps along the targets of symlinks in one layer. Each entry may have 40 long targets.
MAX_LINK_STEPS = 10_000_000

#: Makes a directory that is missing, given its parent and its path; None for a path that ends.
Make = Callable[[Directory, list[bytes]], Directory | None]


class Unresolvable(Exception):
    """A path that does not lead to a directory. The text completes a sentence about an entry."""


class Resolver:
    """Finds directories in one tree."""

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._steps_left = MAX_LINK_STEPS

    def directory(
        self, parts: list[bytes], make: Make
    ) -> tuple[Directory, list[bytes], bool] | None:
        """Follow a path to a directory.

        Args:
            parts: The names on the path.
            make: Called for a directory that is missing.

        Returns:
            The directory, its path without symlinks, and whether there were symlinks; None if
            ``make`` returned None.

        Raises:
            Unresolvable: the path leads to something else, or through too many symlinks.
        """
        above: list[Directory] = []
        node, names = self._root, list[bytes]()
        pending = parts[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name == b"..":
                if above:
                    node = above.pop()
                    names.pop()
                continue
            found = node.entries.get(name)
            if found is None:
                found = make(node, [*names, name])
                if found is None:
                    return None
            if isinstance(found, Directory):
                above.append(node)
                names.append(name)
                node = found
                continue
            if not isinstance(found.content, Symlink):
                raise Unresolvable("its parent is not a directory")
            links += 1
            target = found.content.target
            self._count(target, links)
            pending += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
            if target.startswith(b"/"):
                above.clear()
                names.clear()
                node = self._root
        return node, names, links > 0

    def _count(self, target: bytes, links: int) -> None:
        if links > MAX_LINKS:
            raise Unresolvable(f"its path leads through more than {MAX_LINKS} symbolic links")
        self._steps_left -= 1 + target.count(b"/")
        if self._steps_left < 0:
            raise Unresolvable(
                f"the paths of the layer need more than {MAX_LINK_STEPS} steps along symbolic links"
            )


def nothing_made(parent: Directory, path: list[bytes]) -> None:
    """Make no directory: the path ends where one is missing."""
