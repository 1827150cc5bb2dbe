"""The chain of trust: which link is weak, and which one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu_read import Menu
from bootc.boot.scheme import Scheme
from bootc.boot.secure_boot import BootPrograms, Program, SecureBoot
from bootc.cli.render.status import status_text
from bootc.deploy.host.boot_state import BootedState, files_verified
from bootc.deploy.host.facts import Facts, StateFacts
from bootc.deploy.host.model import LinkState
from bootc.deploy.host.status import compose_host
from bootc.deploy.host.trust_chain import compose_chain
from bootc.formats.cmdline import composefs_images, composefs_karg
from bootc.formats.origin import BootType, Origin, TakesApart, UkiRecord, Waiver
from bootc.fs.mounts import Mount
from support.schemas import problems
from support.sysroot import IMAGE, image_id

A = image_id("aa")
LOADER = Program("EFI/systemd/systemd-bootx64.efi", signed=True)
UKI = Program("EFI/Linux/bootc/os.efi", signed=True)
#: A machine of which every link is verified.
SEALED = Facts(
    booted=BootedState(
        A,
        missing_verity_allowed=False,
        loader=LoaderTraces(Bootloader.SYSTEMD),
        secure_boot=SecureBoot(enabled=True, setup_mode=False),
        files_verified=True,
    ),
    scheme=Scheme(Bootloader.SYSTEMD, BootType.UKI),
    active=Menu(),
    staged=Menu(),
    states={A: StateFacts(A, Origin(image=IMAGE, boot_type=BootType.UKI))},
    ukis={A: composefs_images(composefs_karg(A.hex, optional=False))},
    programs=BootPrograms((LOADER,), UKI),
    filesystem="ext4",
)


def booted(**changes: Any) -> Facts:
    return replace(SEALED, booted=replace(SEALED.booted, **changes))


def with_programs(**changes: Any) -> Facts:
    assert SEALED.programs is not None
    return replace(SEALED, programs=replace(SEALED.programs, **changes))


def firmware(enabled: bool | None, setup_mode: bool | None) -> Facts:
    return booted(secure_boot=SecureBoot(enabled, setup_mode))


@pytest.mark.parametrize(
    ("facts", "weakest", "words"),
    [
        (SEALED, None, ""),
        (firmware(False, False), "firmware", "Secure Boot is off"),
        (firmware(True, True), "firmware", "it is in setup mode: anybody can enrol keys"),
        (firmware(None, None), "firmware", "it has no Secure Boot, or does not say so"),
        (firmware(True, None), "firmware", "it does not say whether it is in setup mode"),
        (
            with_programs(loaders=(LOADER, Program("EFI/systemd/b.efi", signed=False))),
            "loader",
            "systemd: EFI/systemd/b.efi has no signature",
        ),
        (with_programs(loaders=()), "loader", "systemd: its program was not found"),
        (
            with_programs(uki=replace(UKI, signed=False)),
            "uki",
            "EFI/Linux/bootc/os.efi has no signature",
        ),
        (with_programs(uki=None), "uki", "it cannot be read"),
        (
            replace(SEALED, ukis={}),
            "uki",
            "EFI/Linux/bootc/os.efi, signed; its command line names no image of this deployment",
        ),
        (replace(SEALED, programs=None), "loader", "systemd: the boot partition cannot be read"),
        (
            replace(SEALED, scheme=Scheme(Bootloader.SYSTEMD, BootType.BLS)),
            "uki",
            "none: kernel, initramfs and kernel arguments are files, and no signature covers them",
        ),
        (
            booted(missing_verity_allowed=True),
            "image",
            "the command line tolerates an image without fs-verity (composefs=?)",
        ),
        (
            booted(files_verified=False),
            "files",
            "the kernel does not demand fs-verity of files on ext4",
        ),
        (booted(files_verified=None), "files", "the mount of the root does not tell"),
        # A weak link counts before one of which nothing is known, and the first of two.
        (
            replace(with_programs(loaders=()), booted=booted(files_verified=False).booted),
            "files",
            "the kernel does not demand fs-verity of files on ext4",
        ),
        (
            booted(missing_verity_allowed=True, secure_boot=SecureBoot(False, False)),
            "firmware",
            "Secure Boot is off",
        ),
    ],
)
def test_the_weakest_link_is_named(facts: Facts, weakest: str | None, words: str) -> None:
    chain = compose_chain(facts)
    found = chain.weakest
    assert (found and found.name, found.text if found else "") == (weakest, words)
    host = compose_host(facts)
    value = host.to_json()["status"]["protection"]
    unknown = found is not None and found.state is LinkState.UNKNOWN
    assert (value["protected"], value["weakest"]) == (None if unknown else not found, weakest)
    assert problems("host", host.to_json()) == []
    text = status_text(host, verbose=True)
    assert ("not protected; the weakest link is the" in text) is (found is not None and not unknown)
    assert ("Protection: not known, because of the" in text) is unknown


def test_a_machine_without_a_loader_has_one_link_less_to_trust() -> None:
    facts = replace(with_programs(loaders=()), scheme=Scheme(Bootloader.NONE, BootType.UKI))
    assert compose_chain(facts).weakest is None


def test_the_text_of_a_sealed_machine() -> None:
    host = compose_host(firmware(False, False))
    line = "Protection: not protected; the weakest link is the firmware: Secure Boot is off"
    assert [
        row.strip() for row in status_text(host, verbose=False).splitlines() if "rot" in row
    ] == [line]
    rows = [row.strip() for row in status_text(host, verbose=True).splitlines()]
    at = rows.index(line)
    assert rows[at + 1 : at + 6] == [
        "Firmware: weak: Secure Boot is off",
        "Loader: ok: systemd: EFI/systemd/systemd-bootx64.efi, signed",
        "UKI: ok: EFI/Linux/bootc/os.efi, signed",
        f"Image digest: ok: the command line demands {A.hex[:12]}…",
        "Files: ok: the kernel verifies every file it reads on ext4",
    ]
    assert "Protection" not in status_text(compose_host(SEALED), verbose=False)


def test_the_text_says_what_the_user_gave_up() -> None:
    record = UkiRecord(TakesApart.ALL, arguments="rw")
    origin = Origin(image=IMAGE, boot_type=BootType.BLS, uki=record).with_waiver(Waiver.WEAKER)
    host = compose_host(replace(SEALED, states={A: StateFacts(A, origin)}))
    assert "Accepted: --allow-weaker, --disable-sealing\n" in status_text(host, verbose=False)
    value = host.to_json()["status"]["booted"]["composefs"]
    assert value["waived"] == ["allow-weaker", "disable-sealing"]
    assert "waived" not in compose_host(SEALED).to_json()["status"]["booted"]["composefs"]


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        (f"composefs:{A}", ("ro", "verity=require"), True),
        (f"composefs:{A}", ("ro", "verity=on"), False),
        (f"composefs:{A}", ("ro",), False),
        # A writable layer is above the image, whose own mount is in no table.
        (f"transient:composefs={A}", ("rw", "verity=require"), None),
        ("/dev/vda3", ("rw",), None),
    ],
)
def test_the_kernel_says_whether_files_are_verified(
    source: str, options: tuple[str, ...], expected: bool | None
) -> None:
    mount = Mount(1, "0:30", "/", "overlay", source, options=options)
    assert files_verified([Mount(2, "0:1", "/", "tmpfs", "x"), mount]) is expected
    assert files_verified([]) is None
