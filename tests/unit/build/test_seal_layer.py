"""The layer that seals an image: its entries, and the tree that it makes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from bootc.build.seal_base import read_base
from bootc.build.seal_layer import sealed_tree, write_layer
from bootc.events import null_sink
from bootc.oci.trees import image_id_of
from support import images, pe, sealing
from support.images import MTIME, directory, file, hardlink, xattr
from support.sealing import KVER, LOADER, UKI

MODULES = f"usr/lib/modules/{KVER}"
STUB = pe.signable((b".text", b"stub" * 100))
MORE = (
    file(f"{MODULES}/.vmlinuz.hmac", b"checksum"),
    hardlink("boot/vmlinuz-6.12.0", f"{MODULES}/vmlinuz"),
    file("boot/initrd.img-6.12.0", sealing.INITRAMFS),
    file("boot/config-6.12.0", b"CONFIG=y"),
    directory("boot", 0o700, mtime=MTIME + 5, pax_headers=xattr("user.a", "b")),
    directory(MODULES, mtime=MTIME + 7, uid=3),
)


def written(path: Path, layers: tuple[bytes, ...], **options: str) -> tuple[bytes, str]:
    """Return the layer of an image with these layers, and the id of the sealed tree."""
    layout = images.single(path / "layout", *layers, **options)
    signed = path / "signed"
    signed.write_bytes(b"signed" * 100)
    files = {UKI: os.fspath(signed), f"{LOADER}.signed": os.fspath(signed)}
    with images.opened(layout) as source:
        base = read_base(source, null_sink)
        layer = write_layer(base, files, io.BytesIO())
        tree = sealed_tree(base, layer)
        # The image is not changed by that.
        assert write_layer(base, files, io.BytesIO()).layer == layer.layer
        return b"".join(layer.chunks()), image_id_of(tree).hex


def test_the_entries(tmp_path: Path) -> None:
    data, _ = written(tmp_path, sealing.layers(*MORE, stub=STUB, loader=STUB))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entries = {entry.name: entry for entry in archive}
    assert list(entries) == [
        *("boot", "boot/.wh.initrd.img-6.12.0", "boot/.wh.vmlinuz-6.12.0"),
        *("boot/EFI", "boot/EFI/Linux", UKI, "usr", "usr/lib", "usr/lib/modules", MODULES),
        *(f"{MODULES}/.wh.{name}" for name in (".vmlinuz.hmac", "initramfs.img", "vmlinuz")),
        *("usr/lib/systemd", "usr/lib/systemd/boot", "usr/lib/systemd/boot/efi"),
        f"{LOADER}.signed",
    ]
    # Directories have the metadata that they have in the image.
    boot, modules, new = entries["boot"], entries[MODULES], entries["boot/EFI"]
    assert (boot.mode, boot.mtime, boot.pax_headers) == (
        *(0o700, MTIME + 5),
        {"SCHILY.xattr.user.a": "b"},
    )
    assert (modules.mode, modules.mtime, modules.uid) == (0o755, MTIME + 7, 3)
    assert (new.mode, new.mtime, new.uid) == (0o755, MTIME, 0)
    assert (entries[UKI].mode, entries[UKI].size, entries[UKI].mtime) == (0o644, 600, MTIME)


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_the_layers_of_the_image_do_not_count(tmp_path: Path, compression: str) -> None:
    first, second = sealing.layers(*MORE, stub=STUB, loader=STUB)
    expected = written(tmp_path, (first, second))
    # An image of more layers, which replace and remove files.
    more = (
        images.layer(file("usr/lib/scratch", b"x"), file("usr/lib/os-release", b"old" * 99)),
        first,
        second,
        images.layer(file("usr/lib/.wh.scratch")),
    )
    other = tmp_path / "other"
    other.mkdir()
    assert written(other, more, compression=compression) == expected
