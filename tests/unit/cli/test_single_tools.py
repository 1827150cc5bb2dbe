"""Verbs of ``bootc internals`` that do one thing to one file, or start one program."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bootc.fs import mounts
from bootc.fs.mounts import Mount
from bootc.kernel import fsverity
from support import require
from support.commands import Command, Commands
from support.pe import program

SECTIONS = {b".linux": b"kernel" * 1000, b".initrd": b"initramfs" * 500}


@pytest.fixture
def verity(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A kernel with fs-verity; the algorithms that were enabled."""
    enabled: list[int] = []

    def measure(fd: int) -> tuple[int, bytes]:
        if not enabled:
            raise OSError(61, "No data available")
        return enabled[0], b"\xab" * 32

    monkeypatch.setattr(fsverity, "measure", measure)
    monkeypatch.setattr(fsverity, "enable", lambda fd, algorithm: enabled.append(algorithm))
    return enabled


def test_verity_of_a_file(bootc, tmp_path: Path, verity: list[int]) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    code, _, err = bootc("internals", "fsverity", "measure", path)
    assert (code, err) == (1, f"error: Measuring {path}: No data available\n")
    assert bootc("internals", "fsverity", "enable", path) == (0, "", "")
    assert verity == [fsverity.FS_VERITY_HASH_ALG_SHA256]
    assert bootc("internals", "fsverity", "measure", path) == (0, "ab" * 32 + "\n", "")


@pytest.mark.parametrize(
    ("in_kernel", "cause", "hint"),
    [
        (True, "lies in a file system (ext4)", "tune2fs -O verity"),
        (False, "the running kernel does not support fs-verity", "CONFIG_FS_VERITY"),
    ],
)
def test_verity_that_is_missing(
    bootc, tmp_path: Path, monkeypatch, in_kernel: bool, cause: str, hint: str
) -> None:
    def refuse(fd: int, algorithm: int) -> None:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(fsverity, "enable", refuse)
    monkeypatch.setattr(fsverity, "is_in_kernel", lambda: in_kernel)
    monkeypatch.setattr("bootc.repository.sealing.filesystem_of", lambda directory: "ext4")
    (tmp_path / "f").touch()
    code, _, err = bootc("internals", "fsverity", "enable", tmp_path / "f")
    assert code == 1
    assert cause in err
    assert hint in err
    assert str(tmp_path) in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["measure", "enable"])
def test_verity_is_for_regular_files(bootc, tmp_path: Path, verb: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "none"):
        code, out, err = bootc("internals", "fsverity", verb, path)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1


def make_uki(path: Path, release: bytes, sections: dict[bytes, bytes] = SECTIONS) -> Path:
    path.write_bytes(program((b".uname", release), *sections.items()))
    return path


def test_a_uki_is_unpacked(bootc, tmp_path: Path) -> None:
    uki = make_uki(tmp_path / "a.efi", b"6.12.1-x86_64+\n\0")
    output = tmp_path / "output"
    output.mkdir()
    assert bootc("internals", "uki", "extract", uki, output) == (0, "", "")
    files = {path.name: path.read_bytes() for path in (output / "6.12.1-x86_64+").iterdir()}
    assert files == {
        "vmlinuz": SECTIONS[b".linux"],
        "initramfs.img": SECTIONS[b".initrd"],
    }
    code, _, err = bootc("internals", "uki", "extract", uki, output)
    assert code == 1
    assert (
        err == f"error: {output}/6.12.1-x86_64+ exists (hint: remove it, or name another OUTPUT)\n"
    )
    assert len(os.listdir(output / "6.12.1-x86_64+")) == 2


def test_the_output_of_a_uki_is_made(bootc, tmp_path: Path) -> None:
    uki = make_uki(tmp_path / "a.efi", b"6.12")
    output = tmp_path / "new/output"
    uki.write_bytes(uki.read_bytes()[:-1000])
    code, _, err = bootc("internals", "uki", "extract", uki, output)
    assert (code, "reaches beyond the end" in err) == (1, True)
    assert not output.parent.exists()
    make_uki(tmp_path / "a.efi", b"6.12")
    assert bootc("internals", "uki", "extract", uki, output) == (0, "", "")
    assert sorted(os.listdir(output / "6.12")) == ["initramfs.img", "vmlinuz"]


OTHER_SECTIONS = {**SECTIONS, b".uname": b"6.12", b".cmdline": b"rw", b".osrel": b"ID=x"}


@pytest.mark.parametrize("section", [*OTHER_SECTIONS, b".dtb"])
def test_a_uki_with_two_sections_of_a_name(bootc, tmp_path: Path, section: bytes) -> None:
    uki = tmp_path / "a.efi"
    sections = [*OTHER_SECTIONS.items(), (b".dtb", b"one")]
    profile = (b".profile", b"ID=p"), (b".cmdline", b"quiet"), (b".dtbauto", b"a")
    uki.write_bytes(program(*sections, *profile, (b".dtbauto", b"b")))
    assert bootc("internals", "uki", "extract", uki, tmp_path / "fine") == (0, "", "")
    uki.write_bytes(program(*sections, (section, b"other"), *profile))
    message = f"UKI has 2 sections '{section.decode()}'"
    code, _, err = bootc("internals", "uki", "extract", uki, tmp_path / "output")
    assert (code, err) == (1, f"error: Reading {uki}: {message}\n")
    uki.write_bytes(program(*sections, *profile, (section, b"1"), (section, b"2")))
    code, _, err = bootc("internals", "uki", "extract", uki, tmp_path / "output")
    assert (code, err.count("profile 0 (p): UKI has")) == (1, 1)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"ZM" + data[2:], "UKI is not valid EFI executable: no MZ signature at"),
        (lambda data: data[:0x3F], "UKI is not valid EFI executable: truncated header at"),
        (lambda data: b"", "UKI is not valid EFI executable: truncated header at"),
    ],
)
def test_a_file_that_is_no_efi_program(bootc, tmp_path: Path, change, message: str) -> None:
    uki = make_uki(tmp_path / "a.efi", b"6.12")
    uki.write_bytes(change(uki.read_bytes()))
    code, _, err = bootc("internals", "uki", "extract", uki, tmp_path / "output")
    assert code == 1
    assert err.startswith(f"error: Reading {uki}: {message}")


def test_a_uki_with_an_empty_kernel(bootc, tmp_path: Path) -> None:
    uki = make_uki(tmp_path / "a.efi", b"6.12", {**SECTIONS, b".linux": b""})
    code, _, err = bootc("internals", "uki", "extract", uki, tmp_path / "output")
    assert (code, err) == (1, f"error: Reading {uki}: UKI section '.linux' is empty\n")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("release", [b"..", b"a/b", b"", b"/etc", b".x", b"a" * 200, b"-x"])
def test_a_release_that_is_no_name(bootc, tmp_path: Path, release: bytes) -> None:
    uki = make_uki(tmp_path / "a.efi", release)
    (tmp_path / "output").mkdir()
    code, _, err = bootc("internals", "uki", "extract", uki, tmp_path / "output")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert os.listdir(tmp_path / "output") == []


@pytest.mark.parametrize("section", SECTIONS)
def test_a_uki_without_a_part_leaves_nothing(bootc, tmp_path: Path, section: bytes) -> None:
    sections = {name: data for name, data in SECTIONS.items() if name != section}
    uki = make_uki(tmp_path / "a.efi", b"6.12", sections)
    (tmp_path / "output").mkdir()
    code, _, err = bootc("internals", "uki", "extract", uki, tmp_path / "output")
    assert (code, section.decode() in err) == (1, True)
    assert os.listdir(tmp_path / "output") == []


#: Runs a script in a process namespace, whose first process is the host.
NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c")
BOOTC = f"{sys.executable} -m bootc exec-in-host-mount-namespace"


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    argv = [require.tool(NAMESPACE[0]), *NAMESPACE[1:], script]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.root
def test_a_program_sees_the_mounts_of_the_host(tmp_path: Path) -> None:
    program = f"sh -c 'pwd; ls -A {tmp_path}; echo $1; exit 7' x --flag"
    inside = f'mount -t tmpfs none {tmp_path}; touch {tmp_path}/inside; {BOOTC} "$@"'
    (tmp_path / "outside").touch()
    (tmp_path / "script").write_text(inside)
    done = in_a_namespace(f"unshare --mount sh {tmp_path}/script {program}; exit $?")
    assert (done.returncode, done.stdout, done.stderr) == (7, "/\noutside\nscript\n--flag\n", "")


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "code", "told"),
    [("", 2, "a program is missing"), ("no-such", 1, "the program no-such is not installed")],
)
def test_a_program_that_does_not_exist(words: str, code: int, told: str) -> None:
    done = in_a_namespace(f"{BOOTC} {words}; exit $?")
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {told}")


@pytest.fixture
def lsblk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    device = {"name": "vda", "size": 512, "children": [{"name": "vda1", "partlabel": "a\x1b"}]}
    body = f"echo '{json.dumps({'blockdevices': [device]})}'"
    return Commands(tmp_path / "bin", monkeypatch).mock("lsblk", body)


def test_a_device_with_its_partitions(bootc, lsblk: Command) -> None:
    code, out, err = bootc("internals", "blockdev", "ls", "/dev/vda")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert json.loads(out)["children"] == [{"name": "vda1", "partlabel": "a\x1b"}]
    assert lsblk.calls == [
        ["--json", "--bytes", "--output-all", "--tree", "--", "/dev/vda"],
    ]


@pytest.mark.parametrize("source", ["/dev/vda1", "tmpfs"])
def test_the_device_of_a_file_system(
    bootc, lsblk: Command, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "mount_of", lambda _: Mount(1, "8:1", "/x", "ext4", source))
    code, out, err = bootc("internals", "blockdev", "ls-filesystem", tmp_path)
    if source == "tmpfs":
        assert (code, out) == (1, "")
        assert err == f"error: the file system of {tmp_path} is not on a block device\n"
    else:
        assert (code, json.loads(out)["name"]) == (0, "vda")
        assert lsblk.calls[0][-1] == source


@pytest.mark.parametrize("answer", ["[]", "{}", '{"blockdevices": []}', "no JSON"])
def test_an_answer_that_tells_nothing(
    bootc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("lsblk", f"echo '{answer}'")
    code, out, err = bootc("internals", "blockdev", "ls", "/dev/vda")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["internals", "mkcomposefs", "--from-file", "-", "{tmp}/image"],
        ["internals", "cfs", "--repo", "{tmp}/repo", "import-image", "x"],
        ["internals", "cfs", "--repo", "{tmp}/repo", "oci", "import-layer", f"sha256:{'0' * 64}"],
    ],
    ids=lambda words: words[-2],
)
def test_closed_standard_input(words: list[str], tmp_path: Path) -> None:
    program = [sys.executable, "-m", "bootc"]
    repo = ["internals", "cfs", "--repo", str(tmp_path / "repo"), "init", "--insecure"]
    subprocess.run([*program, *repo], check=True, stdout=subprocess.DEVNULL)
    argv = [*program, *(word.format(tmp=tmp_path) for word in words)]
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *argv]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "error: "
        + ("" if "mkcomposefs" in words else "Reading standard input: ")
        + "standard input is closed (hint: redirect a file to it)\n"
    )
    assert not (tmp_path / "image").exists()
