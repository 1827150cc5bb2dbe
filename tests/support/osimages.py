"""Tiny images of an operating system, as many versions as updates in tests need.

An image is told by its tag in one layout that is made once; a :class:`Channel` is where a
machine looks for updates, and offers one of them at a time. The ids of the images are
computed when they are made, apart from any repository. They depend on the EROFS format of the
repository that an image is pulled into.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType
from bootc.oci.layoutdir import open_layout
from bootc.oci.trees import image_id_of, image_tree
from support import images, pe
from support.ages import V1_16_0, V1_16_9, Age

#: Too long to be in the image itself, and so objects.
_LONG = " of the image" * 8
_OWNER = {"uid": os.getuid(), "gid": os.getgid()}

#: The files of an ``/etc`` by their paths; directories are there for what is in them.
Etc = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OsImage:
    """One version.

    Attributes:
        tag: What tests call it.
        etc: Its ``/etc``.
        kernel: What it boots with; images with the same one may share it.
        os_id: ``ID`` of its os-release.
        version: ``VERSION_ID`` of its os-release.
        kargs: Kernel arguments it asks for.
        note: Metadata of no consequence for the tree.
    """

    tag: str
    etc: Etc
    kernel: str
    os_id: str = "fedora"
    version: str = "43"
    kargs: str = "quiet"
    note: str = ""

    @property
    def os_release(self) -> bytes:
        return f"ID={self.os_id}\nVERSION_ID={self.version}\n".encode()

    @property
    def vmlinuz(self) -> bytes:
        return f"kernel {self.kernel}{_LONG}".encode() * 40

    @property
    def microcode(self) -> bytes:
        return b"microcode" * 30 if self.kernel == "2" else b""

    @property
    def initramfs(self) -> bytes:
        return f"initramfs {self.kernel}{_LONG}".encode() * 60


OLD = OsImage("old", {"a": "1", "b": "1" + _LONG, "x": "file"}, "1")
NEW = OsImage("new", {"a": "2", "b": "1" + _LONG, "x": "file", "n": "2"}, "2", version="44")
#: The same tree as NEW, built anew.
REBUILT = OsImage("rebuilt", NEW.etc, "2", version="44", note="built again")
#: The same kernel as NEW; a directory where all others have a file.
TURNED = OsImage(
    "turned", {"a": "2", "b": "3" + _LONG, "x/in": "3"}, "2", version="44", kargs="a b"
)
#: The global add-on that the unified kernel image of RENAMED may have.
GLOBAL_ADDON = "shared.addon.efi"
#: The add-on that the unified kernel images of TURNED and RENAMED may have, each its own version.
IMAGE_ADDON = "debug.addon.efi"
#: It calls itself otherwise.
RENAMED = OsImage("renamed", {"a": "4", "x": "other"}, "1", "new-name", "7-rc1", "")

ALL = {image.tag: image for image in (OLD, NEW, REBUILT, TURNED, RENAMED)}


def image_addon(image: OsImage) -> bytes:
    """Return the add-on of TURNED or RENAMED."""
    return pe.signable((b".cmdline", f"debug={image.tag}{_LONG}".encode()))


class Images:
    """The images in a layout below ``path``, for one boot type.

    Args:
        path: Where to make them.
        boot_type: How they boot.
        strict: Unified kernel images demand fs-verity.
        age: The age of the repository that they are pulled into.
        builder: The age of the program that made their unified kernel images; that of the
            installed image if None.
        in_parts: Machines boot the unified kernel images in parts. These have arguments of their
            own, and those of the kernel 2 have microcode.
        stated: More kernel arguments of unified kernel images, by the tag.
    """

    def __init__(
        self,
        path: Path,
        boot_type: BootType,
        *,
        strict: bool = False,
        age: Age = V1_16_9,
        builder: Age | None = None,
        in_parts: bool = False,
        stated: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.boot_type = boot_type
        self.age = age
        self.in_parts = in_parts
        self._builder = builder or (age if age.installed_format == 1 else V1_16_0)
        self._strict = strict
        self._stated = stated
        self._layout = images.Layout(path / "all")
        self._entries: dict[str, Mapping[str, object]] = {}
        #: Ids of deployments in hex. REBUILT has the id of NEW.
        self.ids: dict[str, str] = {}
        #: Image ids of both formats.
        self._ids: dict[str, dict[int, str]] = {}
        #: The content of what the loader reads in its order, by image id: kernel and initramfs
        #: with microcode before it, or the unified image.
        self.kernels: dict[str, tuple[bytes, ...]] = {}
        for image in ALL.values():
            self._add(image)

    def image(self, image_id: str) -> OsImage:
        """Return the image of an id, of whichever format."""
        return next(i for i in ALL.values() if image_id in self._ids[i.tag].values())

    def id_in(self, image: OsImage, erofs_format: int) -> str:
        """Return the id of an image in a format, in hex."""
        return self._ids[image.tag][erofs_format]

    def entry(self, image: OsImage) -> Mapping[str, object]:
        """Return the descriptor of an image's manifest."""
        return self._entries[image.tag]

    def _add(self, image: OsImage) -> None:
        layers = [_layer(image, kernel=self.boot_type is BootType.BLS)]
        config = {"created": "2026-01-01T00:00:00Z", "history": [{"comment": image.note}]}
        entry = self._layout.image(layers, tag=image.tag, config=config)
        reference = ImageReference.parse(self._layout.reference(image.tag))
        with open_layout(reference, images.ARCHITECTURE) as source:
            root = image_tree(source).root
            ids = {version: image_id_of(root, version=version).hex for version in (1, 2)}
        kernel: tuple[bytes, ...] = (image.vmlinuz, image.initramfs)
        if self.boot_type is BootType.UKI:
            # The id does not depend on what is in /boot, and so can be written there.
            arguments = f"rw {self._arguments(ids)} {self._stated.get(image.tag, '')}".strip()
            if self.in_parts:
                arguments += f" {image.kargs}"
            more = [(b".ucode", image.microcode)] if self.in_parts and image.microcode else []
            uki = _uki(image, arguments, *more)
            where = [images.directory(d) for d in ("boot/EFI", "boot/EFI/Linux")]
            layers.append(images.layer(*where, images.file("boot/EFI/Linux/os.efi", uki)))
            if image in (TURNED, RENAMED):
                extra = "boot/EFI/Linux/os.efi.extra.d"
                file = images.file(f"{extra}/{IMAGE_ADDON}", image_addon(image))
                layers.append(images.layer(images.directory(extra), file))
            if image is RENAMED:
                addons = [images.directory(f"boot/{d}") for d in ("loader", "loader/addons")]
                file = images.file(f"boot/loader/addons/{GLOBAL_ADDON}", b"add-on" * 20)
                layers.append(images.layer(*addons, file))
            entry = self._layout.image(layers, config=config)
            if not self.in_parts:
                kernel = (uki,)
            elif more:
                kernel = (image.vmlinuz, image.microcode, image.initramfs)
        self._ids[image.tag] = ids
        # A unified kernel image says the id of its deployment, by its first digest.
        first = 1 if self._builder.knows_digests else self._builder.repository_format
        unified = self.boot_type is BootType.UKI
        self.ids[image.tag] = ids[first if unified else self.age.repository_format]
        self.kernels |= dict.fromkeys(ids.values(), kernel)
        self._entries[image.tag] = entry

    def _arguments(self, ids: Mapping[int, str]) -> str:
        """Return the arguments by which a unified kernel image names the image."""
        builder, optional = self._builder, not self._strict
        versions = (1, 2) if builder.knows_digests else (builder.repository_format,)
        return " ".join(builder.argument(ids[v], v, optional=optional) for v in versions)


class Channel:
    """A layout directory in which there is the newest version of something."""

    def __init__(self, path: Path, images: Images, offered: OsImage) -> None:
        self.path = path
        self.images = images
        path.mkdir()
        (path / "blobs").symlink_to(images.path / "all/blobs")
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.offer(offered)

    def offer(self, image: OsImage) -> None:
        """Have this image be the newest version."""
        self.offered = image
        index = {"schemaVersion": 2, "manifests": [self.images.entry(image)]}
        (self.path / "index.json").write_text(json.dumps(index))

    @property
    def reference(self) -> ImageReference:
        """What a machine calls it."""
        return ImageReference.parse(f"oci:{self.path}")

    @property
    def image_id(self) -> str:
        """The id of what is offered."""
        return self.images.ids[self.offered.tag]


def _layer(image: OsImage, *, kernel: bool) -> bytes:
    directories = {"etc", *(str(Path("etc", path).parent) for path in image.etc)}
    kargs = ", ".join(f'"{karg}"' for karg in image.kargs.split())
    return images.bootable(
        images.directory("usr/lib/bootc"),
        images.directory("usr/lib/bootc/kargs.d"),
        images.file("usr/lib/bootc/kargs.d/os.toml", f"kargs = [{kargs}]\n".encode()),
        images.file("usr/lib/os-release", image.os_release),
        images.file("usr/program", f"{image.os_id} {image.version}{_LONG}".encode()),
        *(images.directory(path, **_OWNER) for path in sorted(directories)),
        *(images.file(f"etc/{path}", text.encode(), **_OWNER) for path, text in image.etc.items()),
        kernel=image.vmlinuz if kernel else b"",
        initramfs=image.initramfs,
    )


def _uki(image: OsImage, arguments: str, *more: tuple[bytes, bytes]) -> bytes:
    return pe.program(
        (b".osrel", image.os_release),
        (b".cmdline", arguments.encode()),
        (b".linux", image.vmlinuz),
        (b".initrd", image.initramfs),
        *more,
    )
