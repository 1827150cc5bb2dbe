"""Reads unified kernel images: the sections of an EFI program, and their meaning.

Owns: finding sections by name in a PE file, and the meaning of those which a UKI has:
``.linux``, ``.initrd`` and ``.dtb`` are what boots, ``.cmdline`` names the image, ``.osrel``
the operating system. Nothing is read but headers until a section is asked for, and a large
one comes in pieces, so that the memory needed does not grow with the kernel.

Promises: bytes that are no EFI program raise :class:`PeError` with their offset. Of two
sections with one name the first counts, except for command lines. A section is
``VirtualSize`` bytes at ``PointerToRawData``: what the linker added to fill its last block
does not belong to it.

A boot loader shows one item for each ``.profile`` section. The sections up to the next
``.profile`` belong to that profile and replace those of the base, which is what stands before
the first ``.profile``; of several with one name systemd's stub takes the first
(``pe_locate_profile_sections`` of its source). Stubs before systemd 257 know no profiles. So
whichever command line a profile boots with, and also one that no profile uses, must name the
same images.

Text ends at its first zero byte, as it does for the EFI stub (dracut appends one), and
nothing may hide behind that. composefs-rs keeps the zero and then fails on the
``composefs=`` argument before it.

Format: Microsoft PE/COFF, "COFF File Header" and "Section Table"; UAPI group, "Unified
Kernel Image"; composefs-rs 0.9, ``composefs-boot/src/uki.rs``.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bootc.errors import Error
from bootc.formats import cmdline
from bootc.formats.cmdline import CmdlineError, ComposefsImages
from bootc.formats.osrelease import OsRelease, parse_os_release

LINUX = ".linux"
INITRD = ".initrd"
DTB = ".dtb"
UCODE = ".ucode"
CMDLINE = ".cmdline"
OSREL = ".osrel"
UNAME = ".uname"
PROFILE = ".profile"

_SINGLE = (LINUX, INITRD, DTB, UCODE, CMDLINE, OSREL, UNAME)

#: The kernel takes a few thousand bytes of command line; no other text is long either.
MAX_TEXT_BYTES = 1 << 20
#: systemd-boot shows no more profiles.
MAX_PROFILES = 256

_HINT = "name the image on the command line of each profile of the UKI"

_PE_OFFSET = struct.Struct("<I")
_PE_OFFSET_AT = 0x3C
#: Signature, then of the COFF header: machine, number of sections, size of the optional header.
_HEADER = struct.Struct("<4sHH12xH2x")
_SIGNATURE = b"PE\0\0"
#: The first bytes of every EFI program. The firmware starts no other file.
_DOS_SIGNATURE = b"MZ"
#: Name, VirtualSize, PointerToRawData.
_SECTION = struct.Struct("<8sI8xI16x")
_PIECE_BYTES = 1 << 18


class PeError(Error):
    """A file is no EFI program, or lacks what a unified kernel image has."""


class SeekableFile(Protocol):
    """The methods of a binary file that this module uses."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to an offset, and return it."""
        ...

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Section:
    """The place of a section's content, as the header states it: perhaps beyond the end."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Part:
    """The base of a UKI or one of its profiles: what errors begin with, and its sections."""

    label: str
    sections: list[tuple[str, Section]]


class Uki:
    """An open unified kernel image. The file stays the caller's, and must stay open.

    Attributes:
        sections: The first of each name, in the order of the file.
        machine: The number of the processor architecture that it is for.
    """

    def __init__(
        self,
        file: SeekableFile,
        size_bytes: int,
        table: Sequence[tuple[str, Section]],
        machine: int,
    ) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._table = table
        self.machine = machine
        self.sections: dict[str, Section] = {}
        for name, section in table:
            self.sections.setdefault(name, section)

    @classmethod
    def read(cls, file: SeekableFile) -> Uki:
        """Read the headers.

        Raises:
            PeError: the file is no EFI program.
        """
        size = file.seek(0, os.SEEK_END)
        raw = _read(file, size, _PE_OFFSET_AT, _PE_OFFSET.size, "header")
        (start,) = _PE_OFFSET.unpack(raw)
        if _read(file, size, 0, len(_DOS_SIGNATURE), "header") != _DOS_SIGNATURE:
            raise _invalid("no MZ signature", 0)
        raw = _read(file, size, start, _HEADER.size, "header")
        signature, machine, count, optional_bytes = _HEADER.unpack(raw)
        if signature != _SIGNATURE:
            raise _invalid("no PE signature", start)
        table = start + _HEADER.size + optional_bytes
        raw = _read(file, size, table, count * _SECTION.size, "section table")
        sections = [
            # Names are compared as bytes, and Latin-1 keeps different bytes different.
            (name.rstrip(b"\0").decode("latin-1"), Section(offset, size_bytes))
            for name, size_bytes, offset in _SECTION.iter_unpack(raw)
        ]
        return cls(file, size, sections, machine)

    @property
    def profile_count(self) -> int:
        """How many profiles the UKI has.

        Raises:
            PeError: more than a boot loader shows.
        """
        return len(self._parts()) - 1

    def first_profile(self) -> Uki:
        """Return the UKI as it starts by default: the first profile, completed from the base.

        Raises:
            PeError: there are more profiles than a boot loader shows.
        """
        base, *profiles = self._parts()
        own = profiles[0].sections if profiles else []
        return Uki(self._file, self._size_bytes, [*own, *base.sections], self.machine)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Return the content of a section in pieces.

        Raises:
            PeError: there is no section of this name, it reaches beyond the end of the file, or
                it is an empty kernel.
        """
        section = self._section(name)
        if name == LINUX and not section.size_bytes:
            raise PeError(f"UKI section {name!r} is empty")
        return _pieces(self._file, section.offset, section.size_bytes, f"section {name!r}")

    def text(self, name: str) -> str:
        """Return the content of a section of text, up to its first zero byte.

        Raises:
            PeError: there is no section of this name, or it contains no text.
        """
        return self._text(name, self._section(name))

    def texts(self, name: str) -> list[str]:
        """Return the content of all sections of text with this name, in any profile.

        Raises:
            PeError: one of them holds no text.
        """
        return [text for part in self._parts() for text in self._texts(part, name)]

    def composefs_images(self) -> ComposefsImages:
        """Return the images that the kernel command lines name, whichever profile boots.

        Raises:
            PeError: there is no command line, in a profile or at all.
            CmdlineError: one names no image, is malformed, or names others than another one.
        """
        base, *profiles = self._parts()
        for part in profiles or [base]:
            if not self._texts(part, CMDLINE) and not self._texts(base, CMDLINE):
                raise PeError(f"{part.label}UKI doesn't contain a {CMDLINE!r} section")
        first: ComposefsImages | None = None
        for part in (base, *profiles):
            for text in self._texts(part, CMDLINE):
                try:
                    images = cmdline.composefs_images(text)
                except CmdlineError as exc:
                    raise type(exc)(f"{part.label}{exc.message}", hint=_HINT) from None
                first = first or images
                if not images.agrees_with(first):
                    raise CmdlineError(
                        f"{part.label}the kernel command line has {_odd(images, first)}, "
                        f"and another one {_odd(first, images)}",
                        hint=_HINT,
                    )
        assert first is not None, "every part has a command line, or there was a PeError"
        return first

    def doubled(self) -> list[PeError]:
        """Return an error for each section that the base or a profile has more than once.

        Readers disagree about which of them counts. This is about the sections that this module
        knows: the specification allows several of some others.
        """
        return [
            PeError(f"{part.label}UKI has {count} sections {name!r}")
            for part in self._parts()
            for name, count in Counter(name for name, _ in part.sections).items()
            if count > 1 and name in _SINGLE
        ]

    def os_release(self) -> OsRelease:
        """Return what the operating system calls itself.

        Raises:
            PeError: there is no section of this name, or it contains no text.
        """
        return parse_os_release(self.text(OSREL).encode())

    def boot_label(self) -> str:
        """Return the title for a boot menu: name and version of the operating system.

        Raises:
            PeError: there is no ``.osrel`` section, or no name in it.
        """
        label = self.os_release().boot_label
        if label is None:
            raise PeError(f"No name information found in {OSREL} section")
        return label

    def boot_digest(self) -> str:
        """Return what identifies kernel, initramfs and device tree: SHA-256 in hex over them.

        A UKI without a device tree has the digest that upstream computes since its beginning.
        With one it is the digest of upstream since 1.17.

        Raises:
            PeError: kernel or initramfs is missing, or one reaches beyond the end of the file.
        """
        digest = hashlib.sha256()
        for name in (LINUX, INITRD, *([DTB] if DTB in self.sections else [])):
            for piece in self.chunks(name):
                digest.update(piece)
        return digest.hexdigest()

    def _parts(self) -> list[_Part]:
        """Return the base, and the profiles in their order."""
        parts = [_Part("", [])]
        for name, section in self._table:
            if name != PROFILE:
                parts[-1].sections.append((name, section))
            elif len(parts) > MAX_PROFILES:
                raise PeError(f"UKI has more than {MAX_PROFILES} profiles")
            else:
                parts.append(_Part(self._label(len(parts) - 1, section), []))
        return parts

    def _label(self, number: int, section: Section) -> str:
        try:
            identity = parse_os_release(self._text(PROFILE, section).encode()).id
        except PeError:
            identity = None
        return f"profile {number} ({identity}): " if identity else f"profile {number}: "

    def _texts(self, part: _Part, name: str) -> list[str]:
        sections = [section for found, section in part.sections if found == name]
        if len(sections) > MAX_PROFILES:
            raise PeError(f"{part.label}UKI has {len(sections)} sections {name!r}")
        return [self._text(name, section) for section in sections]

    def _text(self, name: str, section: Section) -> str:
        self._check(name, section)
        if section.size_bytes > MAX_TEXT_BYTES:
            raise PeError(
                f"UKI section {name!r} has {section.size_bytes} bytes, more than {MAX_TEXT_BYTES}"
            )
        pieces = _pieces(self._file, section.offset, section.size_bytes, f"section {name!r}")
        text, _, rest = b"".join(pieces).partition(b"\0")
        if rest.strip(b"\0"):
            at = section.offset + len(text)
            raise PeError(f"UKI section {name!r} goes on after a zero byte at offset {at}")
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as exc:
            at = section.offset + exc.start
            raise PeError(f"UKI section {name!r} is not UTF-8 at offset {at}") from None

    def _section(self, name: str) -> Section:
        section = self.sections.get(name)
        if section is None:
            raise PeError(f"UKI doesn't contain a {name!r} section")
        self._check(name, section)
        return section

    def _check(self, name: str, section: Section) -> None:
        if section.offset + section.size_bytes > self._size_bytes:
            raise _invalid(f"section {name!r} reaches beyond the end", section.offset)


def _odd(images: ComposefsImages, others: ComposefsImages) -> str:
    """Return the first argument that ``others`` does not have, shortened."""
    differing = [argument for argument in images.arguments if argument.hex not in others.hexes]
    return (differing or images.arguments)[0].short


def _read(file: SeekableFile, file_bytes: int, offset: int, size: int, what: str) -> bytes:
    if offset + size > file_bytes:
        raise _invalid(f"truncated {what}", offset)
    return b"".join(_pieces(file, offset, size, what))


def _pieces(file: SeekableFile, offset: int, size: int, what: str) -> Iterator[bytes]:
    end = offset + size
    while offset < end:
        file.seek(offset)
        piece = file.read(min(end - offset, _PIECE_BYTES))
        if not piece:
            raise _invalid(f"truncated {what}", offset)
        offset += len(piece)
        yield piece


def _invalid(why: str, offset: int) -> PeError:
    return PeError(f"UKI is not valid EFI executable: {why} at offset {offset}")
