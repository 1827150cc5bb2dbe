"""What the installed machine will boot with, decided before any of it is written.

A kernel of its own gets its arguments here. A unified kernel image brings them, under
its signature, so that nothing can be added and what it demands of the disk is final:
where request and image exclude each other the installation ends here.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from bootc.boot.image_kernel import Kernel, UkiFile, find_boot_resource
from bootc.boot.kernel_release import check_image_kernel
from bootc.boot.scheme import ADDON_SUFFIX
from bootc.boot.uki import inspect_uki
from bootc.deploy.bootable import kargs_d_of, os_release_of
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.request import InstallRequest
from bootc.errors import Error
from bootc.formats import cmdline
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType
from bootc.formats.osrelease import OsRelease
from bootc.oci.pull import Pulled
from bootc.printable import listed
from bootc.repository.repository import Repository


class UkiRefused(Error):
    """The image's unified kernel image, or its lack, excludes what the user asked for."""


@dataclass(frozen=True, slots=True)
class Booting:
    """What boots, and how.

    Attributes:
        resource: The files.
        boot_type: Their kind.
        os_release: Who the menu says it is.
        options: The kernel's arguments, None where the kernel brings its own.
    """

    resource: Kernel | UkiFile
    boot_type: BootType
    os_release: OsRelease
    options: str | None


def decide_booting(
    request: InstallRequest,
    decisions: Decisions,
    root_uuid: uuid.UUID,
    pulled: Pulled,
    repository: Repository,
) -> Booting:
    """Find out what a pulled image boots with, and make sure that it will on this disk.

    Raises:
        ImageNotBootable: there is nothing.
        KernelTooOld: its kernel cannot mount the image.
        UkiRefused: it is not to be had as asked.
        WrongUki: it boots another image.
        CmdlineError: the kernel would cut its arguments off.
        PeError: the unified kernel image is none.
        OSError: it cannot be read.
    """
    resource = find_boot_resource(pulled.root)
    check_image_kernel(resource, pulled.root, repository.objects)
    if isinstance(resource, UkiFile):
        uki = inspect_uki(pulled.image_id, resource, repository.objects)
        check_uki(decisions, missing_verity_allowed=uki.missing_verity_allowed)
        resource = _with_addons(resource, request.uki_addons)
        return Booting(resource, BootType.UKI, uki.os_release, None)
    if request.uki_addons:
        raise UkiRefused(
            f"the image has no unified kernel image to add {request.uki_addons[0]} to",
            hint="leave out --uki-addon",
        )
    arguments = kernel_arguments(
        decisions, root_uuid, pulled.image_id, kargs_d_of(repository, pulled.root)
    )
    options = cmdline.join(arguments)
    cmdline.check_length(options)
    return Booting(resource, BootType.BLS, os_release_of(repository, pulled.root), options)


def check_uki(decisions: Decisions, *, missing_verity_allowed: bool) -> None:
    """Make sure that a unified kernel image fits what was decided.

    Args:
        decisions: What was decided.
        missing_verity_allowed: Whether its command line tolerates missing fs-verity.

    Raises:
        UkiRefused: it does not.
    """
    if decisions.kargs:
        raise UkiRefused(
            f"Cannot use externally specified kernel arguments with UKI: {decisions.kargs[0]}",
            hint="build them into the image; leave out --karg, and kargs in the configuration",
        )
    if missing_verity_allowed or not decisions.allow_missing_verity:
        return
    if not decisions.filesystem.supports_verity:
        raise UkiRefused(
            f"Specified filesystem {decisions.filesystem} does not support fs-verity, "
            "which the image's UKI demands",
            hint="use --filesystem ext4 or btrfs",
        )
    raise UkiRefused(
        "--allow-missing-verity is of no use: the image's UKI demands fs-verity at each boot",
        hint="leave it out, or build the image with composefs=? in the UKI's command line",
    )


def kernel_arguments(
    decisions: Decisions, root_uuid: uuid.UUID, image_id: Digest, kargs_d: tuple[str, ...]
) -> list[str]:
    """Put the kernel's arguments together; of identical ones the first stays.

    Where the root is found, what configuration and user add, the deployment, and
    last what the image itself asks for.
    """
    arguments = ["rw"] if decisions.discoverable else [f"root=UUID={root_uuid}", "rw"]
    for text in decisions.kargs:
        arguments = cmdline.extend(arguments, cmdline.parse(text))
    composefs = cmdline.composefs_karg(image_id.hex, optional=decisions.allow_missing_verity)
    return cmdline.extend(arguments, [composefs, *kargs_d])


def _with_addons(uki: UkiFile, names: tuple[str, ...]) -> UkiFile:
    """Choose the add-ons with these names, which are those of their files less the suffix."""
    files = [name + ADDON_SUFFIX for name in names]
    for name, file in zip(names, files, strict=True):
        if file not in uki.addons:
            there = listed(addon.removesuffix(ADDON_SUFFIX) for addon in sorted(uki.addons))
            raise UkiRefused(
                f"the image has no UKI add-on {name}",
                hint=f"it has {there}" if there else "it has none",
            )
    return uki.with_addons(files)
