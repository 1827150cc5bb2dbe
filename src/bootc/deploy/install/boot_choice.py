"""The choice of what the installed machine boots with, made before any of it is written.

A bare kernel gets its arguments here. A unified kernel image brings them, under its
signature: nothing can be added, and its demands on the disk are final. If request and image
contradict each other, the installation ends here. On request a unified kernel image boots in
parts (:mod:`bootc.boot.uki_parts`): like a bare kernel, with the arguments that it brings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bootc.boot.image_kernel import Kernel, UkiFile, find_boot_resource
from bootc.boot.kernel_release import check_image_kernel
from bootc.boot.scheme import ADDON_SUFFIX
from bootc.boot.uki import inspect_uki
from bootc.deploy.bootable import kargs_d_of, os_release_of
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.loader_installer import Booting
from bootc.deploy.install.request import InstallRequest
from bootc.deploy.install.selinux import SELINUX_OFF, SelinuxState, selinux_state
from bootc.deploy.sealing import CheckedUki, check_uki, require_verity, take_uki_apart
from bootc.errors import Error
from bootc.formats import cmdline
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType, TakesApart, UkiRecord
from bootc.oci.pull import Pulled
from bootc.printable import listed
from bootc.repository.repository import Repository


class UkiRefused(Error):
    """The user's request contradicts the image's unified kernel image, or needs one."""


def decide_booting(
    request: InstallRequest,
    decisions: Decisions,
    root_kargs: Sequence[str],
    pulled: Pulled,
    repository: Repository,
) -> Booting:
    """Find what a pulled image boots with, and check that it can boot from this disk.

    Raises:
        ImageNotBootable: the image has no kernel to boot.
        KernelTooOld: its kernel cannot mount the image.
        UkiRefused: the request contradicts its unified kernel image.
        WrongUki: its unified kernel image boots another image.
        CannotTakeApart: its unified kernel image cannot boot in parts.
        CmdlineError: the kernel would cut off its arguments.
        PeError: its unified kernel image is malformed.
        OSError: a file cannot be read.
    """
    resource = find_boot_resource(pulled.root)
    check_image_kernel(resource, pulled.root, repository.objects)
    selinux = selinux_state(pulled.root, disable=request.disable_selinux)
    if isinstance(resource, Kernel):
        booting = _bare_kernel(request, pulled, resource, repository)
        asked = kargs_d_of(repository, pulled.root)
    else:
        # All add-ons of the image must be harmless, also those that are not chosen.
        facts = inspect_uki(resource, repository.objects)
        resource = _with_addons(resource, request.uki_addons)
        checked = check_uki(repository, pulled, resource, facts)
        if request.boot_type is not BootType.BLS:
            return _whole_uki(decisions, repository, checked, selinux)
        booting = _uki_in_parts(request, checked, repository)
        asked = tuple(cmdline.parse((booting.uki and booting.uki.arguments) or ""))
    if selinux is SelinuxState.FORCE_TARGET_DISABLED:
        decisions = dataclasses.replace(decisions, kargs=(SELINUX_OFF, *decisions.kargs))
    options = cmdline.join(kernel_arguments(decisions, root_kargs, booting.image_id, asked))
    cmdline.check_length(options)
    return dataclasses.replace(booting, options=options, selinux=selinux)


def _bare_kernel(
    request: InstallRequest, pulled: Pulled, kernel: Kernel, repository: Repository
) -> Booting:
    """Return how a bare kernel boots, without its arguments."""
    if request.uki_addons:
        raise UkiRefused(
            f"the image has no unified kernel image to add {request.uki_addons[0]} to",
            hint="leave out --uki-addon",
        )
    if request.boot_type is BootType.UKI:
        raise UkiRefused(
            "the image has no unified kernel image", hint="leave out --boot-type, or use bls"
        )
    # A later image may have a unified kernel image. The user wants it taken apart.
    record = None if request.boot_type is None else _uki_record(request)
    os_release = os_release_of(repository, pulled.root)
    return Booting(pulled.image_id, kernel, BootType.BLS, os_release, None, uki=record)


def _uki_in_parts(request: InstallRequest, checked: CheckedUki, repository: Repository) -> Booting:
    """Return how a unified kernel image boots in parts, without its arguments."""
    record = _uki_record(request)
    parts = take_uki_apart(repository, checked, record.takes_apart)
    record = dataclasses.replace(record, arguments=cmdline.join(parts.arguments))
    image_id, os_release = checked.pulled.image_id, checked.facts.os_release
    return Booting(image_id, parts, BootType.BLS, os_release, None, uki=record)


def _uki_record(request: InstallRequest) -> UkiRecord:
    return UkiRecord(
        takes_apart(request), tuple(name + ADDON_SUFFIX for name in request.uki_addons)
    )


def takes_apart(request: InstallRequest) -> TakesApart:
    """Return which unified kernel images a user wants taken apart who wants Type #1 entries."""
    return TakesApart.ALL if request.disable_sealing else TakesApart.UNSEALED


def _whole_uki(
    decisions: Decisions, repository: Repository, checked: CheckedUki, selinux: SelinuxState
) -> Booting:
    """Return how a unified kernel image boots whole."""
    check_request(decisions, sealed=checked.sealed)
    require_verity(repository, checked)
    if selinux is SelinuxState.FORCE_TARGET_DISABLED:
        raise UkiRefused(
            f"--disable-selinux cannot add {SELINUX_OFF} to the arguments of a UKI",
            hint="build the argument into the image",
        )
    image_id, os_release = checked.pulled.image_id, checked.facts.os_release
    return Booting(image_id, checked.uki, BootType.UKI, os_release, None, selinux)


def check_request(decisions: Decisions, *, sealed: bool) -> None:
    """Check that the decisions suit a unified kernel image that boots whole.

    Args:
        decisions: The decisions of :func:`~bootc.deploy.install.checks.decide`.
        sealed: Whether it is sealed.

    Raises:
        UkiRefused: it contradicts a decision.
    """
    for kargs, change in (
        (decisions.kargs, "use externally specified kernel arguments with UKI"),
        (decisions.karg_deletes, "delete kernel arguments of a UKI"),
    ):
        if kargs:
            raise UkiRefused(
                f"Cannot {change}: {kargs[0]}",
                hint="build the arguments into the image; leave out --karg and --karg-delete, "
                "and kargs and karg-deletes in the configuration",
            )
    if not (sealed and decisions.allow_missing_verity):
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
    decisions: Decisions, root_kargs: Sequence[str], image_id: Digest, asked: Sequence[str]
) -> list[str]:
    """Put the kernel's arguments together; the first of identical arguments is kept.

    The order: the root file system, arguments of configuration and user, the deployment, and
    last the arguments of the image. ``--karg-delete`` applies to all but those of the user and
    of the deployment.
    """
    arguments = cmdline.without(root_kargs, decisions.karg_deletes)
    for text in decisions.kargs:
        arguments = cmdline.extend(arguments, cmdline.parse(text))
    composefs = cmdline.composefs_karg(image_id.hex, optional=decisions.allow_missing_verity)
    kept = cmdline.without(asked, decisions.karg_deletes)
    return cmdline.extend(arguments, [composefs, *kept])


def _with_addons(uki: UkiFile, names: tuple[str, ...]) -> UkiFile:
    """Choose the add-ons with these names, both those of the image and the global ones.

    A name is the name of a file without its suffix.
    """
    files = [name + ADDON_SUFFIX for name in names]
    for name, file in zip(names, files, strict=True):
        if file not in dict(uki.addon_files):
            known = sorted({addon for addon, _ in uki.addon_files})
            there = listed(addon.removesuffix(ADDON_SUFFIX) for addon in known)
            raise UkiRefused(
                f"the image has no UKI add-on {name}",
                hint=f"it has {there}" if there else "it has none",
            )
    return uki.with_addons(files, for_all=files)
