"""Laws of the merge of ``/etc``, over trees small enough to meet in every way.

Three names, three contents, two modes, one flag and few levels: any two trees have much in common,
and files, directories and links take each other's places all the time.
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.deploy.etc.diff import ChangeKind, local_changes, same, same_tree
from bootc.deploy.etc.merge import Choice, ConflictPolicy, Merge, merge_etc
from bootc.formats.tree import Directory, Inline, Leaf, Node, Symlink
from support.etctrees import stat
from support.trees import text_of

NAMES = [b"a", b"b", b"c"]
CONTENTS = [Inline(b"1"), Inline(b"2"), Symlink(b"t")]
MODES = [0o755, 0o700]
#: Now and then one is immutable.
PROTECTIONS = [0, 0, 0, 0x10]

Sides = tuple[Directory, Directory, Directory]


@st.composite
def etcs(draw: st.DrawFn) -> Directory:
    top = Directory(stat(draw(st.sampled_from(MODES))))
    directories, leaves = [top], []
    for _ in range(draw(st.integers(0, 8))):
        parent = draw(st.sampled_from(directories))
        name = draw(st.sampled_from(NAMES))
        if name in parent.entries:
            continue
        kind = draw(st.sampled_from(["directory", "leaf", "leaf", "link"]))
        mode = stat(draw(st.sampled_from(MODES)))
        mode.protection = draw(st.sampled_from(PROTECTIONS))
        if kind == "directory":
            below = Directory(mode)
            directories.append(below)
            parent.entries[name] = below
        elif kind == "link" and leaves:
            parent.entries[name] = draw(st.sampled_from(leaves))
        else:
            content = draw(st.sampled_from(CONTENTS))
            leaf = Leaf(stat(0o777) if isinstance(content, Symlink) else mode, content)
            leaves.append(leaf)
            parent.entries[name] = leaf
    return top


SIDES: st.SearchStrategy[Sides] = st.tuples(etcs(), etcs(), etcs())
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
PROFILE = settings(deadline=None, max_examples=80)


def paths(*trees: Directory) -> list[bytes]:
    return sorted({path[1:] for tree in trees for path, _ in tree.walk()} - {b""})


def above(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


def at(tree: Directory, path: bytes) -> Node | None:
    return tree.lookup(path)


@PROFILE
@given(etcs(), etcs())
def test_without_local_changes_the_result_is_new(pristine: Directory, new: Directory) -> None:
    merge = merge_etc(pristine, pristine, new)
    assert (merge.changes, merge.conflicts) == ((), ())
    assert text_of(merge.tree) == text_of(new)


@PROFILE
@given(etcs(), etcs())
def test_without_new_defaults_the_result_is_current(pristine: Directory, now: Directory) -> None:
    merge = merge_etc(pristine, now, pristine)
    assert merge.conflicts == ()
    assert same_tree(merge.tree, now)
    assert text_of(merge.tree) == text_of(now)


@PROFILE
@given(etcs(), etcs())
def test_what_both_sides_changed_alike_is_no_conflict(pristine: Directory, now: Directory) -> None:
    merge = merge_etc(pristine, now, now)
    assert merge.conflicts == ()
    assert text_of(merge.tree) == text_of(now)


@PROFILE
@given(SIDES, st.sampled_from([ConflictPolicy.KEEP_LOCAL, ConflictPolicy.TAKE_NEW]))
def test_merging_again_changes_nothing(sides: Sides, policy: ConflictPolicy) -> None:
    new = sides[2]
    result = merge_etc(*sides, policy=policy).tree
    again = merge_etc(new, result, new)
    assert again.conflicts == ()
    assert text_of(again.tree) == text_of(result)


@PROFILE
@given(SIDES)
def test_no_local_change_is_lost_and_no_other_default_kept(sides: Sides) -> None:
    pristine, now, new = sides
    merge = merge_etc(*sides)
    if merge.conflicts:
        return
    for change in merge.changes:
        if change.kind is ChangeKind.REMOVED:
            assert at(merge.tree, change.path) is None
        else:
            assert same(at(merge.tree, change.path), at(now, change.path))
    for path in paths(pristine, now, new):
        node = at(new, path)
        if isinstance(node, Directory) or not untouched(pristine, now, path):
            continue
        if node is None and isinstance(at(merge.tree, path), Directory):
            assert local_changes(pristine, now)  # something local is in it
            continue
        assert same(at(merge.tree, path), node)


def untouched(pristine: Directory, now: Directory, path: bytes) -> bool:
    """Whether neither the path nor a directory on the way was changed in kind or removed."""
    return same(at(pristine, path), at(now, path)) and all(
        isinstance(at(now, parent), Directory) or same(at(pristine, parent), at(now, parent))
        for parent in above(path)
    )


@PROFILE
@given(SIDES)
def test_a_policy_settles_every_conflict_and_nothing_else(sides: Sides) -> None:
    _, now, new = sides
    unsettled = merge_etc(*sides)
    for policy, side in ((ConflictPolicy.KEEP_LOCAL, now), (ConflictPolicy.TAKE_NEW, new)):
        merge = merge_etc(*sides, policy=policy)
        found = [conflict.path for conflict in merge.conflicts]
        assert found == [conflict.path for conflict in unsettled.conflicts]
        assert merge.unresolved == ()
        for path in found:
            assert same_tree(at(merge.tree, path), at(side, path))
        for path in paths(*sides):
            if not any(path == p or path.startswith(p + b"/") for p in found):
                assert same(at(merge.tree, path), at(unsettled.tree, path))


@PROFILE
@given(SIDES, PATHS, st.sampled_from(Choice))
def test_a_decision_makes_its_side_win(sides: Sides, path: bytes, choice: Choice) -> None:
    _, now, new = sides
    wanted = at(now if choice is Choice.KEEP else new, path)
    merge = merge_etc(*sides, decisions={path: choice})
    parent = merge.tree.lookup(b"/".join(above(path)[-1:]))
    if wanted is None:
        assert at(merge.tree, path) is None
    elif not merge.conflicts and isinstance(parent, Directory):
        assert same_tree(at(merge.tree, path), wanted)


@PROFILE
@given(SIDES, st.dictionaries(PATHS, st.sampled_from(Choice), max_size=4), st.integers())
def test_the_order_of_entries_does_not_matter(
    sides: Sides, decisions: dict[bytes, Choice], seed: int
) -> None:
    before = [text_of(tree) for tree in sides]
    one = merge_etc(*sides, decisions=decisions)
    assert [text_of(tree) for tree in sides] == before, "an input was changed"
    shuffle(random.Random(seed), *sides)
    other = merge_etc(*sides, decisions=decisions)
    assert described(one) == described(other)


def shuffle(source: random.Random, *trees: Directory) -> None:
    for tree in trees:
        for _, node in tree.walk():
            if isinstance(node, Directory):
                entries = sorted(node.entries.items())
                source.shuffle(entries)
                node.entries = dict(entries)


def described(merge: Merge) -> tuple[object, ...]:
    return text_of(merge.tree), merge.changes, merge.conflicts
