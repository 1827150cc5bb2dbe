from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from bootc.boot.uki_parts import CannotTakeApart
from bootc.deploy.install.boot_choice import UkiRefused
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.checks_image import check_last_layer, find_in_image, find_in_tree
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_grub import GrubBiosInstaller
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.request import ANY_UKI, InstallRefused, InstallRequest
from bootc.formats import cmdline
from bootc.formats.digest import DigestMismatch
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType
from bootc.fs.imageroot import ImageRoot
from bootc.oci.source import open_source
from support import images, pe
from support.images import directory, file

UKI = "boot/EFI/Linux/6.12.efi"
BASE = images.bootable(kernel=b"kernel" * 20, initramfs=b"initramfs" * 20)


def uki(*, optional: bool = False) -> bytes:
    argument = cmdline.composefs_karg("ab" * 64, optional=optional)
    return pe.program((b".cmdline", argument.encode()), (b".linux", b"kernel" * 20))


def layer(name: str = UKI, content: bytes | None = None) -> bytes:
    return images.layer(file(name, uki() if content is None else content))


def look(
    layout: images.Layout,
    *kargs: str,
    filesystem: Filesystem = Filesystem.EXT4,
    lenient: bool = False,
    loader: LoaderInstaller | None = None,
    boot_type: BootType | None = None,
    disable_sealing: bool = False,
) -> None:
    reference = ImageReference.parse(layout.reference())
    request = InstallRequest(
        source=reference, target=reference, boot_type=boot_type, disable_sealing=disable_sealing
    )
    decisions = Decisions(
        machine="x86_64",
        loader=loader or SystemdBootInstaller(),
        filesystem=filesystem,
        allow_missing_verity=lenient or not filesystem.supports_verity,
        kargs=kargs,
    )
    with open_source(reference) as source:
        check_last_layer(request, decisions, source)


@pytest.mark.parametrize("name", [UKI, f"./{UKI}", f"/{UKI}", "usr/lib/modules/6.12/a.efi"])
def test_a_sealed_image_is_refused_where_there_is_no_verity(tmp_path: Path, name: str) -> None:
    layout = images.single(tmp_path / "layout", BASE, layer(name))
    with pytest.raises(UkiRefused, match="Specified filesystem xfs does not support fs-verity"):
        look(layout, filesystem=Filesystem.XFS)
    with pytest.raises(UkiRefused, match="--allow-missing-verity is of no use"):
        look(layout, lenient=True)
    look(layout)


@pytest.mark.parametrize("optional", [True, False])
def test_arguments_are_refused(tmp_path: Path, optional: bool) -> None:
    layout = images.single(tmp_path / "layout", BASE, layer(content=uki(optional=optional)))
    with pytest.raises(UkiRefused, match="Cannot use externally specified kernel arguments"):
        look(layout, "quiet")


def test_a_tolerant_one_may_go_anywhere(tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", BASE, layer(content=uki(optional=True)))
    look(layout, filesystem=Filesystem.XFS)


@pytest.mark.parametrize(
    "last",
    [
        layer("usr/lib/modules/6.12/deeper/a.efi"),
        layer("boot/EFI/Linux/6.12.conf"),
        layer(content=b"no EFI program" * 20),
        layer(content=b""),
        layer(content=pe.program((b".linux", b"kernel"))),
        layer(content=pe.program((b".cmdline", b"quiet"))),
        images.layer(directory(UKI)),
        images.layer(images.symlink(UKI, "elsewhere.efi")),
        images.layer(),
    ],
)
def test_what_is_no_unified_kernel_image_is_left_to_the_pull(tmp_path: Path, last: bytes) -> None:
    look(images.single(tmp_path / "layout", BASE, last), "quiet", lenient=True)


def test_a_loader_that_cannot_start_it(tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", BASE, layer(content=uki(optional=True)))
    with pytest.raises(InstallRefused, match="unified kernel image") as caught:
        look(layout, loader=GrubBiosInstaller())
    assert "--boot-type bls" in caught.value.hint
    look(layout, loader=GrubBiosInstaller(), boot_type=BootType.BLS)


@pytest.mark.parametrize(
    ("optional", "disable_sealing", "fails"),
    [(True, False, False), (False, False, True), (False, True, False)],
)
def test_a_seal_that_is_to_be_taken_apart(
    tmp_path: Path, optional: bool, disable_sealing: bool, fails: bool
) -> None:
    layout = images.single(tmp_path / "layout", BASE, layer(content=uki(optional=optional)))
    with pytest.raises(CannotTakeApart, match="is sealed") if fails else nullcontext():
        look(layout, "quiet", boot_type=BootType.BLS, disable_sealing=disable_sealing)


def test_only_the_last_layer_is_read(tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", layer(), BASE)
    look(layout, "quiet", lenient=True)


def test_a_large_layer_is_left_to_the_pull(tmp_path: Path) -> None:
    layout = images.Layout(tmp_path / "layout")
    blob = layout.blob(layer(), images.LAYER_TYPE, size=1 << 40)
    layout.image([layer()], manifest={"layers": [blob]}, compression="")
    look(layout, "quiet")


@pytest.mark.parametrize(("kargs", "fails"), [((), False), (("quiet",), True)])
def test_a_layer_is_read_only_for_a_reason(
    tmp_path: Path, kargs: tuple[str, ...], fails: bool
) -> None:
    layout = images.single(tmp_path / "layout", layer(), compression="")
    layout.blob_path(images.sha256(layer())).write_bytes(layer()[:-1] + b"\xff")
    with pytest.raises(DigestMismatch) if fails else nullcontext():
        look(layout, *kargs)


def test_an_image_that_does_not_know_its_layers(tmp_path: Path) -> None:
    layout = images.single(
        tmp_path / "layout", layer(), config={"rootfs": {"type": "layers", "diff_ids": []}}
    )
    look(layout, "quiet")


GRUB = "usr/lib/grub/i386-pc/boot.img"


@pytest.mark.parametrize(
    ("upper", "found"),
    [
        ((), {GRUB}),
        ((file("usr/lib/grub/i386-pc/.wh.boot.img"),), set()),
        ((file("usr/lib/.wh.grub"),), set()),
        ((directory("usr/lib/grub/i386-pc"), file("usr/lib/grub/i386-pc/.wh..wh..opq")), set()),
        ((file("usr/lib/.wh.grub2"), file("usr/lib/grub/.wh.boot.img")), {GRUB}),
        # Of its own layer a whiteout removes nothing.
        ((file("usr/lib/.wh.grub"), file(f"./{GRUB}", b"new")), {GRUB}),
    ],
)
def test_files_are_found_in_any_layer(
    tmp_path: Path, upper: tuple[images.Member, ...], found: set[str]
) -> None:
    layout = images.single(
        tmp_path / "layout", images.layer(file(GRUB, b"x" * 900)), images.layer(*upper)
    )
    with open_source(ImageReference.parse(layout.reference())) as source:
        assert find_in_image(source, [GRUB, "usr/bin/none"]) == found


@pytest.mark.parametrize(
    ("upper", "found"),
    [
        ((), {ANY_UKI}),
        ((file("boot/EFI/Linux/.wh.6.12.efi"),), set()),
        ((file("boot/EFI/.wh.Linux"),), set()),
        ((directory("boot/EFI/Linux"), file("boot/EFI/Linux/.wh..wh..opq")), set()),
        ((file("boot/EFI/Linux/.wh.old.efi"),), {ANY_UKI}),
        ((file("boot/EFI/.wh.Linux"), file("usr/lib/modules/6.13/6.13.efi")), {ANY_UKI}),
    ],
)
def test_any_unified_kernel_image_is_found(
    tmp_path: Path, upper: tuple[images.Member, ...], found: set[str]
) -> None:
    layout = images.single(tmp_path / "layout", layer(), images.layer(*upper))
    with open_source(ImageReference.parse(layout.reference())) as source:
        assert find_in_image(source, [ANY_UKI, GRUB]) == found


def test_a_search_that_has_enough(tmp_path: Path) -> None:
    layout = images.single(
        tmp_path / "layout", images.layer(file("usr/b")), images.layer(file("usr/a"))
    )
    with open_source(ImageReference.parse(layout.reference())) as source:
        layout.blob_path(str(source.layers[0].digest)).unlink()
        wanted = ["usr/a", "usr/b"]
        assert find_in_image(source, wanted, until=lambda found: "usr/a" in found) == {"usr/a"}


def test_a_damaged_layer_is_not_an_image_without_files(tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", images.layer(file(GRUB, b"x" * 900)))
    with open_source(ImageReference.parse(layout.reference())) as source:
        path = layout.blob_path(str(source.layers[0].digest))
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(DigestMismatch):
            find_in_image(source, [GRUB])


def test_files_of_a_running_image_are_found(tmp_path: Path) -> None:
    (tmp_path / GRUB).parent.mkdir(parents=True)
    (tmp_path / GRUB).touch()
    with ImageRoot.open(str(tmp_path)) as root:
        assert find_in_tree(root, [GRUB, "usr/bin/none", ANY_UKI]) == {GRUB}
        (tmp_path / UKI).parent.mkdir(parents=True)
        (tmp_path / UKI).touch()
        assert find_in_tree(root, [GRUB, ANY_UKI]) == {GRUB, ANY_UKI}
