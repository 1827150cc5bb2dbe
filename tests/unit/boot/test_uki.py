from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from bootc.boot.addons import list_addons
from bootc.boot.artifacts import (
    ArtifactKind,
    list_artifacts,
    list_global_addons,
    remove_artifact,
)
from bootc.boot.image_content import DamagedKernel, open_content
from bootc.boot.image_kernel import UkiFile
from bootc.boot.kernels import boot_digest_of, publish_resource, publish_uki
from bootc.boot.scheme import UKIS, BootDirs
from bootc.boot.uki import WrongUki, check_installed_uki, check_sealing, inspect_uki
from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.pe import PeError
from bootc.formats.security_version import SecurityVersion
from bootc.formats.tree import External, Leaf, Stat
from support.bootdirs import SYSTEMD_UKI, deployment, open_boot
from support.failing import dies
from support.objectdir import ObjectDirectory
from support.pe import UKI_SECTIONS, program

A, B = deployment(0xAB), deployment(2)  # the sections name the first
IMAGE = program(*UKI_SECTIONS)
BOOT_DIGEST = hashlib.sha256(b"kernel" * 100 + b"initramfs" * 100).hexdigest()
ADDON = b"MZ add-on" * 100
FILE = f"bootc_composefs-{A}.efi"


def sections(cmdline: bytes) -> bytes:
    return program(*((n, cmdline if n == b".cmdline" else c) for n, c in UKI_SECTIONS))


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[BootDirs]:
    with open_boot(tmp_path, SYSTEMD_UKI) as dirs:
        yield dirs


def uki_of(objects: ObjectDirectory, data: bytes = IMAGE, *addons: str) -> UkiFile:
    files = {name: objects.leaf(ADDON) for name in addons}
    return UkiFile("boot/EFI/Linux/6.12.efi", objects.leaf(data), files)


def installed_addons(dirs: BootDirs, artifact: str) -> tuple[str, ...]:
    home = f"{UKIS}/bootc_composefs-{artifact}.efi.extra.d"
    return tuple(addon.name for addon in list_addons(dirs.binaries, home))


def on_esp(dirs: BootDirs) -> set[str]:
    root = Path(dirs.binaries.path, UKIS)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_an_image_says(objects: ObjectDirectory) -> None:
    facts = inspect_uki(uki_of(objects), objects)
    assert facts.images.deployment == A.hex
    assert facts.os_release.boot_label == "Fedora Linux 43 43"
    assert facts.options == f"rw composefs={A}"
    assert facts.boot_digest == BOOT_DIGEST
    assert not facts.images.optional
    lenient = uki_of(objects, sections(f"composefs=?{A}".encode()))
    assert inspect_uki(lenient, objects).images.optional
    assert boot_digest_of(lenient, objects) == BOOT_DIGEST


@pytest.mark.parametrize("optional", [True, False])
def test_what_an_image_on_the_esp_tolerates(
    dirs: BootDirs, objects: ObjectDirectory, optional: bool
) -> None:
    cmdline = f"rw composefs={'?' if optional else ''}{A}".encode()
    publish_uki(dirs, A, uki_of(objects, sections(cmdline)), objects)
    assert check_installed_uki(dirs, A, f"/{UKIS}/{FILE}").images.optional is optional


@pytest.mark.parametrize("name", [FILE, f"{FILE}.extra.d/x.addon.efi"])
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_special_files_on_the_esp_are_not_opened(
    dirs: BootDirs, objects: ObjectDirectory, name: str, kind: int
) -> None:
    publish_uki(dirs, A, uki_of(objects, IMAGE, "x.addon.efi"), objects)
    path = Path(dirs.binaries.path, UKIS, name)
    path.unlink()
    os.mknod(path, kind | 0o600)
    with pytest.raises(OSError, match=f"not a regular file: .*/{name}"):
        check_installed_uki(dirs, A, f"/{UKIS}/{FILE}")


def test_image_and_addons_are_written(dirs: BootDirs, objects: ObjectDirectory) -> None:
    uki = uki_of(objects, IMAGE, "debug.addon.efi", "x.addon.efi")
    assert publish_resource(dirs, A, uki, objects) == BOOT_DIGEST
    assert dirs.binaries.read_bytes(f"{UKIS}/{FILE}") == IMAGE
    addon = f"{UKIS}/{FILE}.extra.d/debug.addon.efi"
    assert dirs.binaries.read_bytes(addon) == ADDON
    assert installed_addons(dirs, A.hex) == ("debug.addon.efi", "x.addon.efi")
    assert installed_addons(dirs, B.hex) == ()
    (artifact,) = list_artifacts(dirs)
    assert artifact.size_bytes == sum(uki.sizes.values()) == len(IMAGE) + 2 * len(ADDON)


def test_a_global_addon_has_a_name_of_ours(dirs: BootDirs, objects: ObjectDirectory) -> None:
    shared = {"x.addon.efi": objects.leaf(ADDON)}
    uki = dataclasses.replace(uki_of(objects, IMAGE, "x.addon.efi"), global_addons=shared)
    publish_uki(dirs, A, uki, objects)
    path = "loader/addons/bootc_composefs-x.addon.efi"
    assert dirs.binaries.read_bytes(path) == ADDON
    # Another deployment, and foreign add-ons, do not touch it.
    for name in ("other.addon.efi", "bootc_composefs-readme.txt"):
        (Path(dirs.binaries.path) / "loader/addons" / name).write_bytes(ADDON)
    (Path(dirs.binaries.path) / "loader/addons/.tmp-file-y").write_bytes(b"12")
    publish_uki(dirs, A, uki_of(objects), objects)
    found = list_global_addons(dirs)
    assert [(a.name, a.kind, a.path, a.size_bytes) for a in found] == [
        (".tmp-file-y", ArtifactKind.LEFTOVER, "loader/addons/.tmp-file-y", 2),
        ("x.addon.efi", ArtifactKind.ADDON, path, len(ADDON)),
    ]
    for artifact in found:
        remove_artifact(dirs, artifact)
    with dirs.binaries.open_dir("loader/addons") as directory:
        assert directory.names() == ["bootc_composefs-readme.txt", "other.addon.efi"]


@pytest.mark.parametrize(
    "place",
    [
        "loader/addons/foreign.addon.efi",
        "loader/addons/FOREIGN.ADDON.EFI",
        f"{UKIS}/{FILE}.extra.d/x.addon.efi",
    ],
)
def test_an_installed_addon_may_not_name_an_image(
    dirs: BootDirs, objects: ObjectDirectory, place: str
) -> None:
    publish_uki(dirs, A, uki_of(objects), objects)
    path = Path(dirs.binaries.path) / place
    path.parent.mkdir(parents=True)
    path.write_bytes(addon(f"composefs={B}"))
    with pytest.raises(WrongUki, match="composefs"):
        check_installed_uki(dirs, A, f"/{UKIS}/{FILE}")


def test_only_chosen_addons_are_there(dirs: BootDirs, objects: ObjectDirectory) -> None:
    uki = uki_of(objects, IMAGE, "debug.addon.efi", "x.addon.efi")
    publish_uki(dirs, A, uki, objects)
    publish_uki(dirs, A, uki.with_addons({"x.addon.efi", "gone.addon.efi"}), objects)
    assert installed_addons(dirs, A.hex) == ("x.addon.efi",)
    publish_uki(dirs, A, uki.with_addons(()), objects)
    assert on_esp(dirs) == {FILE}


def test_a_cut_at_any_change(dirs: BootDirs, objects: ObjectDirectory) -> None:
    uki = uki_of(objects, IMAGE, "x.addon.efi")
    at = 1
    while dies(at, lambda: publish_uki(dirs, A, uki, objects)):
        if dirs.binaries.exists(f"{UKIS}/{FILE}"):
            # An image is never there without what belongs to it.
            assert dirs.binaries.read_bytes(f"{UKIS}/{FILE}") == IMAGE
            assert installed_addons(dirs, A.hex) == ("x.addon.efi",)
        publish_uki(dirs, A, uki, objects)
        assert on_esp(dirs) == {FILE, f"{FILE}.extra.d/x.addon.efi"}
        dirs.binaries.remove_tree("EFI")
        at += 1
    assert at > 6


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            sections(f"rw composefs={B}".encode()),
            WrongUki,
            "The UKI has the wrong composefs= parameter "
            rf"\(is '{B}', should be '{A}'\)",
        ),
        (sections(b"rw"), WrongUki, "No composefs image in UKI cmdline"),
        (sections(b"composefs=12"), WrongUki, "composefs=12"),
        (program(*UKI_SECTIONS[:1]), PeError, "'.cmdline'"),
        (program(*UKI_SECTIONS[1:]), PeError, "'.osrel'"),
        (program(*UKI_SECTIONS[:3]), PeError, "'.initrd'"),
        (b"MZ", PeError, "not valid EFI executable"),
    ],
)
def test_an_image_that_would_boot_otherwise(
    dirs: BootDirs, objects: ObjectDirectory, data: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        publish_uki(dirs, A, uki_of(objects, data), objects)
    assert one_line(caught.value).startswith("Reading boot/EFI/Linux/6.12.efi of the image: ")
    assert dirs.binaries.names() == []


def test_a_uki_of_two_digests(dirs: BootDirs, objects: ObjectDirectory) -> None:
    both = f"rw composefs.digest=v1-sha512-12:{A} composefs={B}".encode()
    uki = uki_of(objects, sections(both))
    facts = inspect_uki(uki, objects)
    assert facts.images.deployment == A.hex
    assert facts.images.hexes == (A.hex, B.hex)
    publish_uki(dirs, A, uki, objects)
    assert check_installed_uki(dirs, A, f"/{UKIS}/{FILE}").images == facts.images
    # Another program may call the deployment by the other digest.
    assert check_installed_uki(dirs, B, f"/{UKIS}/{FILE}").images == facts.images
    with pytest.raises(WrongUki, match="is 'abab"):
        check_installed_uki(dirs, deployment(3), f"/{UKIS}/{FILE}")


def test_digests_that_disagree(dirs: BootDirs, objects: ObjectDirectory) -> None:
    mixed = f"rw composefs.digest=v1-sha512-12:{A} composefs=?{B}".encode()
    with pytest.raises(WrongUki, match=r"v1-sha512-12:abababababab… and composefs=\?0202020202"):
        publish_uki(dirs, A, uki_of(objects, sections(mixed)), objects)
    assert dirs.binaries.names() == []
    with pytest.raises(WrongUki, match="disagree: only one of them tolerates"):
        check_sealing(uki_of(objects, sections(mixed)), lambda leaf: open_content(leaf, objects))


def with_profile(cmdline: str) -> bytes:
    return program(*UKI_SECTIONS, (b".profile", b"ID=rescue\n"), (b".cmdline", cmdline.encode()))


def test_each_profile_must_boot_the_deployment(dirs: BootDirs, objects: ObjectDirectory) -> None:
    same = uki_of(objects, with_profile(f"debug composefs={A}"))
    assert publish_uki(dirs, A, same, objects) == BOOT_DIGEST
    dirs.binaries.remove_tree("EFI")
    for cmdline, message in (
        (f"rw composefs={B}", f"the kernel command line has composefs={B.hex:.12}…"),
        (f"rw composefs=?{A}", f"the kernel command line has composefs=?{A.hex:.12}…"),
    ):
        with pytest.raises(WrongUki) as caught:
            publish_uki(dirs, A, uki_of(objects, with_profile(cmdline)), objects)
        assert caught.value.message.startswith(
            f"No composefs image in UKI cmdline: profile 0 (rescue): {message}"
        )
        assert dirs.binaries.names() == []
    with pytest.raises(WrongUki) as caught:
        publish_uki(dirs, A, uki_of(objects, with_profile("rw")), objects)
    assert caught.value.message == "profile 0 (rescue): No composefs image in UKI cmdline"


def addon(cmdline: str) -> bytes:
    return program((b".sbat", b"sbat"), (b".cmdline", cmdline.encode()), (b".cmdline", b"quiet"))


def test_add_ons_append_arguments(dirs: BootDirs, objects: ObjectDirectory) -> None:
    data = addon('console=ttyS0 "a=b c"\n\0')
    uki = uki_of(objects)
    uki = dataclasses.replace(uki, addons={"x.addon.efi": objects.leaf(data)})
    publish_uki(dirs, A, uki, objects)
    assert installed_addons(dirs, A.hex) == ("x.addon.efi",)


@pytest.mark.parametrize(
    ("cmdline", "message"),
    [
        (f"composefs={A}", "is not yours to set"),
        (f"composefs.digest=v1-sha512-12:{B}", "is not yours to set"),
        (f'quiet "composefs={B}"', "is not yours to set"),
        # The stub makes a blank of it.
        (f"quiet\x01composefs={B}", "is not yours to set"),
        ('a="b', "bad kernel argument"),
    ],
)
def test_an_add_on_has_no_say_in_what_boots(
    dirs: BootDirs, objects: ObjectDirectory, cmdline: str, message: str
) -> None:
    files = {
        "x.addon.efi": objects.leaf(program((b".cmdline", b"x"), (b".cmdline", cmdline.encode())))
    }
    uki = dataclasses.replace(uki_of(objects), addons=files)
    with pytest.raises(WrongUki, match=message) as caught:
        publish_uki(dirs, A, uki, objects)
    assert one_line(caught.value).startswith("Reading UKI add-on x.addon.efi of the image: ")
    assert dirs.binaries.names() == []


def test_add_ons_for_every_uki_have_no_say_either(dirs: BootDirs, objects: ObjectDirectory) -> None:
    publish_uki(dirs, A, uki_of(objects), objects)
    with dirs.binaries.ensure_dir("loader/addons") as directory:
        for name, text in (("ok.addon.efi", "quiet"), ("other.efi", f"composefs={B}")):
            Path(directory.path, name).write_bytes(program((b".cmdline", text.encode())))
        check_installed_uki(dirs, A, f"/{UKIS}/{FILE}")
        bad = program((b".cmdline", f"composefs=?{B}".encode()))
        Path(directory.path, "x.addon.efi").write_bytes(bad)
    with pytest.raises(WrongUki, match="is not yours to set") as caught:
        check_installed_uki(dirs, A, f"/{UKIS}/{FILE}")
    assert one_line(caught.value).startswith("UKI add-on 'x.addon.efi': ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (IMAGE, None),
        (sections(f"composefs={B}".encode()), None),  # the digest is computed for the next one
        (sections(b"rw"), None),
        (b"MZ", None),
        (with_profile("rw"), r"profile 0 \(rescue\): No composefs image in UKI cmdline\n"),
        (with_profile(f"composefs={B}"), "and another one"),
    ],
)
def test_an_image_that_is_sealed_in_parts(
    objects: ObjectDirectory, data: bytes, message: str | None
) -> None:
    expected: AbstractContextManager[object] = nullcontext()
    if message is not None:
        expected = pytest.raises(WrongUki, match=message)
    with expected:
        check_sealing(uki_of(objects, data), lambda leaf: open_content(leaf, objects))


def test_a_file_too_large_to_be_one(objects: ObjectDirectory) -> None:
    content = External(Digest(Algorithm.SHA512, bytes(64)), (512 << 20) + 1)
    uki = UkiFile("boot/EFI/Linux/os.efi", Leaf(Stat(), content), {})
    with pytest.raises(
        WrongUki, match=r"os\.efi of the image is too large: it has 536870913 bytes"
    ):
        check_sealing(uki, lambda leaf: open_content(leaf, objects))


def test_a_damaged_image_is_refused(dirs: BootDirs, objects: ObjectDirectory) -> None:
    uki = uki_of(objects)
    objects.damage(uki.leaf, IMAGE + b"!")
    with pytest.raises(DamagedKernel):
        publish_uki(dirs, A, uki, objects)
    assert on_esp(dirs) == set()


def test_what_a_cut_left_is_replaced(dirs: BootDirs, objects: ObjectDirectory) -> None:
    with dirs.binaries.ensure_dir(UKIS) as directory:
        os.close(directory.open_file(f".tmp-file-{FILE}", os.O_WRONLY | os.O_CREAT))
    publish_uki(dirs, A, uki_of(objects), objects)
    assert on_esp(dirs) == {FILE}


@pytest.mark.parametrize("name", ["x.addon.efi", "y.addon.efi"])
def test_an_addon_states_no_security_version(
    dirs: BootDirs, objects: ObjectDirectory, name: str
) -> None:
    addon = program((b".cmdline", b"bootc.security-version=9"))
    uki = dataclasses.replace(uki_of(objects), addons={name: objects.leaf(addon)})
    with pytest.raises(WrongUki, match="an add-on states bootc") as caught:
        inspect_uki(uki, objects)
    assert caught.value.hint == "only the UKI may state its security version"
    higher = program((b".cmdline", b"bootc.minimum-security-version=9"))
    inspect_uki(dataclasses.replace(uki, addons={name: objects.leaf(higher)}), objects)


def test_the_security_version_of_an_installed_image(
    dirs: BootDirs, objects: ObjectDirectory
) -> None:
    line = f"composefs={A} bootc.security-version=3 bootc.minimum-security-version=2"
    uki = uki_of(objects, sections(line.encode()))
    assert inspect_uki(uki, objects).version == SecurityVersion(3, 2)
    publish_uki(dirs, A, uki, objects)
    assert check_installed_uki(dirs, A, f"/{UKIS}/{FILE}").version == SecurityVersion(3, 2)


def test_profiles_that_state_several_security_versions(
    dirs: BootDirs, objects: ObjectDirectory
) -> None:
    profile = (
        (b".profile", b"ID=x"),
        (b".cmdline", f"composefs={A} bootc.security-version=2".encode()),
    )
    image = program(*UKI_SECTIONS, *profile)
    uki = uki_of(objects, image)
    with pytest.raises(WrongUki, match="state different security versions") as caught:
        inspect_uki(uki, objects)
    assert caught.value.hint == "give all profiles the same bootc.security-version"
    # Another program installed it: what protects least counts.
    publish_uki(dirs, A, uki_of(objects), objects)
    Path(dirs.binaries.path, UKIS, FILE).write_bytes(image)
    assert check_installed_uki(dirs, A, f"/{UKIS}/{FILE}").version == SecurityVersion(0)
