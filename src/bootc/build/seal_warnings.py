"""What to tell the user about an image before it is signed.

The checks are those of ``bootc container lint`` (:mod:`bootc.boot.sealed_checks`), and those that
only the layers show (:mod:`bootc.oci.layer_doubts`). The image can be sealed all the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

from bootc.boot import sealed_checks
from bootc.boot.esp_size import INSTALL_CONFIG, configured_esp_size_mib
from bootc.boot.image_content import content_of, size_of
from bootc.build.seal_base import BaseImage
from bootc.formats import cmdline
from bootc.formats.initramfs import InitramfsError
from bootc.formats.tree import Directory, External, Inline, Leaf

#: A configuration of the installation is smaller.
_MAX_CONFIG_BYTES = 1 << 20


def warnings(base: BaseImage, line: str, uki_bytes: int) -> Iterator[str]:
    """Yield what would make the sealed image protect less, or be another one for a program.

    Args:
        base: The image.
        line: The kernel command line of its UKI.
        uki_bytes: The size of the UKI.
    """
    lines = [cmdline.parse(line)]

    def open_file(leaf: Leaf) -> io.BytesIO:
        return io.BytesIO(base.read(leaf))

    if sealed_checks.lacks_lockdown(lines, base.root, [base.kernel.kver], open_file):
        yield sealed_checks.NO_LOCKDOWN
    with suppress(InitramfsError):  # The kernel may know more formats.
        if sealed_checks.lacks_panic(lines, open_file(base.kernel.initramfs).read):
            yield sealed_checks.NO_PANIC
    configured_mib = configured_esp_size_mib(_install_config(base))
    small = sealed_checks.esp_too_small(base.root, uki_bytes, configured_mib)
    if small is not None:
        yield small
    yield from base.doubts.sentences(base.root)


def _install_config(base: BaseImage) -> Iterator[bytes]:
    files: dict[bytes, Leaf] = {}
    for home in INSTALL_CONFIG:
        directory = base.root.lookup(home)
        for name, node in directory.entries.items() if isinstance(directory, Directory) else ():
            if name.endswith(b".toml") and isinstance(node, Leaf):
                files[name] = node
    for _, leaf in sorted(files.items()):
        # A link masks the file of this name in an earlier directory.
        if isinstance(leaf.content, Inline | External) and size_of(leaf) <= _MAX_CONFIG_BYTES:
            yield base.read_content(content_of(leaf))
