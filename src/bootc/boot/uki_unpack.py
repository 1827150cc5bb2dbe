"""Writes the kernel and the initramfs of a unified kernel image to files.

Source: bootc, "internals uki extract".
"""

from __future__ import annotations

import re

from bootc.boot.scheme import VMLINUZ
from bootc.boot.unpacked_kernel import INITRAMFS
from bootc.errors import Error, doing
from bootc.formats import pe
from bootc.formats.pe import SeekableFile, Uki
from bootc.fs.atomic import write_stream
from bootc.fs.dir import Dir

_FILES = {VMLINUZ: pe.LINUX, INITRAMFS: pe.INITRD}
#: The release of a kernel, as a name of a directory.
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}", re.ASCII)


class NoRelease(Error):
    """A unified kernel image does not say which release its kernel has."""


def unpack_uki(file: SeekableFile, output: Dir) -> str:
    """Write the kernel and the initramfs of a UKI to a new directory.

    If this fails, the directory is removed.

    Args:
        file: The UKI.
        output: Gets the directory, which is named like the release of the kernel.

    Returns:
        The release of the kernel.

    Raises:
        PeError: the file is not a UKI, or a section is missing.
        NoRelease: the release cannot be the name of a directory.
        FileExistsError: there is such a directory.
        OSError: writing failed.
    """
    uki = Uki.read(file)
    release = uki.text(pe.UNAME).strip()
    if not _RELEASE.fullmatch(release):
        raise NoRelease(f"the UKI calls the release of its kernel {release!r:.80}")
    with doing(f"Writing {output.path}/{release}"):
        output.mkdir(release)
        try:
            with output.open_dir(release) as directory:
                for name, section in _FILES.items():
                    write_stream(directory, name, uki.chunks(section))
        except BaseException:
            output.remove_tree(release)
            raise
    return release
