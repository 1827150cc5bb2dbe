from __future__ import annotations

import pytest

from bootc.formats.grubefi import configuration_directory
from bootc.formats.grubembed import GrubImageError


@pytest.mark.parametrize(
    ("program", "words"),
    [(b"MZ", "no directory"), (b"\0/EFI/a\0\0/EFI/b\0", "several"), (b"x/EFI/a\0", "no directory")],
)
def test_a_program_without_one_directory_is_refused(program: bytes, words: str) -> None:
    with pytest.raises(GrubImageError, match=words):
        configuration_directory(program)
