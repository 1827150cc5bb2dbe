"""The stand-in for mkcomposefs: arguments, files and messages. Digests are the C tool's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.cli.options import Context, build_parser
from bootc.cli.table import commands_for
from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.formats.verity import verity_digest

HEX = "0eff14568e9e57f994fb75d79c4b2d01eb8ff068a3f5d8dadb7b18bc74f20f2d"
DUMP = rf"""/ 0 40755 3 0 0 0 5.0 - - - user.a=b
/dir 0 40700 2 1 2 0 7.9 - - -
/dir/again 0 @120000 - - - - 0.0 /file - -
/dir/link 6 120777 1 0 0 0 5.0 ../x\x20y - -
/file 1000 100644 2 0 0 0 5.0 0e/{HEX[2:]} - {HEX}
/gone 0 20644 1 0 0 0 5.0 - - -
/small\x20one 6 104755 1 0 0 0 5.0 - small\n - security.x=\x00
"""
DIGEST_0 = "0095d353d9f535dc571f2093ab9a4176fdde553a6ba26a738c0ac679de4ff39b"
DIGEST_1 = "85368b7843b9da422e5384f4aebaae8e325d3c0e3752d90d1e1389c58a7e8e8f"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "dump"
    path.write_text(DUMP)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


def run(*arguments: object) -> int:
    return cli.main(["internals", "mkcomposefs", *map(str, arguments)])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert (out, err[:7], err.count("\n")) == ("", "error: ", 1)
    return err[7:-1]


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ([], DIGEST_1),
        (["--max-version=0"], DIGEST_0),
        (["--min-version=0"], DIGEST_0),
        (["--min-version=0", "--max-version=1"], DIGEST_1),
    ],
)
def test_a_dump(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options, digest
) -> None:
    image = tmp_path / "image"
    assert run("--from-file", "--print-digest", *options, dump, image) == 0
    assert capsys.readouterr() == (f"{digest}\n", "")
    assert verity_digest(image.read_bytes(), Algorithm.SHA256).hex == digest


def test_standard_input_and_output(tmp_path: Path) -> None:
    called = tmp_path / "mkcomposefs"
    called.write_text("import sys\nfrom bootc.cli.main import main\nsys.exit(main())\n")
    argv = [sys.executable, str(called), "--from-file", "-", "-", "--print-digest"]
    done = subprocess.run(argv, input=DUMP.encode(), capture_output=True, check=True)
    image, digest = done.stdout[:-65], done.stdout[-65:]
    assert digest == f"{DIGEST_1}\n".encode()
    assert verity_digest(image, Algorithm.SHA256).hex == DIGEST_1


def test_an_image_is_nothing_for_a_terminal(dump: Path) -> None:
    written: list[bytes] = []
    context = Context(lambda text: None, written.append, lambda event: None, True)
    words = ["internals", "mkcomposefs", "--from-file", str(dump)]
    parser = build_parser("bootc", commands_for(words), "")
    args = parser.parse_args([*words, "-"])
    with pytest.raises(Error, match="a terminal cannot show an image"):
        args.run(args, context)
    args = parser.parse_args([*words, "--print-digest-only"])
    args.run(args, context)
    assert written == []


def test_hard_links_and_what_is_left_out(
    source: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (source / "a").write_bytes(b"a\n")
    os.link(source / "a", source / "b")
    os.setxattr(source / "a", "user.x", b"y")
    (source / "a").chmod(0o4755)
    os.utime(source / "a", ns=(1, 5_000_000_006))
    os.utime(source, ns=(1, 3))
    image = tmp_path / "image"

    def lines(*options: str) -> list[bytes]:
        assert run(source, image, *options) == 0
        assert cli.main(["internals", "composefs-info", "dump", str(image)]) == 0
        return [line.split(b" ", 2)[2] for line in capsysbinary.readouterr().out.splitlines()]

    mine = b"1 %d %d 0" % (os.getuid(), os.getgid())
    file = b"104755 " + mine + b" 5.6 - a\\n - user.x=y"
    directory = b"40755 2" + mine[1:] + b" 0.3 - - -"
    assert lines() == [directory, file, file]
    assert lines("--user-xattrs") == [directory, file, file]
    assert lines("--skip-xattrs")[1:] == [file.removesuffix(b" user.x=y")] * 2
    assert lines("--use-epoch")[1:] == [file.replace(b"5.6", b"0.0")] * 2


def test_a_digest_store(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "small").write_bytes(b"s" * 64)
    (source / "large").write_bytes(b"l" * 65)
    store = tmp_path / "new/store"
    assert run("--print-digest-only", "--digest-store", store, source) == 0
    digest = verity_digest(b"l" * 65, Algorithm.SHA256)
    stored = [path for path in store.rglob("*") if not path.is_dir()]
    assert stored == [store / digest.object_path]
    assert stored[0].read_bytes() == b"l" * 65
    assert stat.S_IMODE(stored[0].stat().st_mode) == 0o644
    plain = capsys.readouterr().out
    assert run("--print-digest-only", source) == 0
    assert capsys.readouterr().out == plain


def test_constant_memory(source: Path, tmp_path: Path) -> None:
    with open(source / "huge", "wb") as file:
        file.truncate(32 << 20)
    run("--digest-store", tmp_path / "store", source, "/dev/null")  # imports
    (source / "huge").write_bytes(b"other")
    os.truncate(source / "huge", 33 << 20)
    tracemalloc.start()
    try:
        assert run("--digest-store", tmp_path / "store", source, "/dev/null") == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SOURCE"], "the name of the image is missing (hint: - is standard output)"),
        ([], "the following arguments are required: "),
        (["SOURCE", "a", "b"], "unrecognized arguments: b (hint: see …)"),
        (["--hardlinks", "SOURCE", "a"], "option --hardlinks not recognized (hint: see …)"),
        (["--print", "SOURCE"], "option --print not a unique prefix (hint: see …)"),
        (["--min-version", "2", "SOURCE", "a"], "'2' is not a number from 0 to 1"),
        (["--threads=0", "SOURCE", "a"], "'0' is not a number from 1 to 2147483647"),
        (["--print-digest-only", "SOURCE", "a"], "--print-digest-only writes no image"),
        (["--skip-xattrs", "--user-xattrs", "SOURCE", "a"], "exclude each other"),
        (["SOURCE/nothing", "-"], "SOURCE/nothing: No such file or directory"),
        (["--from-file", "SOURCE/nothing", "-"], "SOURCE/nothing: No such file or directory"),
        (["SOURCE", "SOURCE/not/there"], "SOURCE/not: No such file or directory"),
        (["SOURCE", "/dev/full"], "Writing /dev/full: No space left on device"),
        (["--digest-store=/dev/null", "SOURCE", "a"], "Opening the digest store: /dev/null: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_failures_are_one_line_and_exit_code_1(
    source: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    words = [word.replace("SOURCE", str(source)) for word in arguments]
    assert run(*words) == 1
    expected = message.replace("SOURCE", str(source))
    expected = expected.replace("…", "bootc internals mkcomposefs --help")
    assert expected in complaint(capsys)


def test_a_bad_dump_leaves_the_image_alone(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"before")
    dump.write_text("/ 0 40755 2 0 0 0 0.0 - - -\n/x 0 644 1 0 0 0 0.0 - - -\n")
    assert run("--from-file", dump, image) == 1
    assert complaint(capsys) == (
        f"Reading {dump}: dumpfile line 2, column 6 (mode): mode '644' has no file type"
    )
    assert image.read_bytes() == b"before"


def test_a_symlink_is_no_source(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(source)
    assert run(tmp_path / "link", "-") == 1
    assert complaint(capsys) == f"{tmp_path}/link: Not a directory"
