from __future__ import annotations

import pytest

from bootc.deploy.install.boot_choice import UkiRefused, check_request, kernel_arguments
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.formats.digest import Algorithm, Digest

IMAGE_ID = Digest(Algorithm.SHA512, b"\xab" * 64)


def decisions(
    *,
    allow_missing_verity: bool = False,
    kargs: tuple[str, ...] = (),
    karg_deletes: tuple[str, ...] = (),
    filesystem: Filesystem = Filesystem.EXT4,
) -> Decisions:
    return Decisions(
        machine="x86_64",
        loader=SystemdBootInstaller(),
        filesystem=filesystem,
        allow_missing_verity=allow_missing_verity,
        kargs=kargs,
        karg_deletes=karg_deletes,
    )


def arguments(what: Decisions, *kargs_d: str, root: tuple[str, ...] = ("rw",)) -> list[str]:
    return kernel_arguments(what, root, IMAGE_ID, kargs_d)


def test_the_arguments_of_the_root_come_first() -> None:
    assert arguments(decisions(kargs=("quiet",)), root=("root=UUID=0", "rw")) == [
        "root=UUID=0",
        "rw",
        "quiet",
        f"composefs={'ab' * 64}",
    ]


def test_missing_verity_is_marked() -> None:
    assert arguments(decisions(allow_missing_verity=True)) == ["rw", f"composefs=?{'ab' * 64}"]


def test_the_order_of_what_is_added() -> None:
    what = decisions(kargs=("console=ttyS0", "quiet"))
    assert arguments(what, "audit=1", "splash") == [
        "rw",
        "console=ttyS0",
        "quiet",
        f"composefs={'ab' * 64}",
        "audit=1",
        "splash",
    ]


def test_an_argument_given_twice_counts_once_and_other_values_stay() -> None:
    what = decisions(kargs=("quiet", "console=tty0", "quiet", "console=ttyS0", "rw"))
    assert arguments(what, "console=tty0", "quiet", "last") == [
        "rw",
        "quiet",
        "console=tty0",
        "console=ttyS0",
        f"composefs={'ab' * 64}",
        "last",
    ]


def test_one_option_may_hold_several_arguments_and_quotes() -> None:
    assert arguments(decisions(kargs=('a b="c d"',)))[1:3] == ["a", 'b="c d"']


@pytest.mark.parametrize(
    ("deletes", "left"),
    [
        (("quiet",), ["root=", "rw", "quiet=user", "composefs=", "audit=1", "console=a"]),
        (("quiet=1", "console=a"), ["root=", "rw", "quiet=user", "composefs=", "quiet", "audit=1"]),
        (("audit quiet=1 root",), ["rw", "quiet=user", "composefs=", "quiet", "console=a"]),
    ],
)
def test_deleted_arguments_are_those_of_disk_and_image(
    deletes: tuple[str, ...], left: list[str]
) -> None:
    what = decisions(kargs=("quiet=user",), karg_deletes=deletes)
    root = ("root=UUID=0", "rw")
    found = arguments(what, "quiet", "quiet=1", "audit=1", "console=a", root=root)
    shown = [arg.partition("=")[0] + "=" if arg[:4] in ("root", "comp") else arg for arg in found]
    assert shown == left


@pytest.mark.parametrize("sealed", [True, False])
def test_a_unified_kernel_image_may_demand_what_the_disk_has(sealed: bool) -> None:
    check_request(decisions(), sealed=sealed)


@pytest.mark.parametrize("filesystem", Filesystem)
def test_a_tolerant_unified_kernel_image_goes_anywhere(filesystem: Filesystem) -> None:
    check_request(decisions(filesystem=filesystem, allow_missing_verity=True), sealed=False)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            decisions(filesystem=Filesystem.XFS, allow_missing_verity=True),
            "Specified filesystem xfs does not support fs-verity, which the image's UKI demands",
        ),
        (
            decisions(allow_missing_verity=True),
            "--allow-missing-verity is of no use: the image's UKI demands fs-verity at each boot",
        ),
        (
            decisions(kargs=("debug quiet", "last")),
            "Cannot use externally specified kernel arguments with UKI: debug quiet",
        ),
        (decisions(karg_deletes=("quiet",)), "Cannot delete kernel arguments of a UKI: quiet"),
    ],
)
def test_what_a_sealed_image_refuses(what: Decisions, words: str) -> None:
    with pytest.raises(UkiRefused) as caught:
        check_request(what, sealed=True)
    assert caught.value.message == words
