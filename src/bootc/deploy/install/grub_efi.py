"""Puts GRUB on the EFI system partition, with shim in front of it if the image has shim.

The programs of Debian's packages are signed: shim by Microsoft's key, GRUB by Debian's, which shim
knows. They are copied unchanged. The firmware finds them in two places: ``EFI/BOOT`` is what it
starts from a disk that it does not know, and its own boot entry names the directory of the
distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bootc.boot import grub
from bootc.boot.image_content import file_size
from bootc.deploy.install.loader_installer import ImageNeed
from bootc.errors import doing
from bootc.formats.grubefi import configuration_directory
from bootc.formats.tree import Directory
from bootc.fs.atomic import write_stream
from bootc.fs.dir import Dir

_MAX_PROGRAM_BYTES = 32 << 20
_SHIM = "usr/lib/shim"
_FALLBACK = "EFI/BOOT"
#: Stands for the directory that GRUB's program names.
_OWN = "EFI/<distribution>"
_STUB = "grub.cfg"


@dataclass(frozen=True, slots=True)
class _Machine:
    """The names of the packages' files and of the firmware's programs for an architecture."""

    suffix: str
    platform: str
    package: str

    @property
    def grubs(self) -> tuple[str, str]:
        """GRUB in the image: the signed program, and the one that is not."""
        program = f"grub{self.suffix}.efi"
        return (
            f"usr/lib/grub/{self.platform}-signed/{program}.signed",
            f"usr/lib/grub/{self.platform}/monolithic/{program}",
        )


_MACHINES = {
    "x86_64": _Machine("x64", "x86_64-efi", "grub-efi-amd64-signed"),
    "aarch64": _Machine("aa64", "arm64-efi", "grub-efi-arm64-signed"),
}
MACHINES = tuple(_MACHINES)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file of the image, and its directory and name on the ESP."""

    source: str
    directory: str
    name: str


def needs(machine: str) -> tuple[ImageNeed, ...]:
    """Return what the image must have: GRUB, signed or not."""
    names = _MACHINES[machine]
    return (ImageNeed(names.grubs, names.package),)


def is_there(has: Callable[[str], bool], machine: str) -> bool:
    """Tell whether an image has GRUB for UEFI; ``has`` tells whether it has a file."""
    return any(map(has, _MACHINES[machine].grubs))


def sizes(tree: Directory, machine: str, *, generic: bool) -> Mapping[str, int]:
    """Return the programs that :func:`write_programs` will write: name and size in bytes."""
    copies = _copies(machine, lambda path: file_size(tree, path) is not None, generic=generic)
    return {f"{copy.directory}/{copy.name}": file_size(tree, copy.source) or 0 for copy in copies}


def write_programs(image: Dir, esp: Dir, machine: str, boot_uuid: str, *, generic: bool) -> str:
    """Write the programs and the stub, and return the path of the program to start.

    Args:
        image: The root of the image.
        esp: The EFI system partition.
        machine: The architecture of the machine.
        boot_uuid: The UUID of the file system with ``grub2/grub.cfg``.
        generic: Leave out the directory that only a boot entry of the firmware names.

    Raises:
        GrubImageError: it is unknown where GRUB looks for its configuration.
        OSError: the image has no GRUB, or reading or writing failed.
    """
    copies = _copies(machine, image.exists, generic=generic)
    program = next(copy.source for copy in copies if copy.source in _MACHINES[machine].grubs)
    own = configuration_directory(_read(image, program))
    _write(esp, own, _STUB, grub.stub(boot_uuid))
    path = ""
    for copy in copies:
        directory = own if copy.directory == _OWN else copy.directory
        _write(esp, directory, copy.name, _read(image, copy.source))
        path = f"{directory}/{copy.name}"
    return path


def _copies(machine: str, has: Callable[[str], bool], *, generic: bool) -> tuple[_Copy, ...]:
    """Return the files to write, in this order. The last one is the program to start."""
    names = _MACHINES[machine]
    suffix = names.suffix
    signed, unsigned = names.grubs
    program = signed if has(signed) else unsigned
    own, fallback = f"grub{suffix}.efi", f"BOOT{suffix.upper()}.EFI"
    shim = f"{_SHIM}/shim{suffix}.efi.signed"
    if not has(shim):
        return (
            _Copy(program, _FALLBACK, fallback),
            *(() if generic else (_Copy(program, _OWN, own),)),
        )
    # shim starts GRUB from its own directory, and the manager of keys.
    manager = f"mm{suffix}.efi"
    beside = [(program, own)]
    if has(f"{_SHIM}/{manager}.signed"):
        beside.append((f"{_SHIM}/{manager}.signed", manager))
    # Not the list of boot entries: shim's fallback program, if it is there, would write these.
    copies = [_Copy(source, _FALLBACK, name) for source, name in beside]
    copies.append(_Copy(shim, _FALLBACK, fallback))
    if not generic:
        entries = f"BOOT{suffix.upper()}.CSV"
        if has(f"{_SHIM}/{entries}"):
            beside.append((f"{_SHIM}/{entries}", entries))
        copies += [_Copy(source, _OWN, name) for source, name in beside]
        copies.append(_Copy(shim, _OWN, f"shim{suffix}.efi"))
    return tuple(copies)


def _read(image: Dir, path: str) -> bytes:
    with doing(f"Reading {path} of the image"):
        return image.read_bytes(path, _MAX_PROGRAM_BYTES)


def _write(esp: Dir, directory: str, name: str, data: bytes) -> None:
    with doing(f"Writing {esp.path}/{directory}/{name}"), esp.ensure_dir(directory) as target:
        write_stream(target, name, [data])
