"""``bootc container compute-composefs-digest``: what is named, what is printed, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.verity import verity_digest
from support import images, pe
from support.images import directory, file, layer


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def digest(self, *arguments: object) -> str:
        """Run the verb; return what it prints, an error included."""
        verb = ["container", "compute-composefs-digest"]
        code = cli.main([*verb, *map(str, arguments)])
        out, err = self._capsys.readouterr()
        if code == 0:
            return out
        assert out == ""
        return f"{code}: {err}"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    for name in ("usr", "boot", "sysroot"):
        (path / name).mkdir(parents=True)
    (path / "boot/vmlinuz").write_bytes(b"kernel")
    return path


def test_an_image(shell: Shell, tmp_path: Path) -> None:
    # composefs 0.9 specification, "End-to-end OCI layout pins", the bootable sibling, row V1
    members = (*map(directory, ("usr", "boot", "sysroot")),)
    hello = file("usr/hello.txt", b"hello from bootable test layer\n")
    layout = images.single(tmp_path / "layout", layer(*members, hello))
    expected = (
        "afcf5265d299516bc4f3f34f0f6bae2dc42dd6c24711121141140f39d8cc2b1f"
        "3fcf18bb0a5c3f4db21065783f76e920458f93cd81bb09c24cdb6968b4165e89\n"
    )
    assert shell.digest(layout.reference()) == expected
    assert shell.digest("--plain", layout.reference()) == expected


def test_a_directory(shell: Shell, root: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    for options in ([], ["--plain"], ["--xattrs", "keep-user-xattrs"]):
        printed = shell.digest(*options, "--write-dumpfile-to", dump, root)
        tree = parse_dumpfile(dump.read_bytes().splitlines())
        assert printed == verity_digest(mkfs_erofs(tree), Algorithm.SHA512).hex + "\n"
        assert (tree.lookup("boot/vmlinuz") is None) == (options != ["--plain"])


def test_the_default_is_target(shell: Shell) -> None:
    if Path("/target").exists():
        pytest.skip("this machine has a /target")
    assert shell.digest() == "1: error: /target: No such file or directory\n"


@pytest.mark.parametrize("name", ["a:b", "oci:x"])
def test_colons(
    shell: Shell, root: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(shell.digest(f"./{name}")) == 129
    assert len(shell.digest(tmp_path / name)) == 129
    assert shell.digest(name).startswith("1: error: ")


@pytest.mark.parametrize("path", ["/", "//", "/usr/.."])
def test_the_running_system(shell: Shell, path: str) -> None:
    assert shell.digest(path) == (
        "1: error: Cannot operate on active root filesystem; mount separate target instead\n"
    )


def test_refusals(shell: Shell, root: Path, tmp_path: Path) -> None:
    assert shell.digest(root / "boot/vmlinuz") == (
        f"1: error: {root}/boot/vmlinuz: Not a directory\n"
    )
    assert shell.digest("--write-dumpfile-to", tmp_path, root) == (
        f"1: error: Writing {tmp_path}: {tmp_path}: Is a directory\n"
    )
    assert shell.digest("--xattrs", "all", root).startswith("2: error: argument --xattrs: invalid")
    (root / "sysroot").rmdir()
    assert shell.digest(root) == (
        "1: error: the image has no directory /sysroot "
        "(hint: a bootable image needs /usr, /boot and /sysroot)\n"
    )


def test_a_kernel_image_that_is_sealed_in_parts(shell: Shell, root: Path, tmp_path: Path) -> None:
    """One of its items boots without composefs."""
    uki = pe.program(*pe.UKI_SECTIONS, (b".profile", b"ID=rescue"), (b".cmdline", b"rw"))
    (root / "boot/EFI/Linux").mkdir(parents=True)
    (root / "boot/EFI/Linux/os.efi").write_bytes(uki)
    members = (*map(directory, ("usr", "boot", "sysroot", "boot/EFI", "boot/EFI/Linux")),)
    layout = images.single(tmp_path / "layout", layer(*members, file("boot/EFI/Linux/os.efi", uki)))
    for target in (root, layout.reference()):
        assert (
            "error: Reading boot/EFI/Linux/os.efi of the image: profile 0 (rescue): "
            "No composefs image in UKI cmdline "
            "(hint: name the image on the command line of each profile of the UKI)\n"
        ) in shell.digest(target)
        assert len(shell.digest("--plain", target)) == 129


def test_a_dumpfile_is_whole_or_as_it_was(shell: Shell, root: Path, tmp_path: Path) -> None:
    dump, link = tmp_path / "dump", tmp_path / "link"
    link.symlink_to(dump)
    printed = shell.digest("--write-dumpfile-to", link, root)
    assert link.is_symlink()
    whole = dump.read_bytes()
    dump.chmod(0o640)
    assert shell.digest("--write-dumpfile-to", link, root) == printed
    assert (dump.read_bytes(), dump.stat().st_mode & 0o777) == (whole, 0o640)
    # Where /dev/stdout leads, unless another program put a file in its place.
    for name in ("-", "/proc/self/fd/1"):
        assert shell.digest("--write-dumpfile-to", name, root).endswith(printed), name
    assert shell.digest("--write-dumpfile-to", "", root) == (
        "2: error: argument --write-dumpfile-to: the value is empty "
        "(hint: see bootc container compute-composefs-digest --help)\n"
    )


def test_no_digest_without_its_dumpfile(shell: Shell, root: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    assert shell.digest("--write-dumpfile-to", "/dev/full", root) == (
        "1: error: Writing /dev/full: No space left on device\n"
    )
