"""The stand-in for composefs-info: what it prints is what the C tool prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.cli.table import as_called
from bootc.formats.digest import Algorithm
from bootc.formats.libcomposefs.dumpfile import parse_dumpfile
from bootc.formats.libcomposefs.erofs import mkfs_erofs
from bootc.formats.verity import verity_digest

HEX = "0eff14568e9e57f994fb75d79c4b2d01eb8ff068a3f5d8dadb7b18bc74f20f2d"
OBJECT = f"0e/{HEX[2:]}"
DUMP = rf"""/ 0 40755 3 0 0 0 5.0 - - - user.a=b
/dir 0 40700 2 1 2 0 7.9 - - -
/dir/again 0 @120000 - - - - 0.0 /file - -
/dir/link 6 120777 1 0 0 0 5.0 ../x\x20y - -
/file 1000 100644 2 0 0 0 5.0 {OBJECT} - {HEX}
/gone 0 20644 1 0 0 0 5.0 - - -
/odd 1000 100644 1 0 0 0 5.0 some\x20path - -
/small\x20one 6 104755 1 0 0 0 5.0 - small\n - security.x=\x00
"""
#: The C tools show the directory of a file's first path as its home, and the marks of whiteouts.
DUMPED = rf"""/ 4096 40755 3 0 0 0 5.0 - - - trusted.overlay.opaque=x user.a=b user.overlay.opaque=x
/dir 60 40700 2 1 2 0 7.9 - - -
/dir/again 1000 100644 2 0 0 0 5.0 {OBJECT} - {HEX}
/dir/link 6 120777 1 0 0 0 5.0 ../x\x20y - -
/file 1000 @100644 2 0 0 0 5.0 /dir/again - {HEX}
/gone 0 20644 1 0 0 0 5.0 - - -
/odd 1000 100644 1 0 0 0 5.0 some\x20path - -
/small\x20one 6 104755 1 0 0 0 5.0 - small\n - security.x=\x00
"""
LISTED = (
    "/dir/\t\n"
    f"/dir/again\t@ {OBJECT}\n"
    "/dir/link\t-> ../x\\x20y\n"
    "/file\n"
    "/gone\n"
    "/odd\t@ some\\x20path\n"
    "/small one\n"
)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image"
    tree = parse_dumpfile(DUMP.encode().splitlines())
    path.write_bytes(mkfs_erofs(tree))
    return str(path)


def run(*arguments: str) -> int:
    return cli.main(["internals", "composefs-info", *arguments])


def test_ls(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ls", image) == 0
    assert capsys.readouterr() == (LISTED, "")


def test_ls_of_parts_of_the_root(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ls", image, "--filter=file", "--filter", "nothing", "--filter=small one") == 0
    assert capsys.readouterr() == (f"/file\t@ {OBJECT}\n/small one\n", "")


def test_dump(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dump", image, image) == 0
    assert capsys.readouterr() == (DUMPED * 2, "")


def test_dump_of_a_part_shows_the_root_as_it_is(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dump", "--filter=gone", image) == 0
    lines = DUMPED.splitlines(keepends=True)
    assert capsys.readouterr() == (lines[0] + lines[5], "")


def test_objects(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("objects", image, image) == 0
    assert capsys.readouterr() == (f"{OBJECT}\nsome path\n", "")


def test_missing_objects(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("missing-objects", image) == 0
    assert capsys.readouterr() == (f"{OBJECT}\nsome path\n", "")
    (tmp_path / OBJECT).parent.mkdir()
    (tmp_path / OBJECT).touch()
    assert run("missing-objects", image, "--basedir", str(tmp_path)) == 0
    assert capsys.readouterr() == ("some path\n", "")


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_measure_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert run("measure-file", str(path)) == 0
    digest = verity_digest(b"x" * size, Algorithm.SHA256)
    assert capsys.readouterr() == (f"{digest}\n", "")


def test_names_that_are_no_text(tmp_path: Path, capsysbinary) -> None:
    tree = parse_dumpfile(
        [b"/ 0 40755 2 0 0 0 0.0 - - -", b"/\\xff 9 100644 1 0 0 0 0.0 \\xfe - -"]
    )
    image = tmp_path / os.fsdecode(b"\xfd")
    image.write_bytes(mkfs_erofs(tree))
    assert run("ls", str(image), "--filter", os.fsdecode(b"\xff")) == 0
    assert capsysbinary.readouterr().out == b"/\\xff\t@ \\xfe\n"
    assert run("objects", str(image)) == 0
    assert capsysbinary.readouterr().out == b"\xfe\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command, IMAGE"),
        (["ls"], "the following arguments are required: IMAGE"),
        (["tell", "IMAGE"], "argument command: invalid choice: 'tell'"),
        (["ls", "IMAGE", "--basedir"], "option --basedir requires argument"),
        (["--filter=a/b", "ls", "IMAGE"], "--filter a/b: the name of an entry has no slash"),
        (["--basedir=/nothing", "ls", "IMAGE"], "/nothing: No such file or directory"),
        (["objects", "IMAGE", "/nothing"], "/nothing: No such file or directory"),
        (["dump", "/"], "/: Is a directory"),
        (["dump", "/dev/null"], "/dev/null: not a regular file"),
        (["dump", __file__], f"Reading {__file__}: invalid EROFS image: not an EROFS superblock"),
        (["measure-file", "/nothing"], "/nothing: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_failures_are_one_line_and_exit_code_1(
    image: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*(word.replace("IMAGE", image) for word in arguments)) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {message}")


def test_what_was_read_before_a_failure_is_printed(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ls", image, "/nothing", image) == 1
    assert capsys.readouterr().out == LISTED


def test_an_image_beyond_all_limits_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(tmp_path / "image", "wb") as file:
        file.truncate((1 << 30) + 1)
    assert run("ls", str(tmp_path / "image")) == 1
    assert "image: file is larger than 1073741824 bytes" in capsys.readouterr().err


def test_called_by_its_name(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    def called(*argv: str) -> int:
        return cli.main(as_called(argv))

    assert called("/usr/local/bin/composefs-info", "objects", image) == 0
    assert capsys.readouterr().out == f"{OBJECT}\nsome path\n"
    assert called("/usr/bin/bootc", "internals", "composefs-info") == 1
    assert called("/usr/bin/bootc", "composefs-info") == 2
