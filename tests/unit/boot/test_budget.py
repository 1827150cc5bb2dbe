from __future__ import annotations

import pytest

from bootc.boot.budget import NoSpaceOnBoot, plan_space, sharing_file_system
from bootc.boot.publish import Artifact, ArtifactKind
from support.bootdirs import GRUB, GRUB_UKI, SYSTEMD

MIB = 1 << 20
CLUSTER = 4096
SPARE = 16 * CLUSTER


def artifact(
    name: str, mib: int = 100, *, age: int = 0, kind: ArtifactKind = ArtifactKind.KERNEL
) -> Artifact:
    return Artifact(name, kind, f"EFI/Linux/{name}", mib * MIB, -age)


OLD, OLDER, USED = artifact("old", age=1), artifact("older", age=2), artifact("used", age=9)
CUT = artifact("cut", 5, kind=ArtifactKind.LEFTOVER)
NEW = {"vmlinuz": 20 * MIB, "initrd": 80 * MIB}


@pytest.mark.parametrize(
    ("free", "evicted"),
    [
        (100 * MIB + SPARE, []),
        (100 * MIB + SPARE - 1, ["cut"]),
        (95 * MIB + SPARE, ["cut"]),
        (95 * MIB + SPARE - 1, ["cut", "older"]),
        (0, ["cut", "older"]),
    ],
)
def test_only_as_much_as_it_takes(free: int, evicted: list[str]) -> None:
    plan = plan_space([OLD, USED, CUT, OLDER], {"used"}, NEW, free, CLUSTER)
    assert [artifact.name for artifact in plan.evict] == evicted
    assert plan.required_bytes == 100 * MIB + SPARE


def test_files_take_whole_clusters() -> None:
    plan = plan_space([], set(), {"a": 1, "b": CLUSTER, "c": CLUSTER + 1, "d": 0}, MIB, CLUSTER)
    assert plan.required_bytes == 4 * CLUSTER + SPARE
    with pytest.raises(NoSpaceOnBoot):
        plan_space([artifact("x", 0)], set(), {}, SPARE - 1, CLUSTER)


def test_what_a_shared_kernel_needs() -> None:
    plan = plan_space([OLD, USED], {"used"}, None, SPARE, CLUSTER)
    assert (plan.evict, plan.required_bytes) == ((), SPARE)
    assert plan_space([OLD, USED], {"used"}, None, 0, CLUSTER).evict == (OLD,)


def test_a_shared_kernel_counts_once() -> None:
    # Three deployments boot with it; it is one artifact, and its name is needed.
    with pytest.raises(NoSpaceOnBoot, match=r"kernels of used 100\.0 MiB$"):
        plan_space([USED], {"used", "used-by-b"}, NEW, 0, CLUSTER)


def test_the_sum_of_what_does_not_fit() -> None:
    with pytest.raises(NoSpaceOnBoot) as caught:
        plan_space([OLD, USED], {"used"}, {"vmlinuz": 220 * MIB}, 30 * MIB, CLUSTER)
    assert caught.value.message == (
        "the boot partition has 30.0 MiB free, but the update needs 220.1 MiB "
        "(vmlinuz 220.0 MiB); removing what nothing needs would leave 130.0 MiB free; "
        "in use are the kernels of used 100.0 MiB"
    )
    assert caught.value.hint is not None
    assert "bootc delete-deployment" in caught.value.hint


def test_where_grub_keeps_its_artifacts() -> None:
    uki = artifact("uki", kind=ArtifactKind.UKI)
    everything = (OLD, uki, CUT)
    assert sharing_file_system(SYSTEMD, everything) == everything
    assert sharing_file_system(GRUB, everything) == (OLD,)
    assert sharing_file_system(GRUB_UKI, everything) == (uki, CUT)
