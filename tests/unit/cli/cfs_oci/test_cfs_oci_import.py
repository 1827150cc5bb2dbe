"""``cfs oci import-layer`` and ``copy``, ``cfs transaction``, and words that have no effect."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, OciDigest
from bootc.formats.verity import verity_digest
from support import images
from support.cfs import Cfs
from support.children import DEADLINE_S, running
from support.images import file, layer

BIG = b"big" * 1000
LAYER = layer(file("usr/big", BIG), file("usr/small", b"small"))
LAYER_ID = images.sha256(LAYER)


@pytest.fixture
def other(
    tmp_path: Path,
    cfs: Cfs,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Cfs:
    """Another repository, with an image."""
    other = Cfs(tmp_path / "other", capsysbinary, monkeypatch)
    other("init", "--insecure")
    layout = images.single(tmp_path / "layout", images.bootable(), LAYER)
    other("oci", "pull", layout.reference(), "os/1")
    return other


def imported(cfs: Cfs, data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    verb = ["internals", "cfs", "--repo", str(cfs.repo), "oci", "import-layer", *words]
    return subprocess.run(
        [sys.executable, "-m", "bootc", *verb], input=data, capture_output=True, check=False
    )


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u202e", "refs/refs/x"])
def test_names_that_are_not_stored(cfs: Cfs, other: Cfs, tmp_path: Path, name: str) -> None:
    digest = next((other.repo / "streams/refs/oci").iterdir()).readlink().name
    calls = [
        ("oci", "copy", "os/1", "--from", other.repo, "--name", name),
        ("create-image", tmp_path / "layout", name),
        ("import-image", name),
    ]
    if not name.startswith("refs/"):
        # The name of a tag is one component, so any prefix is part of it.
        other.error("oci", "tag", digest.removeprefix("oci-manifest-"), name)
    else:
        del calls[0]
    for call in calls:
        assert "'" in cfs.error(*call)
    done = imported(cfs, LAYER, LAYER_ID, name)
    assert (done.returncode, done.stdout) == (1, b"")
    assert not list((cfs.repo / "streams/refs").rglob("*")) or not (
        [path for path in (cfs.repo / "streams/refs").rglob("*") if path.is_symlink()]
    )


def test_a_prefix_of_a_name_counts_once(cfs: Cfs) -> None:
    assert imported(cfs, LAYER, LAYER_ID, "refs/lay").returncode == 0
    assert (cfs.repo / "streams/refs/lay").is_symlink()
    assert cfs.raw("cat", "refs/lay")[1] == LAYER


def test_a_tag_of_another_program_can_be_removed(other: Cfs) -> None:
    tags = other.repo / "streams/refs/oci"
    (tags / "os%2F1").rename(tags / "a\x1bb")
    assert other("oci", "untag", "a\x1bb") == "Removed tag a\\x1bb\n"
    assert list(tags.iterdir()) == []


def test_a_layer_from_standard_input(cfs: Cfs) -> None:
    done = imported(cfs, LAYER, LAYER_ID, "mine")
    assert done.stderr == b""
    target = (cfs.repo / "streams" / f"oci-layer-{LAYER_ID}").readlink()
    assert done.stdout.decode() == f"sha512:{''.join(target.parts[-2:])}\n"
    assert cfs.raw("oci", "layer", LAYER_ID)[1] == LAYER
    assert cfs.raw("cat", "refs/mine")[1] == LAYER
    assert imported(cfs, LAYER, LAYER_ID).stdout == done.stdout


@pytest.mark.parametrize(
    ("data", "words", "told"),
    [
        (LAYER + bytes(512), [LAYER_ID], "digest"),
        (b"no archive" * 100, [images.sha256(b"no archive" * 100)], ""),
        (LAYER, [LAYER_ID, "../x"], "'../x' cannot name a stream"),
    ],
)
def test_a_layer_that_is_refused(cfs: Cfs, data: bytes, words: list[str], told: str) -> None:
    done = imported(cfs, data, *words)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not list((cfs.repo / "streams").glob("oci-layer-*"))


@pytest.mark.parametrize(("words", "tag"), [([], "os/1"), (["--name", "copy"], "copy")])
def test_a_copy_is_the_image(cfs: Cfs, other: Cfs, words: list[str], tag: str) -> None:
    out = cfs("oci", "copy", "os/1", "--from", other.repo, *words)
    assert out.startswith("Copied image os/1\nManifest digest: sha256:")
    assert len(out.splitlines()) == 5
    assert cfs("oci", "inspect", tag) == other("oci", "inspect", "os/1")
    assert cfs.raw("oci", "layer", LAYER_ID)[1] == LAYER
    assert set(cfs.objects()) == set(other.objects())
    assert cfs("fsck").endswith("status: ok\n")
    before = cfs.objects()
    assert cfs("oci", "copy", "os/1", "--from", other.repo, *words) == out
    assert cfs.objects() == before


def test_a_copy_into_a_repository_of_another_algorithm(
    tmp_path: Path, other: Cfs, capsysbinary, monkeypatch
) -> None:
    cfs = Cfs(tmp_path / "sha256", capsysbinary, monkeypatch)
    cfs("init", "--insecure", "--algorithm", "fsverity-sha256-12")
    cfs("oci", "copy", "os/1", "--from", other.repo)
    assert cfs.raw("oci", "layer", LAYER_ID)[1] == LAYER
    assert "oci images: 1/1 ok\n" in cfs("oci", "fsck")


def test_a_copy_that_is_refused(cfs: Cfs, other: Cfs, tmp_path: Path) -> None:
    assert "--zerocopy" in cfs.error("oci", "copy", "os/1", "--from", other.repo, "--zerocopy")
    missing = cfs.error("oci", "copy", "none", "--from", other.repo)
    assert f"(hint: bootc internals cfs --repo {other.repo} oci images lists" in missing
    assert str(cfs.repo) not in missing
    nowhere = tmp_path / "nowhere"
    assert cfs.error("oci", "copy", "os/1", "--from", nowhere).endswith(
        f"there is no repository {nowhere} (hint: check the path of --from)"
    )
    damaged = other.path_of(verity_digest(BIG, Algorithm.SHA512))
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    assert cfs.error("oci", "copy", "os/1", "--from", other.repo)
    assert not (cfs.repo / "streams/refs/oci").exists()


def test_where_files_are_shared_or_not(cfs: Cfs, tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", images.bootable(), LAYER)
    for mode in ("disabled", "auto", "zerocopy"):
        assert cfs("oci", "pull", "--local-fetch", mode, layout.reference(), "os")
    error = cfs.error("oci", "pull", "--local-fetch", "zerocopy", "containers-storage:x")
    assert "never shares the files of containers-storage" in error
    assert cfs.raw("oci", "pull", "--local-fetch", "never", "oci:/x")[0] == 2


def test_tools_below_cfs(cfs: Cfs, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("content")
    digest = cfs("mkcomposefs", "--print-digest", tmp_path / "tree", tmp_path / "image")
    assert cfs("composefs-info", "measure-file", tmp_path / "image") == digest
    assert cfs("composefs-info", "ls", tmp_path / "image") == "/file\n"


def test_a_transaction_keeps_the_garbage(cfs: Cfs) -> None:
    verb = [sys.executable, "-m", "bootc", "internals", "cfs", "--repo", str(cfs.repo)]
    with running([*verb, "transaction"], stderr=subprocess.DEVNULL) as holder:
        end = time.monotonic() + DEADLINE_S
        while cfs.raw("gc", group=("--no-wait",))[0] == 0:
            assert time.monotonic() < end
            time.sleep(0.1)
        holder.send_signal(signal.SIGTERM)
    assert holder.returncode == 130
    cfs("gc", group=("--no-wait",))


def test_an_archive_is_read_in_any_sizes(other: Cfs) -> None:
    from bootc.formats.imgref import ImageReference
    from bootc.oci.stored import find_image
    from bootc.oci.stored_source import StoredSource

    with other.repository() as repository:
        image = find_image(repository, "os/1")
        source = StoredSource(repository, image, ImageReference("oci", "/x"))
        descriptor = source.layers[-1]
        assert descriptor.size_bytes == len(LAYER)
        for size in (1 << 20, 7):
            found = io.BytesIO()
            with source.blob(descriptor) as blob:
                while data := blob.read(size):
                    assert len(data) <= size
                    found.write(data)
            assert found.getvalue() == LAYER
    assert OciDigest.parse(LAYER_ID) in image.documents.diff_ids
