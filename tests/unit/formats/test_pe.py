"""Sections of unified kernel images (composefs, "UKI parsing")."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.cmdline import CmdlineError
from bootc.formats.pe import MAX_TEXT_BYTES, PeError, Section, Uki
from support.pe import PE_OFFSET, SECTION_TABLE, UKI_SECTIONS, headers, program

DIGEST = "ab" * 64
NOT_PE = "UKI is not valid EFI executable: "


def uki(*sections: tuple[bytes, bytes]) -> Uki:
    return Uki.read(io.BytesIO(program(*sections)))


def content(image: Uki, name: str) -> bytes:
    return b"".join(image.chunks(name))


def test_what_a_uki_says() -> None:
    image = uki(*UKI_SECTIONS, (b".uname", b"6.12.1"))
    assert list(image.sections) == [".osrel", ".cmdline", ".linux", ".initrd", ".uname"]
    for name, expected in UKI_SECTIONS:
        assert content(image, name.decode()) == expected
    assert image.text(".uname") == "6.12.1"
    assert image.composefs_images().hexes == (DIGEST,)
    assert image.os_release().id == "fedora"
    assert image.boot_label() == "Fedora Linux 43 43"
    assert image.boot_digest() == hashlib.sha256(b"kernel" * 100 + b"initramfs" * 100).hexdigest()


def test_the_size_is_the_virtual_one() -> None:
    # 3 bytes of content, then 509 that only fill the block.
    assert content(uki((b".uname", b"6.1")), ".uname") == b"6.1"


def test_the_first_of_equal_names_counts() -> None:
    assert uki((b".uname", b"1"), (b".uname", b"2")).text(".uname") == "1"


def test_names_are_compared_to_the_last_byte() -> None:
    image = uki((b".linux\0x", b"1"), (b".cmdline", b"2"), (b".linuxes", b"3"), (b"\xff", b"4"))
    assert list(image.sections) == [".linux\0x", ".cmdline", ".linuxes", "\xff"]
    with pytest.raises(PeError, match=r"^UKI doesn't contain a '\.linux' section$"):
        image.chunks(".linux")


def test_nothing_to_find_is_no_error() -> None:
    assert uki().sections == {}


def test_sections_without_content() -> None:
    data = headers([(b".bss", 1 << 31, 0), (b".initrd", 0, 0)])
    image = Uki.read(io.BytesIO(data))
    assert image.sections == {".bss": Section(0, 1 << 31), ".initrd": Section(0, 0)}
    assert content(image, ".initrd") == b""


MZ = b"MZ" + bytes(58)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated header at offset 60"),
        (bytes(63), "truncated header at offset 60"),
        (bytes(64), "no MZ signature at offset 0"),
        (b"ZM" + program((b".linux", b"x"))[2:], "no MZ signature at offset 0"),
        (MZ + bytes(4), "no PE signature at offset 0"),
        (MZ + b"\xff\xff\xff\xff", "truncated header at offset 4294967295"),
        (MZ + b"\x40\0\0\0PE\0\0" + bytes(19), "truncated header at offset 64"),
        (MZ + b"\x40\0\0\0PE\1\0" + bytes(20), "no PE signature at offset 64"),
        (
            MZ + b"\x40\0\0\0PE\0\0" + bytes(2) + b"\xff\xff" + bytes(16),
            "truncated section table at offset 88",
        ),
        (
            program((b".linux", b"x"))[: SECTION_TABLE + 39],
            f"truncated section table at offset {SECTION_TABLE}",
        ),
    ],
)
def test_what_is_no_efi_program(data: bytes, message: str) -> None:
    with pytest.raises(PeError) as caught:
        Uki.read(io.BytesIO(data))
    assert caught.value.message == NOT_PE + message


@pytest.mark.parametrize(
    ("offset", "size"), [(0, SECTION_TABLE + 41), (SECTION_TABLE + 41, 1), (2**32 - 1, 2**32 - 512)]
)
def test_sections_beyond_the_end(offset: int, size: int) -> None:
    image = Uki.read(io.BytesIO(headers([(b".linux", size, offset)])))
    with pytest.raises(PeError) as caught:
        image.boot_digest()
    assert (
        caught.value.message
        == f"{NOT_PE}section '.linux' reaches beyond the end at offset {offset}"
    )


def test_a_file_that_shrinks_while_it_is_read() -> None:
    file = io.BytesIO(program(*UKI_SECTIONS))
    image = Uki.read(file)
    at = image.sections[".initrd"].offset
    file.truncate(at + 10)
    with pytest.raises(PeError) as caught:
        image.boot_digest()
    assert caught.value.message == f"{NOT_PE}truncated section '.initrd' at offset {at + 10}"


def test_a_file_that_returns_less_than_asked_for() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 7))

    assert Uki.read(Trickle(program(*UKI_SECTIONS))).boot_label() == "Fedora Linux 43 43"


@pytest.mark.parametrize("missing", [".osrel", ".cmdline", ".linux", ".initrd"])
def test_missing_sections_are_named(missing: str) -> None:
    image = uki(*(section for section in UKI_SECTIONS if section[0] != missing.encode()))
    needs = {
        ".osrel": image.boot_label,
        ".cmdline": image.composefs_images,
        ".linux": image.boot_digest,
        ".initrd": image.boot_digest,
    }
    for name, call in needs.items():
        if call != needs[missing]:
            call()
            continue
        with pytest.raises(PeError) as caught:
            call()
        assert caught.value.message == f"UKI doesn't contain a {missing!r} section", name


@pytest.mark.parametrize("end", [b"", b"\n", b"\0", b" \n\0\0\0"])
def test_a_command_line_may_end_in_zero_bytes(end: bytes) -> None:
    images = uki((b".cmdline", b"rw composefs=?" + DIGEST.encode() + end)).composefs_images()
    assert (images.hexes, images.optional) == ((DIGEST,), True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"rw\0 composefs=x", "goes on after a zero byte at offset 434"),
        (b"rw\0\0\n", "goes on after a zero byte at offset 434"),
        (b"quiet \xff", "is not UTF-8 at offset 438"),
        (bytes(MAX_TEXT_BYTES + 1), "has 1048577 bytes, more than 1048576"),
    ],
)
def test_what_is_no_text(text: bytes, message: str) -> None:
    assert SECTION_TABLE + 40 == 432
    with pytest.raises(PeError) as caught:
        uki((b".cmdline", text)).composefs_images()
    assert caught.value.message == f"UKI section '.cmdline' {message}"


OTHER = "cd" * 64
IMAGE = f"composefs={DIGEST}"
CMDLINE, PROFILE = b".cmdline", b".profile"


def profile(name: str, *lines: str) -> list[tuple[bytes, bytes]]:
    return [(PROFILE, f"ID={name}\n".encode()), *((CMDLINE, line.encode()) for line in lines)]


@pytest.mark.parametrize(
    "sections",
    [
        [(CMDLINE, f"rw {IMAGE}".encode()), *profile("main")],
        [(CMDLINE, f"rw {IMAGE}".encode()), *profile("main"), *profile("debug", f"debug {IMAGE}")],
        [*profile("main", IMAGE), *profile("debug", f"debug {IMAGE}")],
        [(CMDLINE, IMAGE.encode()), (CMDLINE, f"rw {IMAGE}".encode())],
        [(CMDLINE, f"composefs.digest=v1-sha512-12:{DIGEST}".encode()), *profile("a", IMAGE)],
    ],
)
def test_each_profile_boots_the_image(sections: list[tuple[bytes, bytes]]) -> None:
    image = uki(*sections)
    assert image.composefs_images().hexes == (DIGEST,)
    assert len(image.texts(".cmdline")) == sum(name == CMDLINE for name, _ in sections)


V1 = f"composefs.digest=v1-sha512-12:{DIGEST}"
BOTH = f"{V1} composefs={OTHER}"


@pytest.mark.parametrize(
    "sections",
    [
        [(CMDLINE, BOTH.encode())],
        [(CMDLINE, BOTH.encode()), *profile("a"), *profile("b", f"{BOTH} debug")],
        # The image is found whichever is tried first.
        [(CMDLINE, BOTH.encode()), *profile("a", f"composefs={OTHER} {V1}")],
    ],
)
def test_two_digests_in_each_profile(sections: list[tuple[bytes, bytes]]) -> None:
    images = uki(*sections).composefs_images()
    assert (images.hexes, images.deployment) == ((DIGEST, OTHER), DIGEST)


@pytest.mark.parametrize(
    ("base", "other", "message"),
    [
        # It would boot with a state directory of another name, or none.
        (BOTH, V1, f"profile 0 (a): the kernel command line has {V1:.42}…, and another one "),
        (V1, BOTH, f"profile 0 (a): the kernel command line has composefs={OTHER:.12}…, "),
        (BOTH, f"composefs={DIGEST} composefs={OTHER}", None),
        (f"composefs={DIGEST} {BOTH}", f"composefs={OTHER} composefs={DIGEST}", "profile 0 (a): "),
        (BOTH, f"{V1} composefs=?{OTHER}", "profile 0 (a): the arguments composefs.digest=v1-"),
        (f"{V1} composefs=?{OTHER}", BOTH, "the arguments composefs.digest=v1-"),
    ],
)
def test_profiles_with_other_digests(base: str, other: str, message: str | None) -> None:
    image = uki((CMDLINE, base.encode()), *profile("a", other))
    if message is None:
        assert image.composefs_images().deployment == DIGEST
        return
    with pytest.raises(CmdlineError) as caught:
        image.composefs_images()
    assert caught.value.message.startswith(message)


def test_the_device_tree_is_part_of_what_boots() -> None:
    parts = [(b".linux", b"kernel"), (b".initrd", b"initramfs")]
    plain = hashlib.sha256(b"kernelinitramfs").hexdigest()
    assert uki(*parts).boot_digest() == plain
    assert uki((b".dtb", b"tree"), *parts).boot_digest() == (
        hashlib.sha256(b"kernelinitramfstree").hexdigest()
    )
    # Another name, as of the device trees that the stub chooses from.
    assert uki(*parts, (b".dtbauto", b"tree")).boot_digest() == plain


NO_IMAGE = "no composefs image in the kernel command line"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        # The command line of a profile replaces the one of the base.
        (
            [(CMDLINE, IMAGE.encode()), *profile("a"), *profile("b", "rw")],
            f"profile 1 (b): {NO_IMAGE}",
        ),
        ([(CMDLINE, IMAGE.encode()), *profile("a", "")], f"profile 0 (a): {NO_IMAGE}"),
        # Stubs that know no profiles boot with that of the base, or with the last one.
        ([(CMDLINE, b"rw"), *profile("a", IMAGE)], NO_IMAGE),
        ([(CMDLINE, IMAGE.encode()), (CMDLINE, b"rw")], NO_IMAGE),
        ([*profile("a", IMAGE, "rw")], f"profile 0 (a): {NO_IMAGE}"),
        (
            [*profile("a", IMAGE), *profile("b", f"composefs={OTHER}")],
            f"profile 1 (b): the kernel command line has composefs={OTHER:.12}…, "
            f"and another one composefs={DIGEST:.12}…",
        ),
        (
            [(CMDLINE, IMAGE.encode()), *profile("a", f"composefs=?{DIGEST}")],
            f"profile 0 (a): the kernel command line has composefs=?{DIGEST:.12}…, "
            f"and another one composefs={DIGEST:.12}…",
        ),
        (
            [*profile("a", IMAGE), *profile("b", "composefs=12")],
            "profile 1 (b): kernel argument 'composefs=12' is not an image digest",
        ),
        ([(PROFILE, b"\xff"), (CMDLINE, b"rw")], f"profile 0: {NO_IMAGE}"),
    ],
)
def test_a_profile_that_would_boot_without_the_image(
    sections: list[tuple[bytes, bytes]], message: str
) -> None:
    with pytest.raises(CmdlineError) as caught:
        uki(*sections).composefs_images()
    assert caught.value.message == message
    assert caught.value.hint == "name the image on the command line of each profile of the UKI"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            [*profile("a", IMAGE), *profile("b")],
            "profile 1 (b): UKI doesn't contain a '.cmdline' section",
        ),
        ([*profile("a", IMAGE) * 257], "UKI has more than 256 profiles"),
        ([(CMDLINE, b"rw")] * 257, "UKI has 257 sections '.cmdline'"),
        ([*profile("a", IMAGE), *profile("b", "rw\0x")], "UKI section '.cmdline' goes on after"),
    ],
)
def test_profiles_that_cannot_be_read(sections: list[tuple[bytes, bytes]], message: str) -> None:
    with pytest.raises(PeError) as caught:
        uki(*sections).composefs_images()
    assert caught.value.message.startswith(message)


def test_a_command_line_for_no_image() -> None:
    with pytest.raises(CmdlineError, match="no composefs image in the kernel command line"):
        uki((b".cmdline", b"rw quiet")).composefs_images()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (b"NAME=prettyOS\nVERSION='Rocky Racoon'", "prettyOS Rocky Racoon"),
        (b"ID=x", "x"),
        (b"PRETTY_NAME=p\nNAME=n\nVERSION=1\nVERSION_ID=2", "p 2"),
    ],
)
def test_boot_label(text: bytes, label: str) -> None:
    assert uki((b".osrel", text)).boot_label() == label


def test_no_boot_label() -> None:
    with pytest.raises(PeError, match=r"^No name information found in \.osrel section$"):
        uki((b".osrel", b"VERSION_ID=1\n")).boot_label()


def test_a_large_uki_needs_little_memory(tmp_path: Path) -> None:
    """300 MB of kernel and initramfs in 20 MB: here it takes less than one."""
    path = tmp_path / "large.efi"
    sizes = {b".linux": 15_000_000, b".initrd": 285_000_000}
    small = UKI_SECTIONS[:2]
    with path.open("wb") as file:
        at = 4096
        placed = []
        for name, text in small:
            placed.append((name, len(text), at))
            file.seek(at)
            file.write(text)
            at += 4096
        for name, size in sizes.items():
            placed.append((name, size, at))
            at += size
        file.truncate(at)
        file.seek(0)
        file.write(headers(placed))
    with path.open("rb") as file:
        tracemalloc.start()
        image = Uki.read(file)
        assert image.boot_label() == "Fedora Linux 43 43"
        assert image.composefs_images().hexes == (DIGEST,)
        digest = image.boot_digest()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    zeros = hashlib.sha256()
    for _ in range(300):
        zeros.update(bytes(1_000_000))
    assert digest == zeros.hexdigest()
    assert peak < 1_000_000


names = st.binary(min_size=1, max_size=8).filter(lambda name: not name.endswith(b"\0"))


@settings(deadline=None)
@given(st.dictionaries(names, st.binary(max_size=700), max_size=6))
def test_what_is_written_is_found(sections: dict[bytes, bytes]) -> None:
    image = uki(*sections.items())
    found = {name.encode("latin-1"): content(image, name) for name in image.sections}
    assert found == sections


@settings(deadline=None)
@given(st.integers(PE_OFFSET, SECTION_TABLE + 160), st.integers(0, 2**32 - 1), st.integers(0, 900))
def test_damage_is_refused_or_harmless(at: int, word: int, end: int) -> None:
    data = bytearray(program(*UKI_SECTIONS))
    struct.pack_into("<I", data, at, word)
    for damaged in (data, data[:end]):
        with contextlib.suppress(PeError, CmdlineError):
            image = Uki.read(io.BytesIO(damaged))
            image.boot_label()
            image.composefs_images()
            image.boot_digest()
