from __future__ import annotations

import pytest

from bootc.deploy.etc.diff import ChangeKind
from bootc.deploy.etc.merge import (
    Choice,
    Conflict,
    ConflictPolicy,
    Merge,
    merge_etc,
)
from bootc.formats.tree import CharDevice, Directory, Fifo, Inline, Leaf, Node, Socket
from support.etctrees import directory, etc, file, link, listing, stat
from support.trees import text_of

KEEP, TAKE = Choice.KEEP, Choice.TAKE

Entry = Node | str | None


def one(node: Entry) -> Directory:
    """Return an ``/etc`` with one entry, or none."""
    return etc() if node is None else etc(x=node)


def merged(
    pristine: Directory, current: Directory, new: Directory, **decisions: Choice
) -> dict[str, str]:
    paths = {path.replace("__", "/").encode(): choice for path, choice in decisions.items()}
    merge = merge_etc(pristine, current, new, decisions=paths)
    assert merge.conflicts == ()
    return listing(merge.tree)


@pytest.mark.parametrize(
    ("pristine", "current", "new", "expected"),
    [
        # Only the image changed: its default.
        ("1", "1", "2", "2"),
        ("1", "1", None, None),
        (None, None, "2", "2"),
        ("1", "1", link("t"), "-> t"),
        ("1", "1", directory(a="2"), "755/"),
        (directory(a="1"), directory(a="1"), "2", "2"),
        (directory(a="1"), directory(a="1"), None, None),
        (directory(), directory(), None, None),
        (None, None, directory(a="1"), "755/"),
        (directory(), directory(), directory(0o700), "700/"),
        # Only the machine did: its version.
        ("1", "2", "1", "2"),
        ("1", None, "1", None),
        (None, "2", None, "2"),
        ("1", link("t"), "1", "-> t"),
        ("1", directory(a="2"), "1", "755/"),
        (directory(a="1"), "2", directory(a="1"), "2"),
        (directory(a="1"), link("t"), directory(a="1"), "-> t"),
        (directory(a="1"), None, directory(a="1"), None),
        (None, directory(a="1"), None, "755/"),
        (directory(), directory(0o700), directory(), "700/"),
        # Both did: the machine's.
        ("1", "2", "3", "2"),
        ("1", "2", None, "2"),
        ("1", None, "3", None),
        (None, "2", "3", "2"),
        ("1", "2", link("t"), "2"),
        ("1", link("t"), "2", "-> t"),
        (link("t"), link("u"), link("v"), "-> u"),
        (directory(), directory(0o700), directory(0o750), "700/"),
        (directory(), directory(0o700), None, "700/"),
        (directory(a="1"), "2", None, "2"),
        (directory(a="1"), None, directory(a="2", b="3"), None),
        (directory(a="1"), None, "2", None),
        ("1", None, directory(a="2"), None),
        # Both did the same.
        ("1", "2", "2", "2"),
        ("1", None, None, None),
        (None, "2", "2", "2"),
        ("1", directory(), directory(), "755/"),
        (directory(a="1"), link("t"), link("t"), "-> t"),
    ],
)
def test_one_entry(pristine: Entry, current: Entry, new: Entry, expected: str | None) -> None:
    assert merged(one(pristine), one(current), one(new)).get("x") == expected


def test_metadata_and_content_of_a_file_are_one_thing() -> None:
    result = merge_etc(etc(a="1"), etc(a=file("1", 0o600)), etc(a="2")).tree.lookup("a")
    assert isinstance(result, Leaf)
    assert (result.content, result.stat.mode) == (Inline(b"1"), 0o600)


def test_directories_merge_entry_by_entry() -> None:
    pristine = etc(d=directory(same="1", mine="1", theirs="1", removed="1", dropped="1"))
    current = etc(d=directory(0o700, same="1", mine="2", theirs="1", dropped="1", added="1"))
    new = etc(d=directory(0o750, same="1", mine="3", theirs="2", removed="2", fresh="1"))
    assert merged(pristine, current, new) == {
        "d": "700/",
        "d/added": "1",
        "d/fresh": "1",
        "d/mine": "2",
        "d/same": "1",
        "d/theirs": "2",
    }


def test_a_directory_the_new_image_lacks_stays_with_what_is_local() -> None:
    pristine = etc(d=directory(a="1", b=directory(c="1", e="1"), f="1"))
    current = etc(d=directory(a="1", b=directory(c="2", e="1"), g="1"))
    assert merged(pristine, current, etc()) == {
        "d": "755/",
        "d/b": "755/",
        "d/b/c": "2",
        "d/g": "1",
    }


def test_a_directory_goes_with_the_image_when_only_something_was_removed_from_it() -> None:
    assert merged(etc(d=directory(a="1", b="1")), etc(d=directory(a="1")), etc()) == {}
    assert merged(etc(d=directory(a="1", b="1")), etc(d=directory(a="1")), etc(d="f")) == {"d": "f"}


def test_a_local_directory_in_place_of_a_pristine_file_keeps_its_content() -> None:
    """Upstream loses the content."""
    current = etc(x=directory(a="1", b=directory(c="2")))
    expected = {"x": "755/", "x/a": "1", "x/b": "755/", "x/b/c": "2"}
    assert merged(etc(x="1"), current, etc()) == expected
    assert merged(etc(x="1"), current, etc(x="1")) == expected


def test_directories_made_on_both_sides_merge() -> None:
    for pristine in (etc(), etc(x="1")):
        current, new = etc(x=directory(0o700, a="1", b="1")), etc(x=directory(a="2", c="2"))
        assert merged(pristine, current, new) == {
            "x": "700/",
            "x/a": "1",
            "x/b": "1",
            "x/c": "2",
        }


def test_what_was_removed_stays_removed_with_later_additions() -> None:
    pristine = etc(d=directory(a="1"))
    assert merged(pristine, etc(), etc(d=directory(a="2", b="new"))) == {}
    emptied = merged(pristine, etc(d=directory()), etc(d=directory(a="2", b="new")))
    assert emptied == {"d": "755/", "d/b": "new"}


def test_special_files_are_kept_and_merged_like_others() -> None:
    current = etc(p=file(Fifo()), s=file(Socket()), c=file(CharDevice(259)))
    assert merged(etc(), current, etc()) == {"c": "CharDevice", "p": "Fifo", "s": "Socket"}
    assert merged(current, current, etc(p="1")) == {"p": "1"}
    assert merged(current, etc(p=file(Fifo())), current) == {"p": "Fifo"}


def test_attributes_of_any_size_travel() -> None:
    local = {"security__capability": b"c" * 20, "user__large": b"v" * 40_000, "security__ima": b""}
    current = etc(a=file("1", 0o6755, **local))
    result = merge_etc(etc(a=file("1", 0o755)), current, etc(a=file("2", 0o755))).tree
    assert text_of(result) == text_of(current)


def test_the_stamp_is_in_no_result() -> None:
    stamped = etc(_updated="1", a="1")
    for sides in ((stamped, etc(), etc()), (etc(), stamped, etc()), (etc(), etc(), stamped)):
        assert ".updated" not in listing(merge_etc(*sides).tree)
    assert merge_etc(etc(), etc(_updated="1"), etc()).changes == ()
    assert merged(etc(), etc(), etc(d=directory(_updated="1")))["d/.updated"] == "1"


def test_the_metadata_of_etc_itself_merges() -> None:
    top, local, fresh = etc(), etc(), etc()
    local.stat, fresh.stat = stat(0o751), stat(0o700)
    assert merge_etc(top, local, fresh).tree.stat.mode == 0o751
    assert merge_etc(top, top, fresh).tree.stat.mode == 0o700


def test_changes_are_the_local_ones() -> None:
    merge = merge_etc(etc(a="1", b="1"), etc(b="2", c="1"), etc(a="9", d="1"))
    assert [(change.kind, change.path) for change in merge.changes] == [
        (ChangeKind.ADDED, b"c"),
        (ChangeKind.MODIFIED, b"b"),
        (ChangeKind.REMOVED, b"a"),
    ]


CLASHES = [
    # Local directory, new file.
    (directory(a="1"), directory(a="2"), "3", "Directory"),
    (directory(), directory(0o700), "3", "Directory"),
    (None, directory(), "3", "Directory"),
    ("1", directory(), "3", "Directory"),
    (directory(), directory(a="1"), link("t"), "Directory"),
    # Local file, new directory.
    ("1", "2", directory(), "File"),
    (None, "2", directory(), "File"),
    (directory(a="1"), link("t"), directory(a="2"), "File"),
    (directory(), "2", directory(0o700), "File"),
    (link("t"), file(Fifo()), directory(), "File"),
]
REASONS = {
    "Directory": "Directory 'x' now defaults to a file in new etc",
    "File": "File 'x' now defaults to a directory in new etc",
}


@pytest.mark.parametrize(("pristine", "current", "new", "kind"), CLASHES)
def test_conflicts(pristine: Entry, current: Entry, new: Entry, kind: str) -> None:
    sides = one(pristine), one(current), one(new)
    merge = merge_etc(*sides)
    assert merge.conflicts == merge.unresolved == (Conflict(b"x", REASONS[kind], None),)
    assert listing(merge.tree) == listing(sides[1])

    for policy, choice, wins in (
        (ConflictPolicy.KEEP_LOCAL, KEEP, sides[1]),
        (ConflictPolicy.TAKE_NEW, TAKE, sides[2]),
    ):
        settled = merge_etc(*sides, policy=policy)
        assert settled.conflicts == (Conflict(b"x", REASONS[kind], choice),)
        assert settled.unresolved == ()
        assert text_of(settled.tree) == text_of(wins)
        decided = merge_etc(*sides, decisions={b"x": choice})
        assert decided.conflicts == ()
        assert text_of(decided.tree) == text_of(wins)


def test_conflicts_in_order_and_the_rest_is_merged() -> None:
    pristine = etc(z="1", d=directory(y="1", n="1"), a="1", m="1")
    current = etc(z="2", d=directory(y="2", n="1"), a="2", m="2")
    new = etc(z=directory(), d=directory(y=directory(), n="3"), a=directory(), m="3")
    merge = merge_etc(pristine, current, new, policy=ConflictPolicy.TAKE_NEW)
    assert [conflict.path for conflict in merge.conflicts] == [b"a", b"d/y", b"z"]
    assert listing(merge.tree) == {
        "a": "755/",
        "d": "755/",
        "d/n": "3",
        "d/y": "755/",
        "m": "2",
        "z": "755/",
    }


def test_a_reason_is_one_line() -> None:
    merge = merge_etc(etc({"a\nb": "1"}), etc({"a\nb": "2"}), etc({"a\nb": directory()}))
    assert merge.conflicts[0].reason == "File 'a\\nb' now defaults to a directory in new etc"


@pytest.mark.parametrize("pristine", [None, "1", "2", "3", directory(a="1")])
@pytest.mark.parametrize("current", [None, "2", directory(a="2", b="1")])
@pytest.mark.parametrize("new", [None, "3", directory(a="3", c="1")])
def test_a_decision_makes_one_side_win_wholly(pristine: Entry, current: Entry, new: Entry) -> None:
    sides = one(pristine), one(current), one(new)
    assert merged(*sides, x=KEEP) == listing(sides[1])
    assert merged(*sides, x=TAKE) == listing(sides[2])
    everything = {b"": TAKE}
    assert listing(merge_etc(*sides, decisions=everything).tree) == listing(sides[2])


def test_the_last_decision_on_the_way_counts() -> None:
    pristine = etc(d=directory(a="1", b="1", c=directory(e="1")))
    current = etc(d=directory(a="2", b="2", c=directory(e="2"), l="2"))
    new = etc(d=directory(a="3", b="3", c=directory(e="3"), f="3"))
    assert merged(pristine, current, new, d=TAKE, d__a=KEEP, d__c=KEEP) == {
        "d": "755/",
        "d/a": "2",
        "d/b": "3",
        "d/c": "755/",
        "d/c/e": "2",
        "d/f": "3",
    }
    assert merged(pristine, current, new, d=KEEP, d__b=TAKE, d__f=TAKE, d__l=TAKE) == {
        "d": "755/",
        "d/a": "2",
        "d/b": "3",
        "d/c": "755/",
        "d/c/e": "2",
        "d/f": "3",
    }


def test_a_decision_below_a_removed_directory_brings_its_path_back() -> None:
    pristine, new = etc(d=directory(a="1")), etc(d=directory(0o750, a="2", b="2"))
    assert merged(pristine, etc(), new, d__b=TAKE) == {"d": "750/", "d/b": "2"}
    assert merged(pristine, etc(), new, d=KEEP, d__a=TAKE) == {"d": "750/", "d/a": "2"}


def test_a_decision_below_a_directory_the_new_image_lacks() -> None:
    pristine, current = etc(d=directory(a="1", b="1")), etc(d=directory(0o700, a="1", b="2"))
    assert merged(pristine, current, etc(), d=TAKE, d__a=KEEP) == {"d": "700/", "d/a": "1"}
    assert merged(pristine, current, etc(), d__a=KEEP, d__b=TAKE) == {"d": "700/", "d/a": "1"}


def test_what_a_path_is_the_decision_about_it_says() -> None:
    pristine, current, new = etc(x="1"), etc(x=directory(a="1")), etc(x="3")
    assert merged(pristine, current, new, x=TAKE, x__a=KEEP) == {"x": "3"}
    assert merged(pristine, etc(x="2"), etc(x=directory(a="3")), x=KEEP, x__a=TAKE) == {"x": "2"}


def test_a_decision_about_nothing_does_nothing() -> None:
    assert merged(etc(a="1"), etc(a="2"), etc(a="3"), no__such=TAKE, a__b=TAKE) == {"a": "2"}


def linked(merge: Merge, *paths: str) -> bool:
    return len({id(merge.tree.lookup(path)) for path in paths}) == 1


def test_hard_links_of_a_changed_file_stay() -> None:
    before, now = file("1"), file("2")
    merge = merge_etc(
        etc(a=before, b=before), etc(a=now, b=now, d=directory(c=now)), etc(a="3", b="3")
    )
    assert linked(merge, "a", "b", "d/c")


def test_a_local_hard_link_to_an_untouched_file_stays_while_the_default_does() -> None:
    now = file("1")
    merge = merge_etc(etc(a="1"), etc(a=now, b=now), etc(a="1"))
    assert linked(merge, "a", "b")
    merge = merge_etc(etc(a="1"), etc(a=now, b=now), etc(a="2"))
    assert listing(merge.tree) == {"a": "2", "b": "1"}


def test_hard_links_of_untouched_files_are_as_in_the_new_image() -> None:
    before, now, fresh = file("1"), file("1"), file("1")
    parted = merge_etc(etc(a=before, b=before), etc(a=now, b=now), etc(a="1", b="1"))
    assert not linked(parted, "a", "b")
    joined = merge_etc(etc(a="1", b="1"), etc(a="1", b="1"), etc(a=fresh, b=fresh))
    assert linked(joined, "a", "b")


def test_a_broken_hard_link_stays_broken() -> None:
    both = file("1")
    assert not linked(
        merge_etc(etc(a=both, b=both), etc(a="1", b="1"), etc(a=both, b=both)), "a", "b"
    )


def test_inputs_are_not_changed() -> None:
    trees = (
        etc(_updated="", d=directory(a="1", r="1"), x="1"),
        etc(_updated="", d=directory(0o700, a="2", l="1"), x=directory(q="1")),
        etc(_updated="", d=directory(a="3", n="1"), x="2"),
    )
    before = [text_of(tree) for tree in trees]
    for policy in ConflictPolicy:
        merge_etc(*trees, policy=policy, decisions={b"d/a": TAKE})
    assert [text_of(tree) for tree in trees] == before


def test_nested_deeper_than_python_calls() -> None:
    def deep(content: str) -> Directory:
        tree = etc(f=content)
        for _ in range(3000):
            tree = etc(d=tree)
        return tree

    merge = merge_etc(deep("1"), deep("2"), deep("1"))
    node: Node | None = merge.tree
    for _ in range(3000):
        assert isinstance(node, Directory)
        node = node.entries[b"d"]
    assert isinstance(node, Directory)
    assert listing(node) == {"f": "2"}
