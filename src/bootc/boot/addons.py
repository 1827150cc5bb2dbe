"""Reads, checks, writes and removes add-ons of unified kernel images (UKIs).

An add-on is an EFI program without a kernel. The stub of a UKI appends its kernel arguments to
those of the UKI. The stub looks into the directory beside the UKI, and into ``loader/addons`` for
all UKIs of the partition. With Secure Boot it skips add-ons without a valid signature. It also
skips names that begin with a dot, as our temporary files do, and names that are not ASCII.

Source: systemd, ``src/boot/stub.c`` (``load_addons_from_dir``); UAPI group, "Unified Kernel Image",
"PE Addons".
"""

from __future__ import annotations

import contextlib
import io
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bootc.boot.scheme import ADDON_SUFFIX, BootDirs
from bootc.boot.space import NoSpaceOnBoot, free_space
from bootc.boot.uki import check_addon_text, shown_arguments
from bootc.errors import Error, doing
from bootc.formats import cmdline, fat, pe
from bootc.formats.pe import PeError, SeekableFile, Uki
from bootc.formats.pesignature import is_signed
from bootc.fs import atomic
from bootc.fs.atomic import staged_stream
from bootc.fs.dir import Dir
from bootc.printable import printable
from bootc.sizes import human_size

#: Add-ons of kernel arguments have some ten thousand bytes, those with microcode some million.
MAX_ADDON_BYTES = 16 << 20
#: All add-ons of a directory are read into memory.
_MAX_DIRECTORY_BYTES = 64 << 20
#: A directory with more names is not read.
_MAX_NAMES = 256
#: What the stub takes from an add-on.
_SECTIONS = frozenset({pe.CMDLINE, pe.INITRD, pe.UCODE, pe.DTB, ".dtbauto", ".hwids", ".efifw"})
#: Where the initramfs would look for the disk that has the image.
_ROOT = "root"
#: The section that names the stub of a UKI, and the first version of systemd's that has add-ons.
_STUB_INFO = ".sdmagic"
_STUB_VERSION = re.compile(r"#### LoaderInfo: systemd-stub (\d{1,9})\b")
_FIRST_STUB = 254
#: Characters of a kernel release in messages.
_MAX_SHOWN = 80
#: For a new directory, and the growth of the one above it.
_DIRECTORY_CLUSTERS = 2


class WrongAddon(Error):
    """A file is no add-on of unified kernel images, or one that must not be installed."""


@dataclass(frozen=True, slots=True)
class AddonContent:
    """The content of an add-on.

    Attributes:
        arguments: Its kernel arguments as the kernel gets them; None if it has none.
        release: The kernel that it is for; None if for any.
        machine: The number of the processor architecture that it is for.
        sections: The names of the sections that a stub uses, sorted.
        signed: Whether it has a signature. Nothing has verified the signature.
    """

    arguments: str | None
    release: str | None
    machine: int
    sections: tuple[str, ...]
    signed: bool


@dataclass(frozen=True, slots=True)
class InstalledAddon:
    """An add-on on the boot partition.

    Attributes:
        name: Its file name.
        path: Its path on the partition.
        size_bytes: Its size.
        data: The whole file; empty if it cannot be read or is too large.
        content: What is in it; None if it cannot be read.
        problem: Why it cannot be read; empty if it can.
    """

    name: str
    path: str
    size_bytes: int
    data: bytes
    content: AddonContent | None
    problem: str = ""


def read_content(file: SeekableFile) -> AddonContent:
    """Read an add-on.

    Raises:
        WrongAddon: it has a kernel, or nothing that a stub uses.
        PeError: it is no EFI program.
    """
    program = Uki.read(file)
    if pe.LINUX in program.sections:
        raise WrongAddon("it is a unified kernel image: it has a kernel")
    if not (sections := _SECTIONS.intersection(program.sections)):
        raise WrongAddon("it is no add-on: it has no kernel arguments and nothing else for a stub")
    texts = program.texts(pe.CMDLINE)
    return AddonContent(
        arguments=" ".join(map(shown_arguments, texts)) if texts else None,
        release=release_of(program),
        machine=program.machine,
        sections=tuple(sorted(sections)),
        signed=is_signed(file),
    )


def check_content(content: AddonContent, *, sealed: bool) -> None:
    """Refuse kernel arguments that would say which image boots, or from where.

    Args:
        content: The add-on.
        sealed: A sealed unified kernel image gets the arguments.

    Raises:
        WrongUki, WrongAddon: it has such an argument.
    """
    if content.arguments is None:
        return
    check_addon_text(content.arguments)
    for word in cmdline.parse(content.arguments):
        # Programs disagree about quotes within a key.
        if sealed and cmdline.key_of(word.replace('"', "")) == _ROOT:
            raise WrongAddon(
                f"the kernel argument {word!r:.160} contradicts the seal",
                hint="a sealed image names its root file system in the UKI, or not at all",
            )


def release_of(program: Uki) -> str | None:
    """Return the kernel release that a UKI has, or that an add-on is for; None if it says none.

    Raises:
        PeError: it is no text.
    """
    return program.text(pe.UNAME) if pe.UNAME in program.sections else None


def why_skipped(uki: Uki, content: AddonContent) -> str | None:
    """Return why the stub of a UKI would skip an add-on; None if it uses it, or if that is unknown.

    Whether the stub accepts the signature is not known here.

    Raises:
        PeError: a section of the UKI cannot be read.
    """
    if content.machine != uki.machine:
        return "it is for another processor"
    release = release_of(uki)
    if release is not None and content.release not in (None, release):
        wanted = printable(content.release or "", _MAX_SHOWN)
        return f"it is for kernel {wanted}, and the UKI has {printable(release, _MAX_SHOWN)}"
    if _STUB_INFO in uki.sections:
        found = _STUB_VERSION.match(uki.text(_STUB_INFO))
        if found and int(found[1]) < _FIRST_STUB:
            return f"the UKI has the stub of systemd {found[1]}, which knows no add-ons"
    return None


def check_name(name: str) -> None:
    """Refuse a file name that the partition cannot have, or that the stub skips.

    Raises:
        WrongAddon: it is such a name.
    """
    if not name.endswith(ADDON_SUFFIX) or name == ADDON_SUFFIX:
        raise WrongAddon(
            f"'{printable(name, 80)}' is no name of an add-on",
            hint=f"call it NAME{ADDON_SUFFIX}",
        )
    usable = name.isascii() and name.isprintable() and name[0] != "."
    if not (usable and fat.is_name(f"{atomic.FILE_PREFIX}{name}")):
        raise WrongAddon(
            f"'{printable(name, 80)}' is a name that the ESP cannot hold, or that stubs skip",
            hint="use letters and digits of ASCII",
        )


def list_addons(root: Dir, home: str) -> tuple[InstalledAddon, ...]:
    """Return the add-ons in a directory of the boot partition, ordered by name.

    Files with other names, and those that the stub skips by their name, are left out.

    Raises:
        OSError: the directory cannot be read, or has too many names.
    """
    try:
        with doing(f"Listing {root.path}/{home}"), root.open_dir(home) as directory:
            found: list[InstalledAddon] = []
            room = _MAX_DIRECTORY_BYTES
            for name in directory.names(limit=_MAX_NAMES):
                if _is_used(directory, name):
                    found.append(_installed(directory, name, home, room))
                    room -= len(found[-1].data)
            return tuple(found)
    except (FileNotFoundError, NotADirectoryError):
        return ()


def check_room(dirs: BootDirs, sizes: Mapping[str, int]) -> None:
    """Ensure that the boot partition has room for new files, also of one that is replaced.

    Args:
        dirs: The boot partition.
        sizes: The size in bytes of each file, by name.

    Raises:
        NoSpaceOnBoot: it has not.
    """
    free, cluster = free_space(dirs.binaries)
    clusters = sum(-(-size // cluster) for size in sizes.values()) + _DIRECTORY_CLUSTERS
    required = clusters * cluster
    if required > free:
        raise NoSpaceOnBoot(
            f"{dirs.place} has {human_size(free)} free, "
            f"but the add-ons need {human_size(required)}",
            hint="remove what nothing needs: bootc internals composefs-gc; "
            "or a deployment: bootc delete-deployment",
        )


def write_addons(dirs: BootDirs, home: str, files: Sequence[tuple[str, bytes]]) -> None:
    """Write add-ons into a directory of the boot partition. They are on the disk afterwards.

    Each file is complete when it has its name, and was compared with what the disk has. Most
    failures happen before the first file has its name.

    Raises:
        NotOnDisk: the disk has another content.
        OSError: writing failed.
    """
    with (
        doing(f"Writing add-ons to {dirs.binaries.path}/{home}"),
        dirs.binaries.ensure_dir(home) as directory,
        contextlib.ExitStack() as stack,
    ):
        commits = [
            stack.enter_context(staged_stream(directory, name, [data])) for name, data in files
        ]
        for commit in commits:
            commit()
        dirs.binaries.sync()


def remove_addon(dirs: BootDirs, path: str) -> None:
    """Remove an add-on. One that does not exist is no error.

    Raises:
        OSError: removing failed.
    """
    with doing(f"Removing {dirs.binaries.path}/{path}"):
        with contextlib.suppress(FileNotFoundError):
            dirs.binaries.unlink(path)
        dirs.binaries.sync()


def _is_used(directory: Dir, name: str) -> bool:
    """Tell whether the stub looks at a name in a directory of add-ons."""
    # FAT ignores the case of letters, and so does the stub.
    named = name.lower().endswith(ADDON_SUFFIX) and name[0] != "." and name.isascii()
    return named and not stat.S_ISDIR(directory.stat(name).st_mode)


def _installed(directory: Dir, name: str, home: str, room: int) -> InstalledAddon:
    path, size, data = f"{home}/{name}", 0, b""
    try:
        size = directory.stat(name).st_size
        data = directory.read_bytes(name, min(MAX_ADDON_BYTES, room))
        return InstalledAddon(name, path, size, data, read_content(io.BytesIO(data)))
    except (PeError, WrongAddon) as exc:
        return InstalledAddon(name, path, size, data, None, exc.message)
    except OSError as exc:
        return InstalledAddon(name, path, size, b"", None, exc.strerror or str(exc))
