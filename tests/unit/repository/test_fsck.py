"""The check of a repository finds each fault, and names it."""

from __future__ import annotations

import errno
import json
import os
import time
import tracemalloc

import pytest

from bootc.cli.render.fsck import report_json, report_text
from bootc.events import Done, Event, Progress, Start
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm
from bootc.formats.splitstream import MAX_STREAM_BYTES, StreamWriter
from bootc.formats.verity import VerityHasher, verity_digest
from bootc.repository.fsck import check
from bootc.repository.fsck_report import Count, FsckFinding, FsckKind, FsckReport
from bootc.repository.repair import repair
from bootc.repository.repository import Repository
from support.faults import (
    absent,
    checked,
    flip,
    full,
    image_bytes,
    kinds,
    path_of,
    put,
    put_stream,
    verity_of,
)
from support.rights import bound_by_mode
from support.verity import FakeVerity


def test_a_sound_repository(repository: Repository) -> None:
    full(repository)
    report = checked(repository)
    assert report.ok
    assert report_text(report) == (
        "meta.json: ok\nobjects: 4/4 ok\nstreams: 2/2 ok\nimages: 1/1 ok\nstatus: ok\n"
    )
    assert json.loads(json.dumps(report_json(report))) == {
        "ok": True,
        "has_metadata": True,
        "objects_checked": 4,
        "objects_corrupted": 0,
        "streams_checked": 2,
        "streams_corrupted": 0,
        "images_checked": 1,
        "images_corrupted": 0,
        "broken_links": 0,
        "missing_objects": 0,
        "errors": [],
    }


def test_an_empty_repository(repository: Repository) -> None:
    assert checked(repository) == FsckReport(has_metadata=True)


def test_metadata_only_reads_no_file_content(repository: Repository) -> None:
    digest, _, _ = full(repository)
    path_of(repository, digest).write_bytes(b"")
    report = checked(repository, metadata_only=True)
    assert report.ok
    assert report.objects == Count(0, 0)
    assert report.streams == Count(2, 0)


def test_a_flipped_byte(insecure: Repository) -> None:
    digest = put(insecure)
    flip(path_of(insecure, digest))
    report = checked(insecure)
    found = verity_digest(path_of(insecure, digest).read_bytes(), Algorithm.SHA512)
    assert report.findings == (
        FsckFinding(
            FsckKind.OBJECT_DIGEST_MISMATCH,
            f"objects/{digest.object_path}",
            f"measured {found}",
            digest,
        ),
    )
    assert report_text(report).splitlines()[1:] == [
        "objects: 0/1 ok",
        "streams: 0/0 ok",
        "images: 0/0 ok",
        "status: 1 error(s)",
        f"  - fsck: object-digest-mismatch: objects/{digest.object_path}: measured {found}",
    ]


def test_the_kernel_measures_where_it_can(secure: Repository) -> None:
    digest, other = put(secure), put(secure, b"other")
    path = path_of(secure, digest)
    value = os.getxattr(path_of(secure, other), "user.test.verity")
    os.setxattr(path, "user.test.verity", value)
    report = checked(secure)
    assert kinds(report) == ["object-digest-mismatch"]
    assert report.findings[0].detail == f"measured {other}"


def test_an_object_without_verity(secure: Repository) -> None:
    digest = put(secure)
    os.removexattr(path_of(secure, digest), "user.test.verity")
    assert kinds(checked(secure)) == ["object-verity-missing"]
    flip(path_of(secure, digest))
    assert kinds(checked(secure)) == ["object-digest-mismatch"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(errno.EIO, "object-verity-failed"), (errno.ENOMEM, "object-check-failed")],
)
def test_an_object_that_cannot_be_measured(insecure: Repository, error: int, kind: str) -> None:
    put(insecure)
    put(insecure, b"other")
    report = check(insecure, verity=FakeVerity(error=error))
    assert kinds(report) == [kind, kind]
    assert report.objects == Count(2, 2)
    assert report.findings[0].detail == os.strerror(error)


def test_an_object_that_may_not_be_read(insecure: Repository) -> None:
    path = path_of(insecure, put(insecure))
    os.fchmod(insecure.dir.fileno(), 0o755)
    with bound_by_mode(path, 0):
        report = checked(insecure)
    assert kinds(report) == ["object-check-failed"]
    assert report.findings[0].detail == "Permission denied"


def test_foreign_files_among_objects(insecure: Repository) -> None:
    digest = put(insecure)
    bucket = path_of(insecure, digest).parent
    (bucket / "README\nstatus: ok").write_text("x")
    (bucket / ("0" * 62)).write_text("an object of sha256")
    (path_of(insecure, "objects") / ".tmp-object-0123456789ab").write_text("left by a crash")
    report = checked(insecure)
    assert kinds(report) == ["object-invalid-name", "object-invalid-name"]
    assert report.objects == Count(3, 2)
    assert str(report.findings[1]) == (
        f"fsck: object-invalid-name: objects/{bucket.name}/README\\nstatus: ok: not a digest"
    )


@pytest.mark.parametrize("what", ["symlink", "fifo", "directory"])
def test_what_is_no_file_among_objects(insecure: Repository, what: str) -> None:
    path = path_of(insecure, absent())
    path.parent.mkdir(parents=True)
    if what == "symlink":
        path.symlink_to("/etc/passwd")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    report = checked(insecure)
    assert kinds(report) == ["unexpected-file-type"]
    repair(insecure, report, verity=verity_of(insecure))
    assert checked(insecure).ok


def test_a_bucket_that_is_none(insecure: Repository) -> None:
    path_of(insecure, "objects/ab").write_text("x")
    path_of(insecure, "objects/ac").symlink_to("/usr")
    report = checked(insecure)
    assert [(f.kind.value, f.path) for f in report.findings] == [
        ("unexpected-file-type", "objects/ab"),
        ("unexpected-file-type", "objects/ac"),
    ]


def test_a_huge_hole_takes_no_time(insecure: Repository) -> None:
    size = (1 << 43) + 3
    hasher = VerityHasher(Algorithm.SHA512)
    hasher.update(b"x" * 5000)
    hasher.update_zeros(size - 5000)
    good = hasher.digest()
    for digest, data in ((good, b"x" * 5000), (absent(), b"y" * 100)):
        path = path_of(insecure, digest)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.write(data)
            file.truncate(size)
    started = time.monotonic()
    report = checked(insecure)
    assert time.monotonic() - started < 5
    assert [f.digest for f in report.findings] == [absent()]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_holes_hash_as_zeros(algorithm: Algorithm) -> None:
    pieces = [(b"x", 4095), (b"", 70000), (b"ab" * 40000, 4096 * 700), (b"z", 1), (b"", 0)]
    hasher = VerityHasher(algorithm)
    whole = b""
    for data, zeros in pieces:
        hasher.update(data)
        hasher.update_zeros(zeros)
        whole += data + bytes(zeros)
    assert hasher.digest() == verity_digest(whole, algorithm)


def test_missing_objects(repository: Repository) -> None:
    digest, layer, image = full(repository)
    path_of(repository, digest).unlink()
    report = checked(repository)
    assert report.findings == (
        FsckFinding(FsckKind.MISSING_OBJECT_REF, "streams/oci-layer-sha256:1", digest.hex, digest),
        FsckFinding(FsckKind.IMAGE_MISSING_OBJECT, f"images/{image}", digest.hex, digest),
    )
    assert report.streams == Count(2, 1)
    assert report.images == Count(1, 1)
    assert "missing objects: 2\n" in report_text(report)
    path_of(repository, layer).unlink()
    report = checked(repository)
    assert kinds(report) == ["broken-symlink", "missing-named-ref", "image-missing-object"]
    assert report.findings[1].detail == f"ref sha256:1: {layer}"
    assert report.broken_links == 1
    assert "broken symlinks: 1\n" in report_text(report)


def test_links_that_are_none(insecure: Repository) -> None:
    put_stream(insecure, "good")
    streams, images = path_of(insecure, "streams"), path_of(insecure, "images")
    images.mkdir()
    (streams / "file").write_text("x")
    (streams / "outside").symlink_to("/etc/passwd")
    (streams / "dangling").symlink_to(f"../objects/{absent().object_path}")
    (images / "directory").mkdir()
    refs = streams / "refs" / "a"
    refs.mkdir(parents=True)
    (refs / "file").write_text("x")
    (refs / "good").symlink_to("../../good")
    (refs / "gone").symlink_to("../../gone")
    (refs / "shallow").symlink_to("../good")
    (refs / "to-dangling").symlink_to("../../dangling")
    report = checked(insecure)
    assert [(f.kind.value, f.path) for f in report.findings] == [
        ("broken-symlink", "streams/dangling"),
        ("entry-not-symlink", "streams/file"),
        ("broken-symlink", "streams/outside"),
        ("unexpected-file-type", "streams/refs/a/file"),
        ("broken-symlink", "streams/refs/a/gone"),
        ("broken-symlink", "streams/refs/a/shallow"),
        ("broken-symlink", "streams/refs/a/to-dangling"),
        ("entry-not-symlink", "images/directory"),
    ]
    assert report.streams == Count(4, 3)
    assert report.images == Count(1, 1)


def test_areas_that_are_no_directories(insecure: Repository) -> None:
    path_of(insecure, "streams").write_text("x")
    path_of(insecure, "images").symlink_to("/usr")
    report = checked(insecure)
    assert [(f.kind.value, f.path) for f in report.findings] == [
        ("unexpected-file-type", "streams"),
        ("unexpected-file-type", "images"),
    ]


def test_streams_that_cannot_be_read(insecure: Repository) -> None:
    insecure.streams.write("garbage", b"garbage")
    whole = StreamWriter(Algorithm.SHA512, splitstream.OCI_LAYER)
    whole.inline(b"x" * 1000)
    insecure.streams.write("truncated", whole.finish()[:-3])
    insecure.streams.write("other", StreamWriter(Algorithm.SHA256, b"oci_blob").finish())
    damaged = put_stream(insecure, "damaged")
    flip(path_of(insecure, damaged))
    huge = absent()
    path_of(insecure, huge).parent.mkdir(exist_ok=True)
    path_of(insecure, huge).touch()
    os.truncate(path_of(insecure, huge), MAX_STREAM_BYTES + 1)
    path_of(insecure, "streams/huge").symlink_to(f"../objects/{huge.object_path}")
    report = checked(insecure)
    assert [(f.kind.value, f.path) for f in report.findings if f.path.startswith("streams")] == [
        ("stream-open-failed", "streams/damaged"),
        ("stream-read-failed", "streams/garbage"),
        ("stream-open-failed", "streams/huge"),
        ("stream-read-failed", "streams/other"),
        ("stream-read-failed", "streams/truncated"),
    ]
    details = {f.path: f.detail for f in report.findings}
    assert str(path_of(insecure, damaged)) in details["streams/damaged"]
    assert details["streams/huge"] == (
        f"{path_of(insecure, huge)}: file is larger than {MAX_STREAM_BYTES} bytes"
    )


def test_a_finding_names_the_file_that_cannot_be_read(insecure: Repository) -> None:
    stream, image = put_stream(insecure, "stream"), insecure.images.add(image_bytes())
    for digest in (stream, image):
        path_of(insecure, digest).unlink()
        path_of(insecure, digest).mkdir()
    # As a device that fails would: the directories above can be read, the files cannot.
    details = {finding.path: finding.detail for finding in checked(insecure).findings}
    for path, digest in (("streams/stream", stream), (f"images/{image}", image)):
        assert str(path_of(insecure, digest)) in details[path]


def test_images_that_cannot_be_used(insecure: Repository) -> None:
    sound = image_bytes()
    # The root directory's entries: without one stub, the rest stays in order.
    no_stub = sound.replace(b"000102", b"0001\x01\x02", 1)
    for data in (b"garbage", sound[:-4096], no_stub):
        insecure.images.add(data)
    image = insecure.images.add(sound)
    other = insecure.images.add(image_bytes(put(insecure)))
    report = checked(insecure)
    assert kinds(report) == ["image-invalid"] * 3
    assert report.images == Count(5, 3)
    link = path_of(insecure, f"images/{image}")
    link.unlink()
    link.symlink_to(f"../objects/{other.object_path}")
    flip(path_of(insecure, other), 2000)
    found = {f.path: f.kind.value for f in checked(insecure).findings}
    assert found[f"images/{image}"] == "image-invalid"
    assert found[f"images/{other}"] == "image-open-failed"


def test_metadata(insecure: Repository) -> None:
    meta = path_of(insecure, "meta.json")
    text = meta.read_text()
    meta.write_text(text.replace("sha512", "sha256"))
    report = checked(insecure)
    assert kinds(report) == ["metadata-algorithm-mismatch"]
    assert report_text(report).startswith("meta.json: error\n")
    meta.write_text("{")
    assert kinds(checked(insecure)) == ["metadata-parse-failed"]
    meta.unlink()
    report = checked(insecure)
    assert report.ok
    assert not report.has_metadata
    assert report_text(report).startswith("meta.json: absent\n")


def test_progress(insecure: Repository) -> None:
    for number in range(20):
        put(insecure, b"%d" % number * 10000)
    events: list[Event] = []
    assert check(insecure, events.append, verity=verity_of(insecure)).ok
    start = events[0]
    assert isinstance(start, Start)
    assert start.task == "objects"
    assert start.total == 10 * 10000 + 10 * 20000
    assert [e for e in events if not isinstance(e, Progress)] == [
        start,
        Done("objects"),
        Start("references", "Checking streams and images"),
        Done("references"),
    ]


class GivenUp(Exception):
    """What a sink may raise."""


def test_a_sink_can_end_it(insecure: Repository) -> None:
    put(insecure)

    def sink(event: Event) -> None:
        raise GivenUp

    with pytest.raises(GivenUp):
        check(insecure, sink)


def test_memory_does_not_depend_on_sizes(insecure: Repository) -> None:
    with insecure.objects.writer() as writer:
        for _ in range(64):
            writer.write(bytes(1 << 20))
        writer.commit()
    insecure.objects.flush()
    tracemalloc.start()
    try:
        assert checked(insecure).ok
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
