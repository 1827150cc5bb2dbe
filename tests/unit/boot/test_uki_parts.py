from __future__ import annotations

import hashlib

import pytest

from bootc.boot.image_content import DamagedKernel
from bootc.boot.image_kernel import UkiFile
from bootc.boot.kernels import boot_digest_of, find_shared_kernel, more_files, publish_kernel
from bootc.boot.scheme import BootDirs
from bootc.boot.uki_parts import CannotTakeApart, take_apart
from bootc.errors import Error, one_line
from bootc.formats.cmdline import CmdlineError
from bootc.formats.origin import TakesApart
from bootc.formats.pe import PeError
from support.bootdirs import deployment
from support.objectdir import ObjectDirectory
from support.pe import program

A, B = deployment(0xAB), deployment(2)
LINUX, INITRD = (b".linux", b"kernel" * 100), (b".initrd", b"initramfs" * 100)
DTB, UCODE = (b".dtb", b"tree" * 100), (b".ucode", b"code" * 100)
NAMES = f"composefs.digest=?v1-sha512-12:{A} composefs=?{B}".encode()
CMDLINE = (b".cmdline", b"rw " + NAMES + b' quiet a="b c"\0')
IMAGE = (CMDLINE, LINUX, INITRD)
ARGUMENTS = ("rw", "quiet", 'a="b c"')
UNAME = (b".uname", b"6.12.1")


def uki_of(objects: ObjectDirectory, *sections: tuple[bytes, bytes]) -> UkiFile:
    return UkiFile("boot/EFI/Linux/6.12.efi", objects.leaf(program(*(sections or IMAGE))), {})


def with_addons(
    uki: UkiFile, objects: ObjectDirectory, own: dict[str, bytes], shared: dict[str, bytes]
) -> UkiFile:
    return UkiFile(
        uki.path,
        uki.leaf,
        {name: objects.leaf(data) for name, data in own.items()},
        {name: objects.leaf(data) for name, data in shared.items()},
    )


def arguments(uki: UkiFile, objects: ObjectDirectory) -> tuple[str, ...]:
    return take_apart(uki, objects, TakesApart.UNSEALED, sealed=False).arguments


@pytest.mark.parametrize("more", [(), (DTB,), (UCODE,), (UCODE, DTB)])
def test_the_parts_are_written_and_shared(
    dirs: BootDirs, objects: ObjectDirectory, more: tuple[tuple[bytes, bytes], ...]
) -> None:
    parts = take_apart(uki_of(objects, *IMAGE, *more), objects, TakesApart.ALL, sealed=True)
    files = {"vmlinuz": LINUX[1], "initrd": INITRD[1]}
    files |= {"devicetree": DTB[1]} if DTB in more else {}
    files |= {"microcode": UCODE[1]} if UCODE in more else {}
    assert parts.arguments == ARGUMENTS
    assert parts.sizes == {name: len(content) for name, content in files.items()}
    digest = publish_kernel(dirs, A, parts, objects)
    assert digest == hashlib.sha256(b"".join(files.values())).hexdigest()
    assert digest == boot_digest_of(parts, objects)
    with dirs.menu.open_dir(f"EFI/Linux/bootc_composefs-{A}") as directory:
        found = {name: directory.read_bytes(name) for name in directory.names()}
    assert found == files
    assert set(more_files(dirs, A.hex)) == files.keys() - {"vmlinuz", "initrd"}
    assert find_shared_kernel(dirs, digest, [B.hex, A.hex]) == A.hex


def test_the_digest_is_that_of_the_whole_image(objects: ObjectDirectory) -> None:
    uki = uki_of(objects, *IMAGE, DTB)
    parts = take_apart(uki, objects, TakesApart.ALL, sealed=True)
    assert boot_digest_of(parts, objects) == boot_digest_of(uki, objects)


def test_files_of_an_older_kernel_with_the_same_name(
    dirs: BootDirs, objects: ObjectDirectory
) -> None:
    for more in ((UCODE, DTB), ()):
        parts = take_apart(uki_of(objects, *IMAGE, *more), objects, TakesApart.ALL, sealed=True)
        publish_kernel(dirs, A, parts, objects)
    assert more_files(dirs, A.hex) == ()


def test_a_damaged_image_is_not_written(dirs: BootDirs, objects: ObjectDirectory) -> None:
    uki = uki_of(objects)
    parts = take_apart(uki, objects, TakesApart.ALL, sealed=True)
    objects.damage(uki.leaf, program(*IMAGE)[:-1] + b"!")
    with pytest.raises(DamagedKernel):
        publish_kernel(dirs, A, parts, objects)
    assert not dirs.menu.exists(f"EFI/Linux/bootc_composefs-{A}")


def test_only_the_user_gives_up_a_seal(objects: ObjectDirectory) -> None:
    with pytest.raises(CannotTakeApart, match="is sealed") as caught:
        take_apart(uki_of(objects), objects, TakesApart.UNSEALED, sealed=True)
    assert "--disable-sealing" in one_line(caught.value)


def test_the_first_profile_counts(objects: ObjectDirectory) -> None:
    own = (b".profile", b"ID=main\n"), (b".cmdline", b"debug " + NAMES)
    assert arguments(uki_of(objects, *IMAGE, *own), objects) == ("debug",)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ((*IMAGE, (b".profile", b"ID=a\n"), (b".profile", b"ID=b\n")), "has 2 profiles"),
        ((*IMAGE, (b".dtbauto", b"tree")), "'.dtbauto'"),
        ((*IMAGE, (b".efifw", b"code")), "'.efifw'"),
        ((*IMAGE, INITRD), "has 2 sections '.initrd'"),
        ((*IMAGE, UCODE, UCODE), "has 2 sections '.ucode'"),
        ((CMDLINE, LINUX), "doesn't contain a '.initrd' section"),
        ((CMDLINE, INITRD), "doesn't contain a '.linux' section"),
        ((CMDLINE, (b".linux", b""), INITRD), "'.linux' is empty"),
        (((b".cmdline", b'a="b'), LINUX, INITRD), "bad kernel argument"),
    ],
)
def test_what_cannot_be_taken_apart(
    objects: ObjectDirectory, sections: tuple[tuple[bytes, bytes], ...], message: str
) -> None:
    with pytest.raises((CannotTakeApart, PeError, CmdlineError)) as caught:
        arguments(uki_of(objects, *sections), objects)
    assert message in one_line(caught.value)


def test_addons_in_the_order_of_the_stub(objects: ObjectDirectory) -> None:
    def addon(text: bytes, *more: tuple[bytes, bytes]) -> bytes:
        return program((b".cmdline", text), *more)

    uki = with_addons(
        uki_of(objects, *IMAGE, UNAME),
        objects,
        {"b.addon.efi": addon(b"b\n1\0"), "a.addon.efi": addon(b"a", UNAME)},
        {
            "z.addon.efi": addon(b"z=1"),
            "other.addon.efi": addon(b"other", (b".uname", b"6.13")),
            "damaged.addon.efi": b"MZ no program",
        },
    )
    assert arguments(uki, objects) == (*ARGUMENTS, "z=1", "a", "b", "1")


@pytest.mark.parametrize("section", [INITRD, DTB, UCODE])
def test_addons_with_more_than_arguments(
    objects: ObjectDirectory, section: tuple[bytes, bytes]
) -> None:
    uki = with_addons(uki_of(objects), objects, {"x.addon.efi": program(section)}, {})
    with pytest.raises(Error, match=r"x\.addon\.efi") as caught:
        arguments(uki, objects)
    assert f"it has a section {section[0].decode()!r}" in one_line(caught.value)
