"""``mkcomposefs`` and ``composefs-info`` beside the C tools: files, output, exit codes.

Only what C prints to stderr is its own: ours is one line.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bootc.cli import main as cli
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from support import require
from support.ctools import c_tool

pytestmark = pytest.mark.interop

BESIDE = Path(__file__).parents[3] / "shared" / "vectors"
VECTORS = Path(os.environ.get("BOOTC_TEST_VECTORS", BESIDE)) / "composefs-c"
HEX = "0eff14568e9e57f994fb75d79c4b2d01eb8ff068a3f5d8dadb7b18bc74f20f2d"


class Answer(NamedTuple):
    status: int
    out: bytes


#: Runs one of the tools, by name.
Tool = Callable[..., Answer]


@pytest.fixture
def theirs() -> Tool:
    def run(name: str, *arguments: object, data: bytes = b"") -> Answer:
        argv = [*c_tool(name), *map(str, arguments)]
        done = subprocess.run(argv, input=data, capture_output=True, check=False)
        # A remark composefs-info forgot to take out, on options it does not know.
        return Answer(done.returncode, done.stdout.removesuffix(b"Def\n"))

    return run


@pytest.fixture
def ours(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Run the command in this process."""

    def run(name: str, *arguments: object) -> Answer:
        capfdbinary.readouterr()
        with open(1, "w", encoding="utf-8", closefd=False) as out:
            monkeypatch.setattr(sys, "stdout", out)
            status = cli.main(["internals", name, *map(str, arguments)])
        written, complaint = capfdbinary.readouterr()
        assert (status != 0) == complaint.startswith(b"error: ")
        assert complaint.count(b"\n") <= 1
        return Answer(status, written)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Tool:
    """Run a real process that is called by the name of the tool."""
    program = tmp_path / "bin" / "bootc"
    program.parent.mkdir()
    program.write_text("import sys\nfrom bootc.cli.main import main\nsys.exit(main())\n")

    def run(name: str, *arguments: object, data: bytes = b"") -> Answer:
        called = program.with_name(name)
        if not called.exists():
            called.symlink_to(program.name)
        argv = [sys.executable, str(called), *map(str, arguments)]
        done = subprocess.run(argv, input=data, capture_output=True, check=False)
        return Answer(done.returncode, done.stdout)

    return run


def dump_of(name: str) -> bytes:
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"conformance data {path} is absent (BOOTC_TEST_VECTORS names its folder)")
    raw = path.read_bytes()
    # A vector may be a symbolic link that was stored as a file holding its target.
    if raw.count(b"\n") == 0 and (VECTORS / raw.decode()).exists():
        raw = (VECTORS / raw.decode()).read_bytes()
    return gzip.decompress(raw) if name.endswith(".gz") else raw


def vectors(pattern: str) -> list[str]:
    return sorted(path.name for path in VECTORS.glob(pattern))


# Directories as sources


def grow(top: Path, dice: random.Random) -> None:
    """Make a random tree of everything a user may make."""
    directories = [os.fsencode(top)]
    files: list[bytes] = []
    for _ in range(dice.randrange(1, 25)):
        name = dice.choice([dice.randbytes(dice.randrange(1, 9)), b"%02x" % dice.randrange(256)])
        name = name.replace(b"/", b"~").replace(b"\0", b"0")
        path = dice.choice(directories) + b"/" + name
        if os.path.lexists(path):
            continue
        kind = dice.choice(["directory", "file", "file", "file", "link", "symlink", "fifo"])
        if kind == "directory":
            os.mkdir(path)
            directories.append(path)
        elif kind == "symlink":
            os.symlink(b"t" * dice.choice([1, 60, 2000, 4000]), path)
            continue
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "link" and files:
            os.link(dice.choice(files), path)
            continue
        else:
            with open(path, "wb") as file:
                file.write(dice.randbytes(dice.choice([0, 1, 63, 64, 65, 4096, 5000, 70_000])))
            files.append(path)
        for _ in range(dice.randrange(3)):
            if kind in ("file", "directory"):
                os.setxattr(path, f"user.{dice.randrange(4)}", dice.randbytes(dice.randrange(20)))
        os.chmod(path, dice.choice([0o644, 0o755, 0o4755, 0o1777, 0o700]))
        os.utime(path, ns=(1, dice.choice([0, 5, -5_000_000_001, 2**33 * 10**9 + 1])))
    for path in directories:
        os.utime(path, ns=(1, dice.randrange(10**18)))


def stored(top: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(top)): (path.stat().st_mode, path.read_bytes())
        for path in top.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("seed", range(25))
def test_random_directories(ours: Tool, theirs: Tool, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    source = tmp_path / "source"
    source.mkdir()
    grow(source, dice)
    choices = ("--use-epoch", "--skip-devices", "--user-xattrs", "--skip-xattrs")
    options = [dice.choice(["--print-digest", "--min-version=1", "--max-version=0"])]
    options += [dice.choice(choices)] * dice.randrange(2)
    images = []
    for name, tool in ("ours", ours), ("theirs", theirs):
        image, store = tmp_path / name, tmp_path / f"{name}-store"
        answer = tool("mkcomposefs", *options, f"--digest-store={store}", source, image)
        images.append((answer, image.read_bytes(), stored(store) if store.exists() else {}))
    assert images[0][0].status == 0
    assert images[0] == images[1]


def furnish(top: Path) -> None:
    """Make what only root can make, and what is remarkable besides."""
    (top / "sub/empty").mkdir(parents=True)
    (top / "small").write_bytes(b"small\n")
    (top / "inline").write_bytes(b"\0" * 64)
    (top / "stored").write_bytes(b"\0" * 65)
    (top / "large").write_bytes(random.Random(1).randbytes(300_000))
    (top / "elsewhere").write_bytes(b"\0" * 65)
    with open(top / "sparse", "wb") as file:
        file.truncate(3 << 20)
    (top / "symlink").symlink_to("target")
    os.mkfifo(top / "fifo")
    for name in "small", "large", "fifo", "symlink":
        os.link(top / name, top / "sub" / name, follow_symlinks=False)
    os.mknod(top / "char", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    os.mknod(top / "block", stat.S_IFBLK | 0o660, os.makedev(259, 1 << 17))
    os.mknod(top / "sub/whiteout", stat.S_IFCHR, 0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "socket"))
    os.chown(top / "stored", 65536, 12)
    (top / "stored").chmod(0o6755)
    capability = bytes.fromhex("0100000200000001000000000000000000000000")
    os.setxattr(top / "small", "security.capability", capability)
    os.setxattr(top / "small", "user.b", b"1")
    os.setxattr(top / "small", "user.a", b"")
    os.setxattr(top / "sub", "trusted.overlay.opaque", b"y")
    os.setxattr(top / "sub", "user.overlay.opaque", b"y")
    os.setxattr(top / "symlink", "trusted.link", b"1", follow_symlinks=False)
    os.setxattr(top / "fifo", "security.fifo", b"1")
    os.setxattr(top / "char", "trusted.device", b"x" * 1000)
    for n in range(120):
        (top / "sub" / f"{n:03}-{'n' * 40}").touch()
    os.utime(top / "small", ns=(1, -5 * 10**9 + 7))


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--max-version=0"],
        ["--min-version=1", "--max-version=0"],
        ["--use-epoch"],
        ["--skip-devices"],
        ["--skip-xattrs"],
        ["--user-xattrs"],
        ["--skip-devices", "--user-xattrs", "--use-epoch", "--threads=3"],
    ],
    ids=" ".join,
)
def test_a_directory_with_everything(
    ours: Tool, theirs: Tool, tmp_path: Path, options: list[str]
) -> None:
    require.root()
    source = tmp_path / "source"
    source.mkdir()
    furnish(source)
    answer = ours("mkcomposefs", source, "-", *options)
    assert answer == theirs("mkcomposefs", source, "-", *options)
    assert answer.status == 0
    arguments = ["--print-digest-only", source, *options]
    assert ours("mkcomposefs", *arguments) == theirs("mkcomposefs", *arguments)


def test_a_store_is_filled_once(ours: Tool, theirs: Tool, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"a" * 65)
    (source / "b").write_bytes(b"b" * 100_000)
    (source / "c").write_bytes(b"a" * 65)
    contents = []
    for name, tool in ("ours", ours), ("theirs", theirs):
        store = tmp_path / name / "below"
        for _ in range(2):
            assert tool("mkcomposefs", "--print-digest-only", "--digest", store, source).status == 0
        contents.append(stored(store))
    assert contents[0] == contents[1]
    assert [mode for mode, _ in contents[0].values()] == [stat.S_IFREG | 0o644] * 2


# Dump files as sources


#: The largest has nothing that depends on the version.
DUMPS = [
    (name, option)
    for name in vectors("*.dump") + vectors("*.dump.gz")
    for option in ("--threads=1", "--max-version=0", "--min-version=1")
    if option == "--threads=1" or not name.startswith("cs9")
]


@pytest.mark.parametrize(("name", "option"), DUMPS)
def test_dumps(ours: Tool, theirs: Tool, tmp_path: Path, name: str, option: str) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(dump_of(name))
    arguments = ["--from-file", "--print-digest", option, dump]
    images = []
    for whose, tool in ("ours", ours), ("theirs", theirs):
        answer = tool("mkcomposefs", *arguments, tmp_path / whose)
        image = (tmp_path / whose).read_bytes() if answer.status == 0 else None
        images.append((answer, image))
    assert images[0] == images[1]
    assert (images[0][0].status != 0) == name.startswith("should-fail")


@pytest.mark.parametrize("name", ["special.dump", "should-fail-no-ftype.dump"])
def test_real_processes_called_by_name(process: Tool, theirs: Tool, name: str) -> None:
    dump = dump_of(name)
    arguments = ["--print-digest", "--from-file", "-", "-"]
    assert process("mkcomposefs", *arguments, data=dump) == theirs(
        "mkcomposefs", *arguments, data=dump
    )
    arguments = ["-", "--from-file", "--print-digest-only"]
    assert process("mkcomposefs", *arguments, data=dump) == theirs(
        "mkcomposefs", *arguments, data=dump
    )


# Images

LINKS = f"""\
/ 0 40755 2 0 0 0 0.0 - - -
/a 1000 100644 2 0 0 0 1.0 0e/{HEX[2:]} - {HEX}
/b 0 @120000 - - - - 0.0 /a - -
/c 1000 100644 1 0 0 0 1.0 some/path - -
/d 1000 100644 1 0 0 0 1.0 - - -
/e 1000 100644 1 0 0 0 1.0 - - {HEX}
/f 1000 100644 1 0 0 0 1.0 zz/other - {HEX}
/g 0 100644 1 0 0 0 1.0 zz/empty - {HEX}
/j 0 40755 2 0 0 0 0.0 - - -
/j/a 0 @120000 - - - - 0.0 /a - -
/j/k 0 20644 1 0 0 0 1.0 - - -
/j/l 0 @120000 - - - - 0.0 /j/m - -
/j/m 10 120777 1 0 0 0 1.0 x - -
/k 3000 100644 1 0 0 0 1.0 /abs/path/ - -
/l 3000 100644 1 0 0 0 1.0 - - - user.x=y
/m 3000 100644 1 0 0 0 1.0 some//path - -
/n 3000 100644 1 0 0 0 1.0 \\x2d - -
"""


def every_byte() -> bytes:
    """A dump with names, targets and paths of objects that hold each byte."""
    lines = ["/ 0 40755 2 0 0 0 0.0 - - -"]
    for byte in [b for b in range(1, 256) if b != ord("/")]:
        lines.append(f"/{byte:03}\\x{byte:02x} 3 120777 1 0 0 0 1.0 x\\x{byte:02x}y - -")
        lines.append(f"/p{byte:03} 1000 100644 1 0 0 0 1.0 z\\x{byte:02x} - -")
    lines += ["/q\\\\x20 3 120777 1 0 0 0 1.0 \\\\x20 - -", "/r 1 120777 1 0 0 0 1.0 \\x2d - -"]
    return "\n".join([*lines, ""]).encode()


@pytest.fixture(
    params=["links", "bytes", "special.dump", "config.dump.gz", "config-with-hard-link.dump.gz"]
)
def image(request: pytest.FixtureRequest, theirs: Tool, tmp_path: Path) -> Path:
    made = {"links": LINKS.encode(), "bytes": every_byte()}
    dump = made.get(request.param) or dump_of(request.param)
    path = tmp_path / "image"
    assert theirs("mkcomposefs", "--from-file", "-", path, data=dump).status == 0
    return path


FILTERS = [[], ["--filter=j"], ["--filter", "a", "--filter=j", "--filter=nothing"]]


@pytest.mark.parametrize("options", [*FILTERS, ["--filter="], ["--filter=.."]], ids=" ".join)
@pytest.mark.parametrize("command", ["ls", "dump", "objects", "missing-objects"])
def test_what_is_in_images(
    ours: Tool, theirs: Tool, image: Path, command: str, options: list[str]
) -> None:
    arguments = [command, *options, image, image]
    answer = ours("composefs-info", *arguments)
    assert answer == theirs("composefs-info", *arguments)
    assert answer.status == 0


@pytest.mark.parametrize("version", [0, 1, 2])
def test_images_of_every_version(ours: Tool, theirs: Tool, tmp_path: Path, version: int) -> None:
    image = tmp_path / "image"
    tree = parse_dumpfile(dump_of("config.dump.gz").splitlines(keepends=True))
    image.write_bytes(mkfs_erofs(tree, version=version))
    for command in "ls", "dump", "objects":
        assert ours("composefs-info", command, image) == theirs("composefs-info", command, image)


def test_missing_objects(ours: Tool, theirs: Tool, tmp_path: Path) -> None:
    image, store = tmp_path / "image", tmp_path / "store"
    theirs("mkcomposefs", "--from-file", "-", image, data=LINKS.encode())
    (store / "some").mkdir(parents=True)
    (store / "some/path").touch()
    (store / "0e" / HEX[2:]).mkdir(parents=True)
    (store / "zz").mkdir()
    (store / "zz/other").symlink_to("nowhere")
    (store / "-").symlink_to("-")
    arguments = ["--basedir", store, "missing-objects", image]
    answer = ours("composefs-info", *arguments)
    assert answer == theirs("composefs-info", *arguments)
    assert answer == (0, b"-\n/abs/path/\nzz/other\n")


def test_measuring(ours: Tool, theirs: Tool, tmp_path: Path) -> None:
    for size in 1, 4096, 4097, 600_000:
        (tmp_path / str(size)).write_bytes(b"x" * size)
    arguments = ["measure-file", *sorted(tmp_path.iterdir())]
    answer = ours("composefs-info", *arguments)
    assert answer == theirs("composefs-info", *arguments)
    assert answer.out.count(b"\n") == 4


# What goes wrong

WRONG = [
    "mkcomposefs",
    "mkcomposefs --help-me",
    "mkcomposefs SOURCE",
    "mkcomposefs SOURCE a b",
    "mkcomposefs --bogus SOURCE a",
    "mkcomposefs --print SOURCE a",
    "mkcomposefs SOURCE a --min-version",
    "mkcomposefs --use-epoch=1 SOURCE a",
    "mkcomposefs --print-digest-only SOURCE a",
    "mkcomposefs --print-digest-only SOURCE -",
    "mkcomposefs --skip-xattrs --user-xattrs SOURCE a",
    "mkcomposefs --print-digest-only SOURCE/nothing",
    "mkcomposefs --print-digest-only LINK",
    "mkcomposefs --print-digest-only DUMP",
    "mkcomposefs --from-file --print-digest-only SOURCE",
    "mkcomposefs --from-file --print-digest-only SOURCE/nothing",
    "mkcomposefs --from-file --print-digest-only /dev/null",
    "mkcomposefs --from-file DUMP SOURCE",
    "mkcomposefs --from-file DUMP SOURCE/not/there",
    "mkcomposefs --from-file DUMP /dev/full",
    "mkcomposefs --digest-store=DUMP --print-digest-only SOURCE",
    "composefs-info",
    "composefs-info ls",
    "composefs-info measure-file",
    "composefs-info tell IMAGE",
    "composefs-info ls IMAGE IMAGE SOURCE/nothing",
    "composefs-info objects IMAGE SOURCE/nothing",
    "composefs-info ls SOURCE",
    "composefs-info ls DUMP",
    "composefs-info dump /dev/null",
    "composefs-info --filter=a/b ls IMAGE",
    "composefs-info --basedir=SOURCE/nothing ls IMAGE",
    "composefs-info --basedir= ls IMAGE",
    "composefs-info ls IMAGE --basedir",
    "composefs-info measure-file DUMP SOURCE DUMP",
    "composefs-info measure-file DUMP SOURCE/nothing",
]
RIGHT = [
    "mkcomposefs --print-digest-o SOURCE",
    "mkcomposefs SOURCE --use- - --max 0",
    "mkcomposefs --print-digest-only --from-file DUMP --skip-xattrs --user-xattrs --digest-store=",
    "mkcomposefs -- SOURCE -",
    "composefs-info --base SOURCE ls IMAGE",
    "composefs-info ls IMAGE --filter a --fil c",
    "composefs-info dump IMAGE --filter a --filter a",
]


@pytest.mark.parametrize(
    ("line", "is_right"), [*((line, False) for line in WRONG), *((line, True) for line in RIGHT)]
)
def test_command_lines(ours: Tool, theirs: Tool, tmp_path: Path, line: str, is_right: bool) -> None:
    source, dump, image = tmp_path / "source", tmp_path / "dump", tmp_path / "image"
    source.mkdir()
    (source / "file").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to("source")
    dump.write_text(LINKS)
    theirs("mkcomposefs", "--from-file", dump, image)
    paths = {"SOURCE": source, "DUMP": dump, "IMAGE": image, "LINK": tmp_path / "link"}
    for word, path in paths.items():
        line = line.replace(word, str(path))
    with contextlib.chdir(tmp_path):
        answer = ours(*line.split())
        assert answer == theirs(*line.split())
    assert (answer.status == 0) == is_right


@pytest.mark.parametrize(
    "number", ["0", "1", "01", "+1", " 1", "-0", "", "1 ", "1x", "0x1", "0_1", "+-1", "-1", "2"]
)
@pytest.mark.parametrize("option", ["--min-version", "--max-version", "--threads"])
def test_numbers(ours: Tool, theirs: Tool, tmp_path: Path, option: str, number: str) -> None:
    dump = tmp_path / "dump"
    dump.write_text(LINKS)
    arguments = [f"{option}={number}", "--from-file", dump, "-"]
    assert ours("mkcomposefs", *arguments) == theirs("mkcomposefs", *arguments)


VERSIONS = [
    "--min-version=0",
    "--min-version=0 --max-version=1",
    "--max-version=1 --min-version=0",
    "--max-version=0 --min-version=1",
    "--min-version=1 --min-version=0",
    "--max-version=1 --min-version=0 --max-version=0",
]


@pytest.mark.parametrize("options", VERSIONS)
@pytest.mark.parametrize("has_whiteouts", [False, True])
def test_versions(ours: Tool, theirs: Tool, tmp_path: Path, options: str, has_whiteouts) -> None:
    dump = tmp_path / "dump"
    dump.write_text(LINKS if has_whiteouts else LINKS.replace("20644", "10644"))
    arguments = [*options.split(), "--from-file", dump, "-"]
    assert ours("mkcomposefs", *arguments) == theirs("mkcomposefs", *arguments)


def test_of_an_empty_file_the_kernel_has_another_digest_than_c(
    ours: Tool, theirs: Tool, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    arguments = ["measure-file", tmp_path / "empty"]
    assert theirs("composefs-info", *arguments).out.startswith(b"cfc3391077ed")
    assert ours("composefs-info", *arguments).out.startswith(b"3d248ca542a2")
