"""The repair of a damaged repository."""

from __future__ import annotations

import errno
import json
import os

import pytest

from bootc.cli.render.repair import repaired_json, repaired_text
from bootc.fs.dir import Dir
from bootc.fs.lock import LockedHere
from bootc.repository.fsck import check
from bootc.repository.repair import repair
from bootc.repository.repository import Repository
from support.faults import DATA, checked, flip, full, path_of, put, put_stream, verity_of
from support.verity import FakeVerity


def test_nothing_to_repair(repository: Repository) -> None:
    full(repository)
    before = sorted(path_of(repository, ".").rglob("*"))
    repaired = repair(repository, checked(repository), verity=verity_of(repository))
    assert repaired_text(repaired) == "nothing to repair\n"
    assert sorted(path_of(repository, ".").rglob("*")) == before


def test_repair_moves_damage_away_and_names_who_needs_it(insecure: Repository) -> None:
    digest, layer, image = full(insecure)
    healthy = put(insecure, b"healthy")
    put_stream(insecure, "oci-layer-sha256:3", healthy)
    flip(path_of(insecure, digest))
    damaged = path_of(insecure, digest).read_bytes()
    repaired = repair(insecure, checked(insecure), verity=verity_of(insecure))
    assert repaired.quarantined == (digest,)
    assert repaired.set_aside == ("oci-layer-sha256:1",)
    assert repaired.needed_by == {
        digest: ("streams/incomplete-oci-layer-sha256:1", f"images/{image}")
    }
    assert path_of(insecure, f"quarantine/{digest}").read_bytes() == damaged
    assert not insecure.streams.exists("oci-layer-sha256:1")
    assert insecure.streams.exists("oci-layer-sha256:3")
    # Garbage collection still finds what the layer has of healthy objects.
    assert insecure.streams.digest_of("incomplete-oci-layer-sha256:1") == layer
    assert insecure.streams.refs() == {"oci/tag": "oci-manifest-sha256:2"}
    assert json.loads(json.dumps(repaired_json(repaired)))["needed_by"][str(digest)] == [
        "streams/incomplete-oci-layer-sha256:1",
        f"images/{image}",
    ]
    assert repaired_text(repaired).splitlines() == [
        f"quarantined: {digest}",
        "set aside: oci-layer-sha256:1",
        f"missing: {digest}",
        "  needed by streams/incomplete-oci-layer-sha256:1",
        f"  needed by images/{image}",
    ]
    again = repair(insecure, checked(insecure), verity=verity_of(insecure))
    assert (again.quarantined, again.set_aside) == ((), ())
    assert put(insecure) == digest
    assert checked(insecure).ok


def test_repair_twice_keeps_both_damaged_objects(insecure: Repository) -> None:
    digest = put(insecure)
    for _ in range(2):
        flip(path_of(insecure, digest))
        repair(insecure, checked(insecure), verity=verity_of(insecure))
        put(insecure)
    assert sorted(path.name for path in path_of(insecure, "quarantine").iterdir()) == [
        digest.hex,
        f"{digest}.1",
    ]


def test_repair_leaves_what_has_become_healthy(insecure: Repository) -> None:
    digest = put(insecure)
    flip(path_of(insecure, digest))
    report = checked(insecure)
    flip(path_of(insecure, digest))
    assert repair(insecure, report, verity=verity_of(insecure)).quarantined == ()
    assert checked(insecure).ok


def test_repair_leaves_what_it_cannot_judge(insecure: Repository) -> None:
    digest = put(insecure)
    kernel = FakeVerity(error=errno.ENOMEM)
    bucket = path_of(insecure, digest).parent.name
    path_of(insecure, f"objects/{bucket}/README").write_text("x")
    repaired = repair(insecure, check(insecure, verity=kernel), verity=kernel)
    assert repaired.quarantined == ()
    assert [finding.kind.value for finding in repaired.left] == [
        "object-invalid-name",
        "object-check-failed",
    ]
    assert repaired_text(repaired).splitlines()[0] == (
        f"left: fsck: object-invalid-name: objects/{bucket}/README: not a digest"
    )
    assert path_of(insecure, digest).exists()


def test_repair_gives_verity_back(secure: Repository) -> None:
    digest = put(secure)
    path = path_of(secure, digest)
    os.removexattr(path, "user.test.verity")
    repaired = repair(secure, checked(secure), verity=verity_of(secure))
    assert repaired.resealed == (digest,)
    assert repaired.quarantined == ()
    assert checked(secure).ok
    assert path.read_bytes() == DATA


def test_a_layer_that_makes_no_sense_is_quarantined(insecure: Repository) -> None:
    insecure.streams.write("oci-layer-sha256:1", b"garbage")
    insecure.streams.write("not-ours", b"garbage")
    repaired = repair(insecure, checked(insecure), verity=verity_of(insecure))
    assert repaired.set_aside == ("oci-layer-sha256:1",)
    assert path_of(insecure, "quarantine/oci-layer-sha256:1").read_bytes() == b"garbage"
    assert [(f.kind.value, f.path) for f in repaired.left] == [
        ("stream-read-failed", "streams/not-ours")
    ]
    assert "left: fsck: stream-read-failed: streams/not-ours: " in repaired_text(repaired)


def test_repair_needs_to_be_alone(insecure: Repository, parent: Dir) -> None:
    digest = put(insecure)
    flip(path_of(insecure, digest))
    report = checked(insecure)
    with Repository.open(parent, require_verity=False), pytest.raises(LockedHere):
        repair(insecure, report, verity=verity_of(insecure))
    assert path_of(insecure, digest).exists()


def test_repair_needs_a_writable_repository(parent: Dir, insecure: Repository) -> None:
    with (
        Repository.open(parent, require_verity=False) as repository,
        pytest.raises(OSError, match="reading only") as caught,
    ):
        repair(repository, checked(repository))
    assert caught.value.errno == errno.EROFS


def test_a_repair_that_cannot_move_says_so_and_goes_on_later(
    insecure: Repository,
) -> None:
    digest = put(insecure)
    flip(path_of(insecure, digest))
    report = checked(insecure)
    obstacle = path_of(insecure, "quarantine")
    obstacle.write_text("x")
    with pytest.raises(NotADirectoryError) as caught:
        repair(insecure, report, verity=verity_of(insecure))
    assert caught.value.__notes__ == [f"Repairing {insecure.dir.path}"]
    obstacle.unlink()
    assert repair(insecure, report, verity=verity_of(insecure)).quarantined == (digest,)
