"""Names, kinds and order of lints are interfaces."""

from __future__ import annotations

import pytest

from bootc.lint.model import Lint, LintKind, RootType
from bootc.lint.table import LINTS

FATAL = {
    "api-base-directories",
    "baseimage-root",
    "bootc-kargs",
    "etc-usretc",
    "kernel",
    "utf8",
    "var-run",
}
WARNINGS = {
    "baseimage-composefs",
    "buildah-injected",
    "nonempty-boot",
    "nonempty-run-tmp",
    "sysusers",
    "var-log",
    "var-tmpfiles",
}
UPSTREAM = [one for one in LINTS if not one.own]
OWN = [one for one in LINTS if one.own]


def test_upstreams() -> None:
    assert {one.name for one in UPSTREAM if one.kind is LintKind.FATAL} == FATAL
    assert {one.name for one in UPSTREAM if one.kind is LintKind.WARNING} == WARNINGS
    assert len(UPSTREAM) == 14


def test_root_types() -> None:
    assert {one.name: one.root_type for one in LINTS if one.root_type} == {
        "buildah-injected": RootType.ALTERNATIVE,
        "pybootc-seal-layers": RootType.ALTERNATIVE,
        "pybootc-uki-digests": RootType.ALTERNATIVE,
        "var-tmpfiles": RootType.RUNNING,
    }


def test_the_order() -> None:
    def order(one: Lint) -> tuple[bool, bool, str]:
        return one.own, one.look is not None, one.name

    assert [one.name for one in LINTS] == [one.name for one in sorted(LINTS, key=order)]


def test_ours_are_told_apart_and_warn() -> None:
    assert [one.name.removeprefix("pybootc-") for one in OWN] == [
        "esp-size",
        "fstab",
        "initramfs",
        "installable",
        "kernel-version",
        "machine-id",
        "os-release",
        "seal-kargs",
        "seal-kernel",
        "seal-layers",
        "seal-lockdown",
        "seal-panic",
        "seal-signatures",
        "skopeo",
        "uki-digests",
        "usr-merge",
    ]
    assert {one.kind for one in OWN} == {LintKind.WARNING}


@pytest.mark.parametrize("one", LINTS, ids=lambda one: one.name)
def test_each_either_checks_or_looks_and_is_described(one: Lint) -> None:
    assert (one.check is None) != (one.look is None)
    assert one.description.endswith(".")
    assert one.description.isprintable()
