from __future__ import annotations

import pytest

from bootc.formats.kernelimage import is_kernel, kernel_release
from support.kernels import bzimage


@pytest.mark.parametrize(
    "release", ["6.12.117+deb13-cloud-amd64", "6.12.0-100.fc41.x86_64", "7.0.0-rc1"]
)
def test_x86(release: str) -> None:
    head = bzimage(release)
    assert is_kernel(head)
    assert kernel_release(head) == release


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"MZ",
        b"MZ".ljust(0x400, b"\0"),
        bzimage("6.12")[:0x208],
        bzimage(""),
        bzimage("\x1b[31m"),
        bzimage("é"),
    ],
)
def test_no_release(head: bytes) -> None:
    assert kernel_release(head) is None


def test_what_cannot_be_a_kernel() -> None:
    for stand_in in (b"", b"M", b"vmlinuz", b"fake kernel", b"#!/bin/sh"):
        assert not is_kernel(stand_in)


@pytest.mark.parametrize(
    "head",
    [
        b"\x1f\x8b\x08",  # compressed, of arm64
        b"\x7fELF",  # of ppc64
        bytes(0x38) + b"ARM\x64",
        bytes(0x38) + b"RSC\x05",
        bytes(0x10008) + b"S390EP",
    ],
)
def test_kernels_of_other_machines(head: bytes) -> None:
    assert is_kernel(head)
    assert kernel_release(head) is None
