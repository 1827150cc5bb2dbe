"""Unified kernel images of deployments: checking one, and writing it to the ESP.

The image id is in the command line inside of the image, where a signature covers it. One
that names another deployment would boot that, whatever the menu says, and is refused
before anything refers to it.

What the firmware stub adds to an image, its add-ons, lies in a directory beside it. An
image has no more and no other add-ons than were chosen for it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from bootc.boot.content import ObjectSource, checked_chunks, open_content
from bootc.boot.discover import UkiFile
from bootc.boot.scheme import ADDON_SUFFIX, UKIS, BootDirs, addons_dir, uki_file
from bootc.boot.writing import write_stream
from bootc.errors import Error, doing
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest
from bootc.formats.osrelease import OsRelease
from bootc.formats.pe import CMDLINE, Uki


class WrongUki(Error):
    """A unified kernel image does not boot the deployment it came with."""


@dataclass(frozen=True, slots=True)
class UkiFacts:
    """What a unified kernel image says.

    Attributes:
        os_release: Who the operating system is.
        options: The kernel command line.
        boot_digest: SHA-256 in hex over kernel and initramfs.
        missing_verity_allowed: Whether the command line tolerates missing fs-verity.
    """

    os_release: OsRelease
    options: str
    boot_digest: str
    missing_verity_allowed: bool


def inspect_uki(deployment: Digest, uki: UkiFile, objects: ObjectSource) -> UkiFacts:
    """Read a unified kernel image of the repository, and make sure it boots ``deployment``.

    Raises:
        WrongUki: it boots another one, or none.
        PeError: it is no unified kernel image.
        OSError: it cannot be read.
    """
    with doing(f"Reading {uki.path} of the image"), open_content(uki.leaf, objects) as file:
        image = Uki.read(file)
        options = image.text(CMDLINE)
        try:
            argument = image.composefs_argument()
        except CmdlineError as exc:
            raise WrongUki(f"No composefs image in UKI cmdline: {exc.message}") from None
        if argument.hex != deployment.hex:
            raise WrongUki(
                "The UKI has the wrong composefs= parameter "
                f"(is '{argument.hex}', should be '{deployment.hex}')",
                hint="build the image again: it was changed after its kernel image was made",
            )
        return UkiFacts(image.os_release(), options, image.boot_digest(), argument.optional)


def publish_uki(dirs: BootDirs, deployment: Digest, uki: UkiFile, objects: ObjectSource) -> str:
    """Write a deployment's unified kernel image and add-ons, and return its boot digest.

    Raises:
        WrongUki: it boots another deployment. Nothing was written then.
        PeError: it is no unified kernel image.
        DamagedKernel: what is stored is not what the image names.
        OSError: reading or writing failed.
    """
    facts = inspect_uki(deployment, uki, objects)
    name = uki_file(deployment.hex)
    with (
        doing(f"Writing the kernel to {dirs.binaries.path}/{UKIS}"),
        dirs.binaries.ensure_dir(UKIS) as directory,
    ):
        _write_addons(dirs, deployment, uki, objects)
        write_stream(directory, name, checked_chunks(uki.leaf, objects, uki.path))
        dirs.binaries.sync()
    return facts.boot_digest


def installed_addons(dirs: BootDirs, artifact: str) -> tuple[str, ...]:
    """Return the names of the add-ons that a unified kernel image on the ESP has."""
    try:
        with dirs.binaries.open_dir(f"{UKIS}/{addons_dir(uki_file(artifact))}") as directory:
            return tuple(name for name in directory.names() if name.endswith(ADDON_SUFFIX))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _write_addons(dirs: BootDirs, deployment: Digest, uki: UkiFile, objects: ObjectSource) -> None:
    path = f"{UKIS}/{addons_dir(uki_file(deployment.hex))}"
    if not uki.addons:
        with contextlib.suppress(FileNotFoundError):
            dirs.binaries.remove_tree(path)
        return
    with dirs.binaries.ensure_dir(path) as directory:
        for stale in set(directory.names()).difference(uki.addons):
            directory.remove_tree(stale)
        for name, leaf in uki.addons.items():
            write_stream(directory, name, checked_chunks(leaf, objects, name))
