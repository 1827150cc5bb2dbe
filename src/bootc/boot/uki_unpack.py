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
from bootc.fs.parents import directories_made
from bootc.printable import shown

_FILES = {VMLINUZ: pe.LINUX, INITRAMFS: pe.INITRD}
#: The release of a kernel, as a name of a directory.
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}", re.ASCII)


class AlreadyUnpacked(Error):
    """The directory of the kernel exists."""


class NoRelease(Error):
    """A unified kernel image does not say which release its kernel has."""


def unpack_uki(file: SeekableFile, path: str, output: str) -> str:
    """Write the kernel and the initramfs of a UKI to a new directory.

    If this fails, the new directories are removed.

    Args:
        file: The UKI.
        path: How errors name it.
        output: Gets the directory, which is named like the release of the kernel. It is made if it
            does not exist.

    Returns:
        The release of the kernel.

    Raises:
        PeError: the file is not a UKI, a section is missing, the kernel is empty, or there are
            two sections of the same name.
        NoRelease: the release cannot be the name of a directory.
        AlreadyUnpacked: there is a file or directory with this name.
        OSError: writing failed.
    """
    with doing(f"Reading {path}"):
        uki = Uki.read(file)
        for error in uki.doubled():
            raise error
        release = uki.text(pe.UNAME).strip()
        if not _RELEASE.fullmatch(release):
            raise NoRelease(
                f"the UKI calls the release of its kernel {shown(release, 80)}, "
                "which cannot name a directory"
            )
        # Most errors are found here, before anything is written.
        contents = {name: uki.chunks(section) for name, section in _FILES.items()}
    with directories_made(output), Dir.open(output) as parent:
        try:
            parent.mkdir(release)
        except FileExistsError as exc:
            raise AlreadyUnpacked(
                f"{parent.path}/{release} exists", hint="remove it, or name another OUTPUT"
            ) from exc
        try:
            with parent.open_dir(release) as directory:
                for name, content in contents.items():
                    write_stream(directory, name, content)
        except BaseException:
            parent.remove_tree(release)
            raise
    return release
