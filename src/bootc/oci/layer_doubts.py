"""What programs that unpack layers do differently: directories that no entry makes, and hard links.

:func:`bootc.oci.flatten.apply_layer` fills a :class:`LayerDoubts` while it puts layers together.
An unpacked image does not show these things any more, so only who reads layers can find them:

- A directory that an entry needs as its parent and that no layer has listed before. Container
  engines make it with the mode and the time of the moment. bootc makes it with mode 0755 and time
  0. composefs-rs refuses the layer (0.9, ``composefs-oci/src/image.rs``).
- A hard link to a file of a lower layer. Engines unpack each layer on its own, and find no file.
- An entry whose path leads through a symlink. bootc and some engines follow it inside the image.
  Engines that unpack each layer on its own make a directory in its place. composefs-rs refuses it.
- A name of a file with several names that a later layer replaced with a copy. The layers have two
  files then. A tree on a disk that has one file gives another digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from bootc.formats.tree import Directory, External, Leaf
from bootc.printable import listed

#: How many names a sentence shows.
_SHOWN = 3
#: More names of a kind are not kept.
_MAX_NAMES = 10_000
_Value = TypeVar("_Value")


@dataclass(slots=True)
class LayerDoubts:
    """The doubtful entries of the layers of one image, in their order.

    Attributes:
        implicit: Directories that a layer needs and that were not listed before.
        foreign: Hard links to a file that their own layer does not have.
        followed: Entries whose paths lead through symlinks, with their paths without these.
    """

    implicit: dict[bytes, None] = field(default_factory=dict)
    foreign: dict[bytes, None] = field(default_factory=dict)
    followed: dict[bytes, bytes] = field(default_factory=dict)
    _replaced: dict[bytes, Leaf] = field(default_factory=dict)
    #: The files of the present layer. The references keep an identity from being used twice.
    _own: dict[int, Leaf] = field(default_factory=dict)

    def begin_layer(self) -> None:
        """Forget the files of the layer before."""
        self._own.clear()

    def made(self, path: bytes) -> None:
        """Note that a layer needs a directory that is not there."""
        _keep(self.implicit, path, None)

    def follow(self, path: bytes, resolved: bytes) -> None:
        """Note an entry whose path leads through a symlink."""
        _keep(self.followed, path, resolved)

    def put(self, path: bytes, present: Directory | Leaf | None, leaf: Leaf) -> None:
        """Note a file of a layer.

        Args:
            path: The path of the file.
            present: What has the name before.
            leaf: The file.
        """
        if (
            isinstance(present, Leaf)
            and isinstance(leaf.content, External)
            and present.content == leaf.content
            and id(present) not in self._own
        ):
            _keep(self._replaced, path, present)
        self._own[id(leaf)] = leaf

    def link(self, path: bytes, target: Leaf) -> None:
        """Note a hard link."""
        if id(target) not in self._own:
            _keep(self.foreign, path, None)

    def lost_links(self, root: Directory) -> dict[bytes, bytes]:
        """Return names that became copies, each with another name that the old file still has.

        Args:
            root: The tree of all layers.
        """
        old = {id(leaf): path for path, leaf in self._replaced.items()}
        found: dict[bytes, bytes] = {}
        for other, node in root.walk() if old else ():
            path = old.get(id(node))
            if path is not None and isinstance(root.lookup(path), Leaf):
                found.setdefault(path, other.lstrip(b"/"))
        return found

    def sentences(self, root: Directory) -> Iterator[str]:
        """Yield what to tell the user, one sentence for each kind.

        Args:
            root: The tree of all layers.
        """
        if self.implicit:
            yield (
                f"the layers use directories before they list them: {_names(self.implicit)}. "
                "Other programs refuse that, or give them another mode and time; "
                "list parent directories first"
            )
        if self.foreign:
            yield (
                f"hard links lead to files of lower layers: {_names(self.foreign)}. "
                "Container engines cannot unpack them; put both names into one layer"
            )
        if self.followed:
            ways = [f"{_text(path)} (to {_text(to)})" for path, to in self.followed.items()]
            yield (
                f"the layers name files through symbolic links: {listed(ways, _SHOWN)}. "
                "Some programs replace the link with a directory, others refuse the layer; "
                "use the paths that the links lead to"
            )
        if lost := self.lost_links(root):
            pairs = [f"{_text(path)} (as {_text(other)})" for path, other in lost.items()]
            yield (
                f"a later layer replaced hard links with copies: {listed(pairs, _SHOWN)}. "
                "A tree on a disk that still has the links gives another digest; "
                "change the file in the layer that it comes from"
            )


def _keep(names: dict[bytes, _Value], path: bytes, value: _Value) -> None:
    if len(names) < _MAX_NAMES:
        names.setdefault(path, value)


def _names(paths: Iterable[bytes]) -> str:
    return listed((_text(path) for path in paths), _SHOWN)


def _text(path: bytes) -> str:
    return "/" + path.decode("utf-8", "surrogateescape")
