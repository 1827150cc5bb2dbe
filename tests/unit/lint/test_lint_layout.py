from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.lint import layout
from support.roots import Root, base

REFERENCE = "usr/share/doc/bootc/baseimage/base"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return base(tmp_path / "root")


@pytest.mark.parametrize(
    "check",
    [
        layout.api_directories,
        layout.baseimage_root,
        layout.var_run,
        layout.etc_usretc,
        layout.buildah_injected,
        layout.nonempty_boot,
        layout.usr_merge,
    ],
    ids=lambda check: check.__name__,
)
def test_a_base_image_passes(root: Root, check: object) -> None:
    assert root.found(check) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "run", "tmp"])
def test_api_directories(root: Root, name: str) -> None:
    root.remove(name)
    assert root.found(layout.api_directories) == f"Missing API filesystem base directory: /{name}"
    expected = f"Expected directory for API filesystem base directory: /{name}"
    root.link(name, "usr")
    assert root.found(layout.api_directories) == expected
    root.remove(name).file(name)
    assert root.found(layout.api_directories) == expected


def test_the_first_api_directory_is_named(root: Root) -> None:
    root.remove("var/log").remove("var").remove("sys").remove("tmp").file("tmp")
    assert root.found(layout.api_directories) == "Missing API filesystem base directory: /sys"
    root.directory("sys")
    assert root.found(layout.api_directories) == (
        "Expected directory for API filesystem base directory: /tmp"
    )
    root.remove("tmp").directory("tmp")
    assert root.found(layout.api_directories) == "Missing API filesystem base directory: /var"


def spoil_sysroot(root: Root) -> None:
    root.remove("sysroot")


def spoil_sysroot_by_file(root: Root) -> None:
    root.remove("sysroot").file("sysroot")


def spoil_link(root: Root) -> None:
    root.remove("ostree")


def spoil_link_by_directory(root: Root) -> None:
    root.remove("ostree").directory("ostree")


def spoil_target(root: Root) -> None:
    root.remove("ostree").link("ostree", "/sysroot/ostree")


def spoil_target_by_bytes(root: Root) -> None:
    root.remove("ostree").link("ostree", os.fsdecode(b'a\xff"'))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_sysroot, "Missing /sysroot"),
        (spoil_sysroot_by_file, "Expected a directory for /sysroot"),
        (spoil_link, "Missing ostree -> sysroot/ostree link"),
        (spoil_link_by_directory, "/ostree should be a symlink"),
        (spoil_target, 'Expected /ostree -> sysroot/ostree, not "/sysroot/ostree"'),
        (spoil_target_by_bytes, 'Expected /ostree -> sysroot/ostree, not "a\\xFF\\""'),
    ],
)
def test_sysroot_and_ostree(tmp_path: Path, root: Root, spoil: object, text: str) -> None:
    reference = base(root.path / REFERENCE)
    assert root.found(layout.baseimage_root) is None
    spoil(reference)  # type: ignore[operator]
    assert root.found(layout.baseimage_root) == text
    other = base(tmp_path / "other")
    spoil(other)  # type: ignore[operator]
    assert other.found(layout.baseimage_root) == text


def test_var_run(root: Root) -> None:
    root.link("var/run", "/run")
    assert root.found(layout.var_run) is None
    root.remove("var/run").link("var/run", "nowhere")
    assert root.found(layout.var_run) is None
    root.remove("var/run").directory("var/run")
    assert root.found(layout.var_run) == "Not a symlink: var/run"


def test_two_etcs(root: Root) -> None:
    root.link("usr/etc", "nowhere")
    assert root.found(layout.etc_usretc) == (
        "Found /usr/etc - this is a bootc implementation detail and not supported "
        "to use in containers"
    )
    root.remove("etc")
    assert root.found(layout.etc_usretc) is None


def test_what_an_engine_leaves(root: Root) -> None:
    root.file("etc/hostname", "a\n").link("etc/resolv.conf", "../run/x")
    assert root.found(layout.buildah_injected) is None
    root.remove("etc/resolv.conf").file("etc/resolv.conf")
    text = "is an empty file; this may have been synthesized by a container runtime."
    assert root.found(layout.buildah_injected) == f"/etc/resolv.conf {text}"
    root.file("etc/hostname")
    assert root.found(layout.buildah_injected) == f"/etc/hostname {text}"


def test_boot(root: Root) -> None:
    root.file("boot/EFI/Linux/x.efi")
    assert root.found(layout.nonempty_boot) is None
    root.file("boot/vmlinuz-6.12+deb13").file("boot/it's").directory("boot/grub", "boot/a b")
    assert root.found(layout.nonempty_boot) == (
        "Found non-empty /boot:\n  'a b'\n  grub\n  \"it's\"\n  vmlinuz-6.12+deb13\n"
    )


def test_no_boot(root: Root) -> None:
    root.remove("boot")
    assert root.found(layout.nonempty_boot) == "Missing /boot directory"
    root.file("boot")
    assert root.found(layout.nonempty_boot) == "Missing /boot directory"


def test_merged_usr(root: Root) -> None:
    root.directory("usr/bin", "usr/lib", "usr/sbin").link("bin", "usr/bin").link("lib", "usr/lib")
    assert root.found(layout.usr_merge) is None
    root.remove("bin").file("bin/tool").directory("sbin")
    assert root.found(layout.usr_merge) == (
        "Found directories that should be links to those below /usr:\n  /bin\n  /sbin\n"
    )
