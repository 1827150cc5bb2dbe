"""The UKI of an unpacked image: its kernel, its command line, and the run of ukify."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.build.uki import (
    DigestChoice,
    UkiNotBuilt,
    build_uki,
    composed_cmdline,
    output_of,
    shipped_kargs,
    uki_kernel,
)
from bootc.errors import Error, one_line
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Algorithm
from bootc.formats.security_version import SecurityVersion
from bootc.formats.tree import Directory
from bootc.fs.imageroot import ImageRoot
from bootc.fs.process import ToolMissing
from bootc.oci.local import directory_tree
from bootc.oci.trees import image_id_of
from support import pe
from support.roots import KVER, MODULES, Root, bootable

#: A program in the place of ukify: it writes the UKI that a test prepared to ``--output``.
UKIFY = """#!/bin/sh
printf '%s\\n' "$@" > {directory}/arguments
pwd > {directory}/cwd
{script}
for option; do case $option in --output=*) cp {directory}/uki "${{option#--output=}}";; esac; done
echo measured
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return bootable(tmp_path / "root").file(
        "usr/lib/bootc/kargs.d/10.toml", 'kargs = ["quiet", "lockdown=integrity"]\n'
    )


def tree_of(path: Path) -> Directory:
    with ImageRoot.open(os.fspath(path)) as opened:
        return directory_tree(opened.dir).root


def line_of(root: Root, choice: DigestChoice, **options: object) -> str:
    with ImageRoot.open(os.fspath(root.path)) as opened:
        shipped = shipped_kargs(opened)
    return composed_cmdline(shipped, tree_of(root.path), choice, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("choice", list(DigestChoice))
def test_the_digests_stand_between_the_arguments(
    root: Root, choice: DigestChoice, optional: bool
) -> None:
    tree, mark = tree_of(root.path), "?" if optional else ""
    first, second = (image_id_of(tree, Algorithm.SHA512, version=version).hex for version in (1, 2))
    digests = {
        DigestChoice.V1: f"composefs.digest={mark}v1-sha512-12:{first} composefs={mark}{second}",
        DigestChoice.V2: f"composefs={mark}{second}",
        DigestChoice.V1_ONLY: f"composefs.digest={mark}v1-sha512-12:{first}",
    }
    line = line_of(root, choice, kargs=["ro", "console=ttyS0 debug"], allow_missing_verity=optional)
    assert line == f"quiet lockdown=integrity {digests[choice]} ro console=ttyS0 debug"


@pytest.mark.parametrize("karg", ["composefs=" + "ab" * 64, "init=/bin/sh\n", "root=\x1b"])
def test_arguments_that_no_entry_may_have(root: Root, karg: str) -> None:
    with pytest.raises(CmdlineError):
        line_of(root, DigestChoice.V1, kargs=[karg])


def test_a_line_that_the_kernel_would_cut(root: Root) -> None:
    with pytest.raises(CmdlineError, match="2047"):
        line_of(root, DigestChoice.V1, kargs=["a=" + "b" * 2000])


def test_the_security_version_stands_at_the_end(root: Root) -> None:
    line = line_of(root, DigestChoice.V2, kargs=["ro"], version=SecurityVersion(3, 2))
    assert line.endswith(" ro bootc.security-version=3 bootc.minimum-security-version=2")
    same = line_of(
        root,
        DigestChoice.V2,
        kargs=["ro bootc.security-version=3 bootc.minimum-security-version=2"],
        version=SecurityVersion(3, 2),
    )
    assert same == line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kargs": ["bootc.security-version=x"]}, "'bootc.security-version=x' is wrong"),
        (
            {"kargs": ["bootc.security-version=2"], "version": SecurityVersion(3)},
            "has several values: 2, 3",
        ),
        ({"version": SecurityVersion(1, 2)}, "the minimum security version 2 is above"),
    ],
)
def test_a_security_version_that_is_nonsense(
    root: Root, options: dict[str, object], message: str
) -> None:
    with pytest.raises(CmdlineError, match=message):
        line_of(root, DigestChoice.V1, **options)


def kernel(root: Root, kernel_dir: Path | None = None) -> tuple[str, str, str]:
    path = os.fspath(root.path)
    with ImageRoot.open(path) as opened:
        found = uki_kernel(path, opened, None if kernel_dir is None else os.fspath(kernel_dir))
        return found.version, found.linux, found.initramfs


def test_the_kernel_of_the_root(root: Root) -> None:
    home = f"{root.path}/{MODULES}"
    assert kernel(root) == (KVER, f"{home}/vmlinuz", f"{home}/initramfs.img")


def test_a_link_to_the_kernel_stays_in_the_root(root: Root) -> None:
    (root.path / MODULES / "vmlinuz").rename(root.path / "boot/vmlinuz")
    root.link(f"{MODULES}/vmlinuz", "/boot/vmlinuz")
    assert kernel(root)[1] == f"{root.path}/boot/vmlinuz"


def test_the_kernel_of_a_directory(root: Root, tmp_path: Path) -> None:
    home = tmp_path / "6.13.0"
    home.mkdir()
    (home / "vmlinuz").write_bytes(b"kernel")
    with pytest.raises(UkiNotBuilt, match=r"6\.13\.0/initramfs\.img is missing"):
        kernel(root, home)
    (home / "initramfs.img").write_bytes(b"initramfs")
    assert kernel(root, home) == ("6.13.0", f"{home}/vmlinuz", f"{home}/initramfs.img")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: root.remove(f"{MODULES}/vmlinuz"), r"^No kernel found in .*/root \(hint"),
        (lambda root: root.remove(f"{MODULES}/initramfs.img"), r"initramfs\.img is missing"),
        (
            lambda root: root.file("boot/EFI/Linux/one.efi"),
            r"^Cannot build UKI: rootfs already contains a UKI at boot/EFI/Linux/one\.efi$",
        ),
    ],
    ids=["kernel", "initramfs", "uki"],
)
def test_roots_that_have_no_kernel_for_it(
    root: Root, change: Callable[[Root], object], message: str
) -> None:
    change(root)
    with pytest.raises(UkiNotBuilt) as caught:
        kernel(root)
    assert re.search(message, one_line(caught.value))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--output=/out/a.efi"], "/out/a.efi"),
        (["--measure", "--output", "boot/EFI/Linux/a.efi"], "ROOT/boot/EFI/Linux/a.efi"),
        (["--output=a.efi", "--output=sysroot/b.efi"], "ROOT/sysroot/b.efi"),
        (["--output=../a.efi"], "ROOT/../a.efi"),
    ],
)
def test_the_output(root: Root, options: list[str], expected: str) -> None:
    path = os.path.abspath(expected.replace("ROOT", os.fspath(root.path)))
    assert output_of(options, os.fspath(root.path)) == path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no name for the UKI"),
        (["--output"], "no name for the UKI"),
        (["--output="], "no name for the UKI"),
        (["--output=a.efi"], "would change the root after its digest was computed"),
        (["--output=usr/../usr/lib/a.efi"], "would change the root"),
        (["--output=boot/../a.efi"], "would change the root"),
        (["--output=/boot/a.efi", "--cmdline=quiet"], "--cmdline cannot be given"),
        (["--linux", "/boot/vmlinuz", "--output=/boot/a.efi"], "--linux cannot be"),
        (["--os-release=x", "--output=/boot/a.efi"], "--os-release cannot be"),
    ],
)
def test_options_that_make_another_image(root: Root, options: list[str], message: str) -> None:
    with pytest.raises(UkiNotBuilt, match=re.escape(message)):
        output_of(options, os.fspath(root.path))


def built(
    root: Root,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    uki: bytes,
    line: str,
    script: str = "",
) -> bytes:
    """Run a ukify that does nothing but write ``uki``, and return what is printed."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "uki").write_bytes(uki)
    (programs / "ukify").write_text(UKIFY.format(directory=programs, script=script))
    (programs / "ukify").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    path = os.fspath(root.path)
    with ImageRoot.open(path) as opened:
        found = uki_kernel(path, opened, None)
        return build_uki(path, opened, found, line, ["--output=boot/EFI/Linux/a.efi"])


def uki_with(line: str) -> bytes:
    sections = dict(pe.UKI_SECTIONS) | {b".cmdline": line.encode()}
    return pe.program(*sections.items())


def test_ukify_is_run_in_the_root(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "quiet composefs=" + "cd" * 64
    before = image_id_of(tree_of(root.path))
    assert built(root, tmp_path, monkeypatch, uki=uki_with(line), line=line) == b"measured\n"
    programs, home = tmp_path / "programs", f"{root.path}/{MODULES}"
    assert (programs / "cwd").read_text() == f"{root.path}\n"
    assert (programs / "arguments").read_text().splitlines() == [
        "build",
        *("--linux", f"{home}/vmlinuz", "--initrd", f"{home}/initramfs.img"),
        *("--uname", KVER, "--cmdline", line, "--os-release", "@usr/lib/os-release"),
        "--output=boot/EFI/Linux/a.efi",
    ]
    assert (root.path / "boot/EFI/Linux/a.efi").read_bytes() == uki_with(line)
    # The nanoseconds of the time of /boot are a part of the digest.
    assert image_id_of(tree_of(root.path)) == before


@pytest.mark.parametrize(
    ("uki", "script", "message"),
    [
        (b"", "echo one >&2; printf 'no \\033[1mkey\\n\\n' >&2; exit 1", r"ukify failed: no \x1b["),
        (b"", "exit 1", "ukify failed: no message"),
        (b"MZ", "", "boot/EFI/Linux/a.efi: "),
        (uki_with("composefs=" + "ef" * 64), "", "another kernel command line"),
    ],
    ids=["message", "silent", "no UKI", "other command line"],
)
def test_a_failure_leaves_no_uki(
    root: Root,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uki: bytes,
    script: str,
    message: str,
) -> None:
    line = "composefs=" + "cd" * 64
    with pytest.raises(Error) as caught:
        built(root, tmp_path, monkeypatch, uki=uki, line=line, script=script)
    assert message in one_line(caught.value)
    assert list((root.path / "boot").iterdir()) == []


def test_without_ukify(root: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bootc.fs.process._SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    path = os.fspath(root.path)
    with ImageRoot.open(path) as opened, pytest.raises(ToolMissing) as caught:
        build_uki(path, opened, uki_kernel(path, opened, None), "x", ["--output=/tmp/a.efi"])
    assert one_line(caught.value) == (
        "the program ukify is not installed (hint: on Debian it is in the package systemd-ukify)"
    )


def test_without_os_release(root: Root) -> None:
    root.remove("usr/lib/os-release")
    path = os.fspath(root.path)
    with ImageRoot.open(path) as opened, pytest.raises(UkiNotBuilt, match="no /usr/lib/os-release"):
        build_uki(path, opened, uki_kernel(path, opened, None), "x", ["--output=/tmp/a.efi"])
