"""``cfs`` verbs for images: what they print, what they store, and what they refuse."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from bootc.cli.main import main
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import OCI_LAYER, StreamWriter
from bootc.formats.tree import Directory, External, Leaf, Stat
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.kernel import fsverity
from bootc.repository.content import read_image
from bootc.repository.metadata import ErofsFormats, Metadata
from bootc.repository.repository import Repository
from support.cfs import Cfs, stdin
from support.verity import FakeVerity

CONTENT = b"content" * 100
OBJECT = verity_digest(CONTENT, Algorithm.SHA512)
ABSENT = verity_digest(b"absent" * 100, Algorithm.SHA512)


@pytest.fixture
def cfs(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Cfs:
    with Dir.open(tmp_path) as parent:
        Repository.create(parent, name="store", secure=False).close()
    return Cfs(tmp_path / "store", capsysbinary, monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a container."""
    path = tmp_path / "root"
    for name in ("usr/share", "boot", "sysroot", "run/lock"):
        (path / name).mkdir(parents=True)
    (path / "boot/vmlinuz").write_bytes(b"kernel")
    (path / "usr/large").write_bytes(CONTENT)
    (path / "usr/share/small").write_bytes(b"small")
    (path / "usr/share/again").hardlink_to(path / "usr/large")
    (path / "usr/link").symlink_to("large")
    os.setxattr(path / "usr/large", "user.kept", b"or not")
    (path / "usr").chmod(0o750)
    return path


def objects_in(cfs: Cfs) -> set[str]:
    below = cfs.repo / "objects"
    return {str(path.relative_to(below)) for path in below.glob("*/*")}


# create-image, compute-id, create-dumpfile, compute-karg


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--bootable",),
        ("--xattrs", "keep-user-xattrs"),
        ("--bootable", "--xattrs", "keep-user-xattrs"),
        ("--no-propagate-usr-to-root",),
        ("--bootable", "--no-propagate-usr-to-root"),
    ],
    ids=" ".join,
)
def test_all_verbs_make_the_same_image(cfs: Cfs, root: Path, options: tuple[str, ...]) -> None:
    printed = cfs("compute-id", *options, root)
    digest = Digest.from_hex(printed.removesuffix("\n"))
    dump = cfs("create-dumpfile", *options, root)
    tree = parse_dumpfile(dump.encode().splitlines())
    assert verity_digest(mkfs_erofs(tree), Algorithm.SHA512) == digest
    assert cfs("images") == "No images found\n"
    assert objects_in(cfs) == set()
    assert cfs("create-image", *options, root) == f"sha512:{digest}\n"
    assert objects_in(cfs) == {digest.object_path, OBJECT.object_path}
    with cfs.repository() as repository:
        assert repository.images.names() == [digest.hex]
        assert repository.images.refs() == {}
        stored = read_erofs(read_image(repository.objects, digest))
    assert verity_digest(mkfs_erofs(stored), Algorithm.SHA512) == digest
    assert stored.stat.mode == (0o755 if "--no-propagate-usr-to-root" in options else 0o750)
    assert (stored.lookup("boot/vmlinuz") is None) == ("--bootable" in options)


@pytest.mark.parametrize("bootable", [True, False])
@pytest.mark.parametrize("mode", ["allowlist-only", "keep-user-xattrs"])
def test_the_image_is_that_of_container_verbs(
    cfs: Cfs, root: Path, bootable: bool, mode: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    plain = [] if bootable else ["--plain"]
    verb = ["container", "compute-composefs-digest", *plain, "--xattrs", mode, str(root)]
    assert main(verb) == 0
    expected = capsysbinary.readouterr().out.decode()
    boot = ("--bootable",) if bootable else ()
    assert cfs("create-image", *boot, "--xattrs", mode, root) == f"sha512:{expected}"


def test_the_image_is_that_of_mkcomposefs(
    cfs: Cfs, root: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    # There, each name of a file with hard links is a file of its own.
    (root / "usr/share/again").unlink()
    options = ("--print-digest-only", "--min-version", "1")
    assert main(["internals", "mkcomposefs", *options, str(root)]) == 0
    expected = capsysbinary.readouterr().out.decode()
    words = ("--no-repo", "--hash", "sha256")
    assert cfs(*words, "compute-id", "--no-propagate-usr-to-root", root) == expected


def test_what_is_stored_securely(cfs: Cfs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeVerity()
    monkeypatch.setattr(fsverity, "enable", kernel.enable)
    monkeypatch.setattr(fsverity, "measure", kernel.measure)
    (cfs.repo / "meta.json").unlink()
    (cfs.repo / "objects").rmdir()
    cfs("init")
    digest = Digest.from_hex(cfs("--insecure", "create-image", root, "os")[7:-1])
    for name in (digest, OBJECT):
        with (cfs.repo / "objects" / name.object_path).open("rb") as file:
            assert kernel.measure(file.fileno()) == (Algorithm.SHA512.value, name.raw)
    assert cfs("image-objects", "os") == f"sha512:{OBJECT}\n"
    path = cfs.repo / "objects" / digest.object_path
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert cfs.error("--insecure", "image-objects", "os").endswith(f"{path} has no fs-verity")
    told = cfs.error("--insecure", "mount", "os", "/nowhere")
    assert told.endswith("not protected by fs-verity")


def test_the_versions_of_the_repository(cfs: Cfs, root: Path) -> None:
    metadata = Metadata(erofs_formats=ErofsFormats(1, (0, 2)))
    (cfs.repo / "meta.json").write_bytes(metadata.to_bytes())
    ids = [cfs("--erofs-version", number, "compute-id", root)[:-1] for number in (1, 0, 2)]
    assert len(set(ids)) == 3
    assert cfs("create-image", root, "os") == f"sha512:{ids[0]}\n"
    with cfs.repository() as repository:
        assert repository.images.names() == sorted(ids)
        assert {name: digest.hex for name, digest in repository.images.refs().items()} == {
            "os": ids[0]
        }


def test_a_version_that_is_asked_for(cfs: Cfs, root: Path) -> None:
    printed = cfs("--erofs-version", 2, "create-image", root)
    assert printed == "sha512:" + cfs("--erofs-version", 2, "compute-id", root)
    with cfs.repository() as repository:
        assert repository.images.names() == [printed[7:-1]]


def test_sha256_without_a_repository(cfs: Cfs, root: Path) -> None:
    words = ("--no-repo", "--hash", "sha256")
    printed = cfs(*words, "compute-id", root)
    tree = parse_dumpfile(cfs(*words, "create-dumpfile", root).encode().splitlines())
    assert printed == f"{verity_digest(mkfs_erofs(tree), Algorithm.SHA256)}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "composefs.digest=v1-sha512-12:"),
        (("--insecure",), "composefs.digest=?v1-sha512-12:"),
        (("--erofs-version", "0"), "composefs.digest=v1-sha512-12:"),
        (("--erofs-version", "2"), "composefs="),
        (("--erofs-version", "2", "--insecure"), "composefs=?"),
        (("--no-repo", "--hash", "sha256"), "composefs.digest=v1-sha256-12:"),
    ],
)
def test_the_kernel_argument(cfs: Cfs, root: Path, words: tuple[str, ...], expected: str) -> None:
    assert cfs(*words, "compute-karg", root) == expected + cfs(
        *words, "compute-id", "--bootable", root
    )


def test_a_name_says_how_it_is_stored(cfs: Cfs, root: Path) -> None:
    digest = cfs("create-image", root, "refs/a/b")[7:-1]
    assert os.readlink(cfs.repo / "images/refs/a/b") == f"../../{digest}"
    assert os.readlink(cfs.repo / f"images/{digest}") == (
        f"../objects/{Digest.from_hex(digest).object_path}"
    )


def test_a_name_moves_on(cfs: Cfs, root: Path) -> None:
    cfs("create-image", root, "os")
    (root / "usr/new").touch()
    digest = cfs("create-image", root, "os")[7:-1]
    assert os.readlink(cfs.repo / "images/refs/os") == f"../{digest}"


@pytest.mark.parametrize("name", ["/", "a/", "../x", "a/../b", "."])
def test_an_impossible_name(cfs: Cfs, root: Path, name: str) -> None:
    assert cfs.error("create-image", root, name) == f"{name!r} cannot name an image"
    assert objects_in(cfs) == set()


def test_directories_that_cannot_be_read(cfs: Cfs, root: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for verb in ("create-image", "create-dumpfile", "compute-id", "compute-karg"):
        assert cfs.error(verb, missing) == f"{missing}: No such file or directory"
        assert cfs.error(verb, root / "usr/large") == f"{root}/usr/large: Not a directory"
        assert cfs.error(verb, "/").startswith("Cannot operate on active root filesystem")
    (tmp_path / "bare").mkdir()
    assert cfs.error("create-image", tmp_path / "bare").startswith(
        "the image has no directory /usr"
    )
    assert cfs("create-image", "--no-propagate-usr-to-root", tmp_path / "bare")[:7] == "sha512:"


def test_an_unknown_mode(cfs: Cfs, root: Path) -> None:
    assert cfs.error("compute-id", "--xattrs", "all", root, code=2).startswith(
        "argument --xattrs: 'all' is neither allowlist-only nor keep-user-xattrs"
    )


def test_a_collection_keeps_what_has_a_name(cfs: Cfs, root: Path) -> None:
    named = cfs("create-image", root, "os")[7:-1]
    other = cfs("create-image", "--bootable", root)[7:-1]
    cfs("gc")
    with cfs.repository() as repository:
        assert repository.images.names() == [named]
        assert other not in repository.images.names()
        assert repository.objects.read(OBJECT) == CONTENT


# images


def test_the_list(cfs: Cfs, root: Path) -> None:
    one = cfs("create-image", root, "one")[7:-1]
    two = cfs("create-image", "--bootable", root, "a/two")[7:-1]
    assert cfs("images") == (
        "┌───────┬──────────────┐\n"
        "│ NAME  ┆ DIGEST       │\n"
        "╞═══════╪══════════════╡\n"
        f"│ a/two ┆ {two[:12]} │\n"
        "├╌╌╌╌╌╌╌┼╌╌╌╌╌╌╌╌╌╌╌╌╌╌┤\n"
        f"│ one   ┆ {one[:12]} │\n"
        "└───────┴──────────────┘\n"
    )
    whole = cfs("list-images", "--no-trunc")
    assert one in whole
    assert two in whole
    text = cfs("images", "--json")
    assert text.startswith('{\n  "images": [\n    {\n      "name": "a/two",\n')
    assert json.loads(text) == {
        "images": [{"name": "a/two", "digest": two}, {"name": "one", "digest": one}]
    }


def test_an_empty_list_as_json(cfs: Cfs) -> None:
    assert cfs("images", "--json") == '{\n  "images": []\n}\n'


def test_a_name_for_no_terminal(cfs: Cfs, root: Path) -> None:
    digest = cfs("create-image", root)[7:-1]
    (cfs.repo / "images/refs").mkdir()
    os.symlink(f"../{digest}".encode(), os.fsencode(cfs.repo) + b"/images/refs/a\x1b\xff")
    assert json.loads(cfs("images", "--json"))["images"][0]["name"] == r"a\x1b\xff"


@pytest.mark.parametrize(
    ("target", "what"), [("../../etc", "entry"), ("/etc/passwd", "entry"), ("../abc", "image")]
)
def test_a_reference_that_is_none(cfs: Cfs, target: str, what: str) -> None:
    (cfs.repo / "images/refs").mkdir(parents=True)
    (cfs.repo / "images/refs/bad").symlink_to(target)
    said = target if what == "entry" else "abc"
    for verb in (("images",), ("image-objects", "bad"), ("mount", "bad", "/nowhere")):
        assert cfs.error(*verb).endswith(
            f"{cfs.repo}/images/refs/bad links to {said!r}, which is no {what}"
        )


# image-objects, dump-files


def test_the_objects_of_an_image(cfs: Cfs, root: Path) -> None:
    digest = cfs("create-image", root, "a/os")[7:-1]
    for name in (digest, "a/os", "refs/a/os"):
        assert cfs("image-objects", name) == f"sha512:{OBJECT}\n"


@pytest.mark.parametrize("name", ["os", "refs/os", "..", "a/b/c", ABSENT.hex, "refs", "refs/"])
def test_an_image_that_is_not_there(cfs: Cfs, name: str) -> None:
    (cfs.repo / "images/refs").mkdir(parents=True)
    (cfs.repo / "images/refs/a").symlink_to(f"../{ABSENT}")
    for verb in (("image-objects", name), ("dump-files", name, "/"), ("mount", name, "/mnt")):
        assert cfs.error(*verb) == f"{cfs.repo} has no image {name}"


def test_a_reference_to_an_image_that_is_gone(cfs: Cfs) -> None:
    (cfs.repo / "images/refs").mkdir(parents=True)
    (cfs.repo / "images/refs/a").symlink_to(f"../{ABSENT}")
    path = f"{cfs.repo}/objects/{ABSENT.object_path}"
    assert cfs.error("image-objects", "a") == (
        f"Reading image {ABSENT}: Opening object {ABSENT}: {path}: No such file or directory"
    )


def test_a_damaged_image(cfs: Cfs, root: Path) -> None:
    digest = Digest.from_hex(cfs("create-image", root)[7:-1])
    path = cfs.repo / "objects" / digest.object_path
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    for verb in (("image-objects", digest), ("dump-files", digest, "/")):
        assert cfs.error(*verb) == (f"Reading image {digest}: the content of {path} is damaged")


def test_files_of_an_image(cfs: Cfs, root: Path) -> None:
    digest = cfs("create-image", root)[7:-1]
    whole = cfs("create-dumpfile", root).splitlines(keepends=True)
    assert cfs("dump-files", digest, "/") == "".join(whole)
    below = [line for line in whole if line.startswith(("/usr/share ", "/usr/share/"))]
    assert [line.split()[0] for line in below] == [
        "/usr/share",
        "/usr/share/again",
        "/usr/share/small",
    ]
    # Elsewhere it has its first name, which is not printed here: it has to be told in full.
    (first,) = (line for line in whole if line.startswith("/usr/large "))
    again = first.replace("/usr/large", "/usr/share/again")
    assert again.split()[3] == "2"
    assert cfs("dump-files", digest, "/usr/share") == "".join([below[0], again, below[2]])
    assert cfs("dump-files", digest, "usr//large", "/usr/share/again") == first + again


def test_where_the_content_is(cfs: Cfs, root: Path) -> None:
    digest = cfs("create-image", root)[7:-1]
    files = ("/usr/large", "usr/share/small", "/usr/link")
    assert cfs("dump-files", "--backing-path-only", digest, *files) == (
        f"/usr/large {OBJECT.object_path}\nusr/share/small inline\n/usr/link inline\n"
    )
    assert cfs.error("dump-files", "--backing-path-only", digest, "/usr") == (
        "/usr is a directory, which has no content"
    )


@pytest.mark.parametrize("file", ["/nothing", "/usr/large/below", "/usr/../usr", "/usr/link/x"])
def test_a_file_no_image_has(cfs: Cfs, root: Path, file: str) -> None:
    cfs("create-image", root, "os")
    assert cfs.error("dump-files", "os", "/usr", file) == f"the image os has no {file}"


# import-image


def image(digest: Digest = ABSENT) -> bytes:
    entries = {b"file": Leaf(Stat(0o644), External(digest, 600))}
    return mkfs_erofs(Directory(Stat(0o755), dict(entries)))


def test_an_image_from_standard_input(cfs: Cfs, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(image())
    digest = verity_digest(image(), Algorithm.SHA512)
    with stdin(tmp_path / "image"):
        assert cfs("import-image", "a/os") == f"sha512:{digest}\n"
    with cfs.repository() as repository:
        assert repository.images.refs() == {"a/os": digest}
        assert read_image(repository.objects, digest) == image()
    assert stat.S_IMODE((cfs.repo / "objects" / digest.object_path).stat().st_mode) == 0o644


@pytest.mark.parametrize("data", [b"", b"no image", image()[:4096], bytes(8192)])
def test_no_image_from_standard_input(cfs: Cfs, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image").write_bytes(data)
    with stdin(tmp_path / "image"):
        assert cfs.error("import-image", "os").startswith("Reading standard input: ")
    assert objects_in(cfs) == set()
    assert not (cfs.repo / "images").exists()


def test_a_name_no_image_can_have(cfs: Cfs) -> None:
    assert cfs.error("import-image", "..") == "'..' cannot name an image"


# cat


@pytest.fixture
def layer(cfs: Cfs) -> str:
    with cfs.repository() as repository:
        stream = StreamWriter(Algorithm.SHA512, OCI_LAYER)
        stream.inline(b"before ")
        stream.external(repository.objects.put(CONTENT), len(CONTENT))
        stream.inline(b" after")
        repository.streams.write("oci-layer-sha256:ab", stream.finish())
        repository.streams.set_ref("a/layer", "oci-layer-sha256:ab")
    return "oci-layer-sha256:ab"


def test_a_stream(cfs: Cfs, layer: str) -> None:
    for name in (layer, "refs/a/layer"):
        assert cfs("cat", name) == f"before {CONTENT.decode()} after"


def test_a_stream_that_is_not_there(cfs: Cfs, layer: str) -> None:
    assert cfs.error("cat", "layer") == (
        f"Looking up layer in {cfs.repo}: {cfs.repo}/streams/layer: No such file or directory"
    )
    assert cfs.error("cat", "refs/layer") == (
        f"Reading reference layer in {cfs.repo}: {cfs.repo}/streams/refs/layer: "
        "No such file or directory"
    )
    for name in ("refs", "refs/", "a/layer", "../x", "/"):
        assert cfs.error("cat", name) == f"{name!r} cannot name a stream"


def test_a_stream_with_a_damaged_file(cfs: Cfs, layer: str) -> None:
    path = cfs.repo / "objects" / OBJECT.object_path
    path.chmod(0o644)
    path.write_bytes(b"x" * len(CONTENT))
    code, out, err = cfs.raw("cat", layer)
    assert (code, out) == (1, b"before ")
    assert err == (f"error: Reading stream {layer}: the content of {path} is damaged\n")


# mount; real mounts are in tests/host


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--fuse", "no", "--upperdir", "/x"), "--upperdir and --workdir need each other"),
        (("--workdir", "/x"), "--upperdir and --workdir need each other"),
        (("--read-write",), "--read-write needs --upperdir"),
    ],
)
def test_options_of_a_mount(cfs: Cfs, options: tuple[str, ...], expected: str) -> None:
    assert cfs.error("mount", *options, "os", "/nowhere", code=2) == expected


def test_fuse_is_refused(cfs: Cfs) -> None:
    assert cfs.error("mount", "--fuse", "yes", "os", "/nowhere") == (
        "mounting through FUSE is not supported (hint: leave out --fuse)"
    )


# where nothing can be written


def test_a_repository_that_cannot_be_written(cfs: Cfs, root: Path, tmp_path: Path) -> None:
    metadata = Metadata(read_only_compatible=("v1_erofs", "unheard_of"))
    (cfs.repo / "meta.json").write_bytes(metadata.to_bytes())
    assert "can only be read, it has unknown features: 'unheard_of'" in cfs.error(
        "create-image", root
    )
    assert objects_in(cfs) == set()
    assert cfs("images") == "No images found\n"
