"""The three-way merge of ``/etc``: how an update changes a machine's configuration.

The inputs are three trees: *pristine*, the ``/etc`` of the booted image; *current*, the
machine's ``/etc``; *new*, the ``/etc`` of the new image. The result is one tree, with the local
changes and the conflicts. Pure: the merge reads and writes nothing, and changes no input.

The laws, for every path:

- A local change wins over a new default. A path that was not changed locally is as in *new*.
  A file counts as one thing: if its mode was changed, its content is kept, too.
- Directories merge entry by entry. Owner, mode and attributes of a directory merge apart from
  its entries.
- A removed path stays removed. This includes everything below a removed directory, also later
  additions of the image: an administrator who removes ``sudoers.d`` does not want the next
  image's rules. The decision to take the path brings it back. If a directory was only emptied,
  new files appear in it.
- A conflict is a path that both sides changed, and that is a directory on one side only. A
  decision or the policy settles it, or it stays unresolved.
- Names that are hard links of one file locally stay linked, as long as all of them have that
  file's content. An unchanged name that gets a new default leaves the group.

A decision makes one side win for a path and everything below it, also if the path is missing on
that side: *take* treats the local state as unchanged, *keep* treats the new image as unchanged.
If there are several decisions on the way to an entry, the last one counts. Only the decision
about a path itself decides whether the path is a directory.

The rules follow bootc's etc-merge, except where that loses data: an unchanged *new* never
conflicts, and a directory in place of a pristine file keeps its entries. The stamp
``.updated`` is in no result.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bootc.deploy.etc.diff import Change, local_changes, same, same_tree, without_stamp
from bootc.formats.tree import Directory, Leaf, Node
from bootc.printable import quoted


class Choice(enum.Enum):
    """Which side wins. ``value`` is the word on the command line and on disk."""

    #: The local version; if it is missing, the path is removed.
    KEEP = "keep"
    #: The new image's version; if it is missing, the path is removed.
    TAKE = "take"


class ConflictPolicy(enum.Enum):
    """How undecided conflicts are resolved. ``value`` is the word on the command line."""

    FAIL = "fail"
    KEEP_LOCAL = "keep-local"
    TAKE_NEW = "take-new"


_RESOLUTIONS = {
    ConflictPolicy.FAIL: None,
    ConflictPolicy.KEEP_LOCAL: Choice.KEEP,
    ConflictPolicy.TAKE_NEW: Choice.TAKE,
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path whose two versions exclude each other; relative to ``/etc``."""

    path: bytes
    #: In upstream's words.
    reason: str
    #: The choice of the policy. None: there is no choice, and the merge must not be applied.
    resolution: Choice | None


@dataclass(frozen=True, slots=True)
class Merge:
    """The result of a merge."""

    #: The merged ``/etc``. It has the local version of paths with an unresolved conflict.
    tree: Directory
    #: What *current* changed; see :func:`~bootc.deploy.etc.diff.local_changes`.
    changes: tuple[Change, ...]
    #: The conflicts that no decision settled, in order of names.
    conflicts: tuple[Conflict, ...]

    @property
    def unresolved(self) -> tuple[Conflict, ...]:
        """The conflicts that forbid applying this."""
        return tuple(conflict for conflict in self.conflicts if conflict.resolution is None)


def merge_etc(
    pristine: Directory,
    current: Directory,
    new: Directory,
    *,
    policy: ConflictPolicy = ConflictPolicy.FAIL,
    decisions: Mapping[bytes, Choice] | None = None,
) -> Merge:
    """Merge three trees.

    Args:
        pristine: ``/etc`` of the image that is booted.
        current: The local ``/etc``.
        new: ``/etc`` of the new image.
        policy: How undecided conflicts are resolved.
        decisions: Which side wins, by path relative to ``/etc``; the empty path is all of it.
    """
    decided = dict(decisions or {})
    sides = _Sides(without_stamp(pristine), without_stamp(current), without_stamp(new))
    tree, conflicts = _merge(sides, decided)
    resolution = _RESOLUTIONS[policy]
    if resolution is not None and conflicts:
        # The policy settles a conflict as a decision would.
        decided.update((path, resolution) for path, _ in conflicts)
        tree, _ = _merge(sides, decided)
    return Merge(
        tree,
        local_changes(pristine, current),
        tuple(Conflict(path, reason, resolution) for path, reason in conflicts),
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    """The nodes of the three trees at one path."""

    pristine: Node | None
    current: Node | None
    new: Node | None

    def decided(self, choice: Choice | None) -> _Sides:
        """Return the sides with the one that a decision declares to be unchanged."""
        match choice:
            case Choice.TAKE:
                return _Sides(self.current, self.current, self.new)
            case Choice.KEEP:
                return _Sides(self.new, self.current, self.new)
            case None:
                return self

    def below(self, name: bytes) -> _Sides:
        """Return the sides one entry below."""
        return _Sides(*(_entry(x, name) for x in (self.pristine, self.current, self.new)))


@dataclass(slots=True)
class _Place:
    """A path, and what the merge has found for the entries below it."""

    path: bytes
    sides: _Sides
    choice: Choice | None
    parent: _Place | None = None
    name: bytes = b""
    entries: dict[bytes, Node] = field(default_factory=dict)


def _merge(
    sides: _Sides, decisions: Mapping[bytes, Choice]
) -> tuple[Directory, list[tuple[bytes, str]]]:
    """Merge with these decisions; return the tree, and the conflicts with their reasons."""
    merger = _Merger(sides)
    places = list(_places(sides, decisions))
    # Lists instead of recursion: names may be nested deeper than Python calls. Backwards,
    # every entry comes before its directory.
    for place in reversed(places[1:]):
        node = merger.result(place)
        if node is not None and place.parent is not None:
            place.parent.entries[place.name] = node
    top = merger.result(places[0])
    assert isinstance(top, Directory)
    return top, merger.conflicts[::-1]


def _places(sides: _Sides, decisions: Mapping[bytes, Choice]) -> Iterator[_Place]:
    """Yield every path that *current* or *new* has, directories before what they hold."""
    choice = decisions.get(b"")
    stack = [_Place(b"", sides.decided(choice), choice)]
    while stack:
        place = stack.pop()
        yield place
        inherited = Choice.KEEP if _removed(place.sides) else place.choice
        for name in sorted(_names(place.sides.current) | _names(place.sides.new), reverse=True):
            path = place.path + b"/" + name if place.path else name
            choice = decisions.get(path, inherited)
            stack.append(_Place(path, place.sides.below(name).decided(choice), choice, place, name))


class _Merger:
    """Decides each path, given what was decided below it."""

    def __init__(self, sides: _Sides) -> None:
        #: Path and reason, last names first.
        self.conflicts: list[tuple[bytes, str]] = []
        self._pristine_links = _links(sides.pristine)
        self._current_links = _links(sides.current)

    def result(self, place: _Place) -> Node | None:
        current, new = place.sides.current, place.sides.new
        if isinstance(current, Directory):
            if isinstance(new, Directory):
                kept = not same(place.sides.pristine, current)
                return Directory(current.stat if kept else new.stat, place.entries)
            return self._directory_or_none(place, current, new)
        if isinstance(current, Leaf):
            return self._leaf(place, current, new)
        if _removed(place.sides):
            # Only decisions bring entries here.
            if isinstance(new, Directory) and place.entries:
                return Directory(new.stat, place.entries)
            return None
        return Directory(new.stat, place.entries) if isinstance(new, Directory) else new

    def _directory_or_none(
        self, place: _Place, current: Directory, new: Leaf | None
    ) -> Node | None:
        """Merge a directory with something else; the entries are those that are local."""
        pristine = place.sides.pristine
        if not place.entries and same(pristine, current):
            return new
        local = Directory(current.stat, place.entries)
        if new is None or same(pristine, new):
            return local
        if place.choice is Choice.TAKE:
            return new
        self._conflict(place, "Directory '{}' now defaults to a file in new etc")
        return local

    def _leaf(self, place: _Place, current: Leaf, new: Node | None) -> Node | None:
        pristine = place.sides.pristine
        if place.choice is Choice.KEEP:
            return current
        if isinstance(new, Directory):
            if same(pristine, current):
                return Directory(new.stat, place.entries)
            if not same_tree(pristine, new):
                self._conflict(place, "File '{}' now defaults to a directory in new etc")
            return current
        if not same(pristine, current):
            return current
        relinked = self._pristine_links.get(place.path) != self._current_links.get(place.path)
        if place.choice is None and relinked and same(current, new):
            return current
        return new

    def _conflict(self, place: _Place, reason: str) -> None:
        # The reason is a line of upstream's, with Rust's escapes (bootc.cli.render.etc).
        self.conflicts.append((place.path, reason.format(quoted(place.path))))


def _removed(sides: _Sides) -> bool:
    return sides.current is None and sides.pristine is not None


def _entry(node: Node | None, name: bytes) -> Node | None:
    return node.entries.get(name) if isinstance(node, Directory) else None


def _names(node: Node | None) -> set[bytes]:
    return set(node.entries) if isinstance(node, Directory) else set()


def _links(tree: Node | None) -> dict[bytes, tuple[bytes, ...]]:
    """Return, for each name of a file that has several, all of them."""
    assert isinstance(tree, Directory)
    names: dict[int, list[bytes]] = {}
    for path, node in tree.walk():
        if isinstance(node, Leaf):
            names.setdefault(id(node), []).append(path[1:])
    return {path: tuple(group) for group in names.values() if len(group) > 1 for path in group}
