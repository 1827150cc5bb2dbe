"""Sizes as text, and the size of the ESP that an image asks for."""

from __future__ import annotations

import pytest

from bootc.boot.esp_size import configured_esp_size_mib, parse_size


@pytest.mark.parametrize(
    ("text", "size_mib"),
    [
        ("1", 1),
        ("512M", 512),
        ("512MiB", 512),
        ("10G", 10240),
        ("10GiB", 10240),
        ("2T", 2097152),
        ("1TiB", 1048576),
        ("10 G", 10240),
    ],
)
def test_sizes(text: str, size_mib: int) -> None:
    assert parse_size(text) == size_mib


@pytest.mark.parametrize(
    "text", ["", "0", "0G", "-1G", "1.5G", "10K", "10g", "G", "1GB", " 1G", "1G\n", "٣G", "0x10"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("files", "size_mib"),
    [
        ([], None),
        ([b""], None),
        ([b'[install]\nesp-size = "2G"'], 2048),
        ([b'[install]\nesp-size = "2G"', b'[install]\nesp-size = "3G"', b"[install]"], 3072),
        ([b'[install]\nesp-size = "2G"', b"\xff", b"[", b"x=" + b"[" * 50_000], 2048),
        ([b'[install]\nesp-size = "2G"', b'[install]\nesp-size = "much"'], 2048),
        ([b"install = []", b"[install]\nesp-size = 7"], None),
        ([b'esp-size = "2G"'], None),
    ],
)
def test_what_an_image_asks_for(files: list[bytes], size_mib: int | None) -> None:
    assert configured_esp_size_mib(files) == size_mib
