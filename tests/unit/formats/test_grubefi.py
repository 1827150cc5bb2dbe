from __future__ import annotations

import pytest

from bootc.formats.grubefi import configuration_directory
from bootc.formats.grubembed import GrubImageError
from support import grubtree


@pytest.mark.parametrize(
    ("program", "words"),
    [(b"MZ", "no directory"), (b"\0/EFI/a\0\0/EFI/b\0", "several"), (b"x/EFI/a\0", "no directory")],
)
def test_a_program_without_one_directory_is_refused(program: bytes, words: str) -> None:
    with pytest.raises(GrubImageError, match=words):
        configuration_directory(program)


@pytest.mark.parametrize(
    "path", ["x86_64-efi-signed/grubx64.efi.signed", "x86_64-efi/monolithic/grubx64.efi"]
)
def test_the_directory_of_debians_programs(path: str) -> None:
    program = (grubtree.find() / "usr/lib/grub" / path).read_bytes()
    assert configuration_directory(program) == "EFI/debian"
