from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bootc.boot.menu import read_menu
from bootc.boot.menu_compose import compose_menu
from bootc.boot.menu_read import OLD_MARK
from bootc.boot.menu_write import (
    NotStaged,
    commit_staged,
    discard_staged,
    remove_entry,
    write_staged,
)
from bootc.boot.scheme import BootDirs, Scheme
from bootc.formats.digest import Digest
from bootc.fs import atomic
from bootc.fs.dir import Dir
from support.bootdirs import (
    GRUB,
    GRUB_UKI,
    SCHEMES,
    SYSTEMD,
    deployment,
    item_of,
    open_boot,
    scheme_name,
)
from support.failing import dies, failing

WINDOWS = "version 1\nefi /EFI/Microsoft/x.efi\n"
GRUB_WINDOWS = 'menuentry "Windows" {\nchainloader /EFI/Microsoft/x.efi\n}\n'
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
#: One of each way to replace a menu.
each_kind = pytest.mark.parametrize("scheme", [SYSTEMD, GRUB_UKI], ids=scheme_name)


def stage(dirs: BootDirs, *numbers: int) -> None:
    write_staged(dirs, compose_menu(dirs.scheme, [item_of(dirs.scheme, n) for n in numbers]))


def commit(dirs: BootDirs, first: int = 3) -> bool:
    return commit_staged(dirs, deployment(first))


def live(dirs: BootDirs) -> tuple[Digest, ...]:
    return read_menu(dirs, staged=False).deployments


def staged(dirs: BootDirs) -> tuple[Digest, ...]:
    return read_menu(dirs, staged=True).deployments


def d(*numbers: int) -> tuple[Digest, ...]:
    return tuple(deployment(n) for n in numbers)


def add_foreign(dirs: BootDirs, name: str = "Windows", text: str | None = None) -> None:
    """Let somebody else add an entry to the live menu."""
    if dirs.scheme.menu_is_file:
        path = Path(dirs.menu.path, dirs.scheme.entries)
        path.write_text(path.read_text() + (text or GRUB_WINDOWS.replace("Windows", name, 1)))
    else:
        Path(dirs.menu.path, dirs.scheme.entries, f"{name}.conf").write_text(text or WINDOWS)


def foreign(dirs: BootDirs) -> set[str]:
    names = read_menu(dirs, staged=False).foreign
    return {name.removesuffix(".conf") for name in names}


@contextmanager
def machine(path: Path, scheme: Scheme) -> Iterator[BootDirs]:
    """Open a machine that boots 1 and could boot 2, and has a foreign entry."""
    path.mkdir()
    with open_boot(path, scheme) as dirs:
        stage(dirs, 1, 2)
        assert commit(dirs, 1)
        add_foreign(dirs)
        yield dirs


def everything_in(dirs: BootDirs) -> set[str]:
    root = Path(dirs.menu.path)
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@every_scheme
def test_a_menu_takes_the_place_of_another(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path / "m", scheme) as dirs:
        stage(dirs, 3, 1, 2)
        assert (live(dirs), staged(dirs)) == (d(1, 2), d(3, 1, 2))
        assert commit(dirs)
        assert (live(dirs), staged(dirs)) == (d(3, 1, 2), ())
        assert foreign(dirs) == {"Windows"}
        assert not dirs.menu.exists(scheme.staged)
        # Once more changes nothing.
        before = everything_in(dirs)
        assert not commit(dirs)
        assert live(dirs) == d(3, 1, 2)
        assert everything_in(dirs) == before


@every_scheme
def test_a_newer_menu_replaces_the_staged_one_wholly(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path / "m", scheme) as dirs:
        stage(dirs, 3, 4, 5, 1)
        stage(dirs, 6)
        assert staged(dirs) == d(6)
        commit(dirs, 6)
        assert live(dirs) == d(6)


@every_scheme
def test_a_discarded_menu(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path / "m", scheme) as dirs:
        before = everything_in(dirs)
        discard_staged(dirs)
        stage(dirs, 3)
        discard_staged(dirs)
        assert everything_in(dirs) == before
        with pytest.raises(NotStaged, match=r"staged does not boot deployment 0303"):
            commit(dirs)
        assert not commit(dirs, 1)
        assert live(dirs) == d(1, 2)


@each_kind
def test_what_others_do_between_staging_and_commit(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path / "m", scheme) as dirs:
        add_foreign(dirs, "Gone")
        stage(dirs, 3)
        if scheme.menu_is_file:
            path = Path(dirs.menu.path, scheme.entries)
            path.write_text(path.read_text().replace('"Gone"', '"New"').replace("/x.efi", "/y.efi"))
        else:
            entries = Path(dirs.menu.path, scheme.entries)
            (entries / "Gone.conf").unlink()
            add_foreign(dirs, "New")
            add_foreign(dirs, text=WINDOWS.replace("x.efi", "y.efi"))
        commit(dirs)
        assert live(dirs) == d(3)
        assert foreign(dirs) == {"Windows", "New"}
        content = Path(dirs.menu.path, scheme.entries)
        text = (
            content.read_text() if scheme.menu_is_file else (content / "Windows.conf").read_text()
        )
        assert "/EFI/Microsoft/y.efi" in text


def test_foreign_things_of_all_kinds_come_along(tmp_path: Path) -> None:
    with machine(tmp_path / "m", SYSTEMD) as dirs:
        entries = Path(dirs.menu.path, SYSTEMD.entries)
        (entries / "directory/below").mkdir(parents=True)
        (entries / "directory/below/file").write_text("x")
        (entries / "link").symlink_to("elsewhere")
        (entries / "large").write_bytes(bytes(3 << 20))
        stage(dirs, 3)
        (entries / "directory/below/file").write_text("y")
        commit(dirs)
        assert (entries / "directory/below/file").read_text() == "y"
        assert (entries / "link").readlink() == Path("elsewhere")
        assert (entries / "large").stat().st_size == 3 << 20
        assert live(dirs) == d(3)


@each_kind
def test_a_cut_at_any_change(tmp_path: Path, scheme: Scheme) -> None:
    """The menu is the old one or the new; a repeat completes, and one more changes nothing."""
    at = 1
    cut = True
    while cut:
        with machine(tmp_path / f"s{at}", scheme) as dirs:
            stage(dirs, 9, 1)

            def staging() -> None:
                stage(dirs, 3, 1)

            cut = dies(at, staging)
            assert live(dirs) == d(1, 2)
            assert foreign(dirs) == {"Windows"}
            # Which menu that is the announcement says, and it is withdrawn meanwhile.
            assert set(staged(dirs)) <= {*d(9, 3, 1)}
            stage(dirs, 3, 1)
            commit(dirs)
            assert live(dirs) == d(3, 1)
        at += 1
    assert at > 4
    at = 1
    cut = True
    while cut:
        with machine(tmp_path / f"c{at}", scheme) as dirs:
            stage(dirs, 3, 1)
            add_foreign(dirs, "New")
            cut = dies(at, lambda: commit(dirs))
            assert live(dirs) in (d(1, 2), d(3, 1))
            committed = live(dirs) == d(3, 1)
            assert commit(dirs) is not committed
            assert (live(dirs), staged(dirs)) == (d(3, 1), ())
            assert foreign(dirs) == {"Windows", "New"}
            assert not commit(dirs)
            assert live(dirs) == d(3, 1)
            assert not any("staged" in name for name in everything_in(dirs))
        at += 1
    assert at > 3


@each_kind
def test_a_cut_in_the_commit_and_then_another_update(tmp_path: Path, scheme: Scheme) -> None:
    at = 1
    cut = True
    while cut:
        with machine(tmp_path / f"m{at}", scheme) as dirs:
            stage(dirs, 3, 1)
            cut = dies(at, lambda: commit(dirs))
            stage(dirs, 4, 3)
            assert staged(dirs) == d(4, 3)
            assert commit(dirs, 4)
            assert live(dirs) == d(4, 3)
        at += 1


@each_kind
def test_a_failure_while_staging_leaves_nothing_staged(tmp_path: Path, scheme: Scheme) -> None:
    at = 1
    failed = True
    while failed:
        with machine(tmp_path / f"m{at}", scheme) as dirs:
            with failing(at, errno.ENOSPC) as changes, suppress(OSError):
                stage(dirs, 3, 1)
            assert staged(dirs) == (() if changes.failed else d(3, 1))
            failed = changes.failed
            assert live(dirs) == d(1, 2)
        at += 1


def test_what_power_cuts_leave_of_a_file_does_not_add_up(tmp_path: Path) -> None:
    with machine(tmp_path / "m", GRUB_UKI) as dirs:
        directory, item = Path(dirs.menu.path, "grub2"), read_menu(dirs, staged=False).items[1]

        def work() -> None:
            stage(dirs, 3, 1)
            remove_entry(dirs, item)

        at, left = 1, set()
        while dies(at, work):
            left |= {path.name for path in directory.iterdir()}
            at += 1
        assert left == {
            "user.cfg",
            "user.cfg.staged",
            ".tmp-file-user.cfg",
            ".tmp-file-user.cfg.staged",
        }
        assert {path.name for path in directory.iterdir()} == {"user.cfg", "user.cfg.staged"}


def test_the_menu_of_before_may_stay_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with machine(tmp_path / "m", SYSTEMD) as dirs:
        stage(dirs, 3, 1)
        with failing(4, errno.EIO) as changes:
            assert commit(dirs)
        assert changes.failed
        assert "the old boot menu remains for now" in caplog.text
        assert (live(dirs), staged(dirs)) == (d(3, 1), d(1, 2))
        assert dirs.menu.exists(SYSTEMD.staged)
        assert not commit(dirs)
        assert not dirs.menu.exists(SYSTEMD.staged)


@each_kind
def test_another_menu_than_expected_is_not_committed(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path / "m", scheme) as dirs:
        stage(dirs, 4, 3)
        with pytest.raises(NotStaged, match=r"staged does not boot deployment 0303"):
            commit(dirs)
        assert (live(dirs), staged(dirs)) == (d(1, 2), d(4, 3))


@each_kind
def test_what_another_program_exchanged_is_not_exchanged_back(
    tmp_path: Path, scheme: Scheme
) -> None:
    with machine(tmp_path / "m", scheme) as dirs:
        stage(dirs, 3, 1)
        above = Path(dirs.menu.path, scheme.entries).parent
        with Dir.open(above) as parent:
            name = Path(scheme.entries).name
            atomic.exchange(parent, name, f"{name}.staged")
        assert (live(dirs), staged(dirs)) == (d(3, 1), d(1, 2))
        assert not commit(dirs)
        assert (live(dirs), staged(dirs)) == (d(3, 1), ())


def test_a_mark_of_earlier_versions_means_nothing_and_goes(tmp_path: Path) -> None:
    with machine(tmp_path / "m", SYSTEMD) as dirs:
        # Upstream's exchange has brought one mark into the live menu.
        Path(dirs.menu.path, SYSTEMD.entries, OLD_MARK).touch()
        assert live(dirs) == d(1, 2)
        stage(dirs, 3, 1)
        assert staged(dirs) == d(3, 1)
        assert not dirs.menu.exists(f"{SYSTEMD.staged}/{OLD_MARK}")
        Path(dirs.menu.path, SYSTEMD.staged, OLD_MARK).touch()
        assert commit(dirs)
        assert (live(dirs), staged(dirs)) == (d(3, 1), ())
        assert not any(OLD_MARK in name for name in everything_in(dirs))


def test_a_damaged_file_is_not_committed(tmp_path: Path) -> None:
    with machine(tmp_path / "m", GRUB_UKI) as dirs:
        Path(dirs.menu.path, GRUB_UKI.staged).write_text("menuentry {")
        with pytest.raises(NotStaged, match=r"user\.cfg\.staged does not boot .*: .*menuentry"):
            commit(dirs)
        assert live(dirs) == d(1, 2)


def test_a_damaged_user_cfg_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with machine(tmp_path / "m", GRUB_UKI) as dirs:
        Path(dirs.menu.path, GRUB_UKI.entries).write_text("menuentry {")
        stage(dirs, 3)
        commit(dirs)
        assert live(dirs) == d(3)
        assert "replacing the damaged grub2/user.cfg" in caplog.text


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    with open_boot(tmp_path, SYSTEMD) as dirs:
        os.close(dirs.menu.open_file("loader", os.O_WRONLY | os.O_CREAT))
        with pytest.raises(OSError, match="loader") as caught:
            stage(dirs, 1)
        assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("scheme", [SYSTEMD, GRUB, GRUB_UKI], ids=scheme_name)
def test_one_entry_goes(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path / "m", scheme) as dirs:
        stage(dirs, 3, 1, 2)
        item = read_menu(dirs, staged=False).items[1]
        remove_entry(dirs, item)
        assert live(dirs) == d(1)
        assert staged(dirs) == d(3, 1, 2)
        assert foreign(dirs) == {"Windows"}


def test_an_entry_goes_from_wherever_it_is(tmp_path: Path) -> None:
    with machine(tmp_path / "m", GRUB_UKI) as dirs, open_boot(tmp_path / "m", GRUB) as bls:
        stage(bls, 5, 2)
        commit(bls, 5)
        copy = dirs.menu.read_bytes("loader/entries/bootc_fedora-9998-0.conf")
        Path(dirs.menu.path, "loader/entries/copy.conf").write_bytes(copy)
        menu = read_menu(dirs, staged=False)
        assert menu.deployments == d(1, 2, 5)
        assert len(menu.findings) == 3
        remove_entry(dirs, menu.items[1])
        menu = read_menu(dirs, staged=False)
        assert menu.deployments == d(1, 5)
        assert foreign(dirs) == {"Windows"}
        assert len(menu.findings) == 1
        Path(dirs.menu.path, GRUB_UKI.entries).write_text("menuentry {")
        remove_entry(dirs, menu.items[1])
        assert live(dirs) == ()


def test_the_boot_password_stays(tmp_path: Path) -> None:
    with open_boot(tmp_path, GRUB_UKI) as dirs:
        path = Path(dirs.menu.path, GRUB_UKI.entries)
        path.parent.mkdir()
        path.write_text("GRUB2_PASSWORD=grub.pbkdf2.sha512.1\n")
        for number in (1, 2):
            stage(dirs, number)
            commit(dirs, number)
            assert live(dirs) == d(number)
            assert path.read_text().count("GRUB2_PASSWORD=grub.pbkdf2.sha512.1\n") == 1
        stage(dirs, 1, 2)
        commit(dirs, 1)
        remove_entry(dirs, read_menu(dirs, staged=False).items[1])
        assert path.read_text().startswith("GRUB2_PASSWORD=grub.pbkdf2.sha512.1\n")


def test_an_entry_by_the_second_of_its_digests(tmp_path: Path) -> None:
    """The state of a deployment can have another of its ids than the entry has first."""
    v1, bare = (deployment(n).hex for n in (7, 3))
    with open_boot(tmp_path, SYSTEMD) as dirs:
        stage(dirs, 4, 3)
        entries = Path(dirs.menu.path, dirs.scheme.staged)
        for path in entries.iterdir():
            both = f"composefs.digest=v1-sha512-12:{v1} composefs={bare}"
            path.write_text(path.read_text().replace(f"composefs={bare}", both))
        assert staged(dirs) == d(4, 7)
        commit(dirs, 4)
        item = read_menu(dirs, staged=False).items[1]
        assert item.also == d(3)
        assert item.boots(deployment(3))
        assert not item.boots(deployment(4))
        # Another deployment that could boot the same image keeps its entry.
        twin = Path(dirs.menu.path, dirs.scheme.entries, "bootc_x-1-0.conf")
        other = f"composefs.digest=v1-sha512-12:{deployment(9)} composefs={bare}"
        twin.write_text(f"title x\nversion 0\nlinux /x\ninitrd /y\noptions {other}\n")
        assert live(dirs) == d(4, 7, 9)
        remove_entry(dirs, replace(item, deployment=deployment(3), also=d(7)))
        assert live(dirs) == d(4, 9)

        # Finalizing knows it by that id, too.
        stage(dirs, 3, 4)
        for path in entries.iterdir():
            path.write_text(path.read_text().replace(f"composefs={bare}", both))
        assert staged(dirs)[0] == deployment(7)
        assert commit(dirs, 3)
        assert live(dirs)[0] == deployment(7)
        assert not commit(dirs, 3)
