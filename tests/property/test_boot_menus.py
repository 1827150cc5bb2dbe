"""Any sequence of menus is read back as it was composed, in the order of the loader.

The orders are modelled here once more, and not by the code under test: that of
systemd-boot by sort key, and GRUB's by names which are compared as RPM compares versions.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from functools import cmp_to_key
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.boot.menu import read_menu
from bootc.boot.menu_compose import NewItem, compose_menu
from bootc.boot.menu_read import Item
from bootc.boot.menu_write import commit_staged, write_staged
from bootc.boot.scheme import BootDirs, Scheme
from bootc.formats.bls import boot_counter, parse_entry, without_counter
from bootc.formats.osrelease import OsRelease
from support.bootdirs import (
    SCHEMES,
    SYSTEMD,
    SYSTEMD_UKI,
    deployment,
    item_of,
    open_boot,
    scheme_name,
)

Files = tuple[tuple[str, bytes], ...]

words = st.text("abAB09.-_~^+/*é ", min_size=1, max_size=8).filter(str.strip)
os_releases = st.builds(
    lambda os_id, version: OsRelease({"ID": os_id.strip(), "VERSION_ID": version.strip()}),
    st.one_of(st.sampled_from(["fedora", "bootc", "opensuse-leap"]), words),
    st.one_of(st.sampled_from(["9", "10", "43-beta", "Rc", "rC", "43~rc1"]), words),
)
#: Each step names the deployments of the next menu; new ones come from these images.
steps = st.lists(
    st.tuples(st.lists(st.integers(0, 13), min_size=1, max_size=13, unique=True), os_releases),
    min_size=1,
    max_size=4,
)


def shown_by_systemd_boot(files: Files) -> list[str]:
    def key(file: tuple[str, bytes]) -> str:
        sort_key = parse_entry(file[1]).sort_key
        assert sort_key is not None
        return sort_key

    assert len({key(file) for file in files}) == len(files), "the order is left to chance"
    return [name for name, _ in sorted(files, key=key)]


def rpm_compare(a: str, b: str) -> int:
    """Compare two versions as RPM does."""
    while a or b:
        a, b = (re.sub(r"^[^A-Za-z0-9~]+", "", text) for text in (a, b))
        if a.startswith("~") or b.startswith("~"):
            if not (a.startswith("~") and b.startswith("~")):
                return -1 if a.startswith("~") else 1
            a, b = a[1:], b[1:]
            continue
        if not a or not b:
            break
        pattern = r"[0-9]+" if a[0].isdigit() else r"[A-Za-z]+"
        head_a, head_b = re.match(pattern, a), re.match(pattern, b)
        assert head_a is not None
        if head_b is None:
            return 1 if a[0].isdigit() else -1
        one: int | str = head_a.group()
        other: int | str = head_b.group()
        if a[0].isdigit():
            one, other = int(one), int(other)
        if one != other:
            return 1 if one > other else -1  # type: ignore[operator]
        a, b = a[head_a.end() :], b[head_b.end() :]
    return (a > "") - (b > "")


def shown_by_grub(files: Files) -> list[str]:
    def parts(name: str) -> tuple[str, str, str]:
        match = re.fullmatch(r"(.*)-([^-]*)-([^-]*)\.conf", name)
        assert match is not None, f"{name} cannot be taken apart"
        return match[1], match[2], match[3]

    def compare(a: str, b: str) -> int:
        results = [rpm_compare(x, y) for x, y in zip(parts(a), parts(b), strict=True)]
        return next((result for result in results if result), 0)

    names = [name for name, _ in files]
    assert all(compare(a, b) for a in names for b in names if a != b), "left to chance"
    by_rpm = sorted(names, key=cmp_to_key(compare), reverse=True)
    # What upstream believes, and other tools.
    assert by_rpm == sorted(names, key=str.encode, reverse=True)
    return by_rpm


def check_names(files: Files) -> None:
    names = [name for name, _ in files]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"bootc_[^-]+-[^-]+-[01]\.conf", name) for name in names)
    assert all(not re.search(r'[^ -~]|["*/:<>?\\|]', name) for name in names)
    assert [name.endswith("-1.conf") for name in names] == [True] + [False] * (len(names) - 1)
    keys = [parse_entry(data).sort_key or "" for _, data in files]
    assert len({key.rpartition("-")[0] for key in keys}) == 1


def shown(scheme: Scheme, files: Files) -> list[str]:
    model: Callable[[Files], list[str]] = (
        shown_by_systemd_boot if scheme in (SYSTEMD, SYSTEMD_UKI) else shown_by_grub
    )
    return model(files)


def next_menu(dirs: BootDirs, numbers: list[int], release: OsRelease) -> list[NewItem | Item]:
    known = {item.deployment: item for item in read_menu(dirs, staged=False).items}
    new = (item_of(dirs.scheme, number, release) for number in numbers)
    return [known.get(item.deployment, item) for item in new]


@pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
@settings(max_examples=40, deadline=None)
@given(steps)
def test_menus_come_back_in_order(
    scheme: Scheme, sequence: list[tuple[list[int], OsRelease]]
) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as path,
        open_boot(Path(path), scheme) as dirs,
    ):
        for numbers, release in sequence:
            order = next_menu(dirs, numbers, release)
            files = compose_menu(scheme, order)
            if not scheme.menu_is_file:
                check_names(files)
                assert shown(scheme, files) == [name for name, _ in files]
            write_staged(dirs, files)
            commit_staged(dirs, order[0].deployment)
            menu = read_menu(dirs, staged=False)
            assert menu.deployments == tuple(item.deployment for item in order)
            assert [item.artifact for item in menu.items] == [item.artifact for item in order]
            assert (menu.foreign, menu.findings) == ((), ())


counters = st.one_of(
    st.just(""),
    st.builds("+{}".format, st.integers(0, 3)),
    st.builds("+{}-{}".format, st.integers(0, 3), st.integers(0, 3)),
)


def recount(entries: Path, data: st.DataObject) -> None:
    """Count, or bless, as systemd-boot and systemd-bless-boot do: by renaming."""
    for path in sorted(entries.glob("*.conf")):
        plain = re.sub(r"(\+[0-9-]+)?\.conf$", "", path.name)
        path.rename(entries / f"{plain}{data.draw(counters)}.conf")


@pytest.mark.parametrize("scheme", [SYSTEMD, SYSTEMD_UKI], ids=scheme_name)
@settings(max_examples=40, deadline=None)
@given(steps, st.data())
def test_counters_lose_and_repeat_no_entry(
    scheme: Scheme, sequence: list[tuple[list[int], OsRelease]], data: st.DataObject
) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as path,
        open_boot(Path(path), scheme) as dirs,
    ):
        entries = Path(dirs.menu.path, scheme.entries)
        for numbers, release in sequence:
            order = next_menu(dirs, numbers, release)
            write_staged(dirs, compose_menu(scheme, order))
            recount(entries, data)
            counted = {
                i.deployment: boot_counter(i.name) for i in read_menu(dirs, staged=False).items
            }
            commit_staged(dirs, order[0].deployment)
            menu = read_menu(dirs, staged=False)
            assert menu.findings == ()
            assert menu.deployments[0] == order[0].deployment
            assert set(menu.deployments) == {item.deployment for item in order}
            for item in menu.items[1:]:
                assert boot_counter(item.name) == counted.get(item.deployment)
            names = {without_counter(item.name).casefold() for item in menu.items}
            assert len(names) == len(list(entries.iterdir())) == len(order)
            recount(entries, data)


lines = st.one_of(
    st.sampled_from(
        [
            b"version 1",
            b"linux /v",
            b"efi /EFI/Linux/bootc/" + b"cd" * 64 + b".efi",
            b"options composefs=" + b"ef" * 64,
            b'menuentry "x" {',
            b"}",
            b"chainloader /EFI/Linux/bootc/bootc_composefs-" + b"cd" * 64 + b".efi",
        ]
    ),
    st.binary(max_size=12),
)
contents = st.lists(lines, max_size=6).map(b"\n".join)
file_names = st.one_of(
    st.sampled_from(["bootc_a-1-1.conf", "BOOTC_b.CONF", "windows.conf", "x", ".conf"]),
    st.text("ab.-_", min_size=1, max_size=5).filter(lambda name: name.strip(".")),
)


@pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
@settings(max_examples=40)
@given(st.dictionaries(file_names, contents, max_size=4))
def test_nothing_in_a_menu_stops_reading_it(scheme: Scheme, found: dict[str, bytes]) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as path,
        open_boot(Path(path), scheme) as dirs,
    ):
        for live in scheme.menus:
            place = Path(dirs.menu.path, live)
            place.parent.mkdir(parents=True, exist_ok=True)
            if live.endswith(".cfg"):
                place.write_bytes(b"\n".join(found.values()))
                continue
            place.mkdir()
            for name, data in found.items():
                (place / name).write_bytes(data)
        menu = read_menu(dirs, staged=False)
        assert len(set(menu.deployments)) == len(menu.items)
        assert all(finding.text and "\n" not in finding.text for finding in menu.findings)
        # Whatever it was, it can be replaced, and what is not ours is still there.
        write_staged(dirs, compose_menu(scheme, [item_of(scheme, 1)]))
        commit_staged(dirs, deployment(1))
        after = read_menu(dirs, staged=False)
        assert item_of(scheme, 1).deployment in after.deployments
        if not scheme.menu_is_file:
            place = Path(dirs.menu.path, scheme.entries)
            for name in found.keys() & menu.foreign:
                assert (place / name).read_bytes() == found[name]
