"""Composes the next boot menu: the content, the names and the order of its entries.

This module is pure. It composes a whole menu from any number of deployments in their order.
The first deployment has rank 0 and boots by default. Each time, all entries of ours get new
names and sort keys. Names of other versions, other images or another os-release ID therefore
never mix in one menu.

* systemd-boot sorts by ``sort-key``: ``bootc-<os id>-<rank>``, with the os id of rank 0 in all
  entries. The file names are those of upstream: ``bootc_<os id>-<version>-1.conf`` for rank 0,
  ``-0.conf`` for the others, with the rank in the middle from rank 2. An entry keeps its boot
  counter. Only rank 0 loses a counter without tries left, because systemd-boot would not boot it.
* The firmware has the order of its own list. The entries on the ESP, which record it, are
  those for systemd-boot.
* GRUB sorts by file name, the middle part before the last part. Upstream has the version in the
  middle, so that the version decides what boots. bootc writes a number there that falls with
  the rank.
* In GRUB's ``user.cfg`` the order is that of the file.

An entry of an existing deployment keeps its content except the sort key. It keeps arguments
that an administrator added, and unknown keys.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bootc.boot import scheme as schemes
from bootc.boot.loader import Bootloader
from bootc.boot.menu_read import Item
from bootc.boot.scheme import DEVICETREE, INITRD, MICROCODE, VMLINUZ, Scheme
from bootc.errors import Error
from bootc.formats import bls, cmdline, grubcfg, grubmenu
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType
from bootc.formats.osrelease import OsRelease

#: The os id of an image that does not name one.
_DEFAULT_OS_ID = "bootc"
#: The partitions of ukiboot.
_SLOTS = 2
#: The first systemd-boot that knows the key ``uki``.
_UKI_KEY_SYSTEMD = 258
#: Middle part of the file name of rank 0 for GRUB. It has the same length for all ranks.
_GRUB_FIRST = 9999
_UNFIT_FOR_ID = re.compile(r"[^A-Za-z0-9._-]")
_UNFIT_FOR_VERSION = re.compile(r"[^A-Za-z0-9._~^]")
#: A file name has at most 255 bytes.
_MAX_ID = 80
_MAX_VERSION = 128
_SORT_KEY = re.compile(r"bootc-(.+)-[0-9a-z]+\Z", re.DOTALL)
_FILE_NAME = re.compile(r"bootc_([^-]+)-.+\.conf\Z", re.DOTALL)


class CannotCompose(Error):
    """A boot menu cannot have these entries."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """A deployment that has no entry yet.

    Attributes:
        deployment: The deployment.
        artifact: The name of its kernel.
        os_id: The os id of the image; counts if it boots by default.
        entry: The entry without its name and sort key, which depend on the rank.
    """

    deployment: Digest
    artifact: str
    os_id: str
    entry: bls.Entry | grubcfg.MenuEntry


def new_item(
    scheme: Scheme,
    deployment: Digest,
    os_release: OsRelease,
    *,
    options: str | None = None,
    artifact: str | None = None,
    files: Collection[str] = (),
    systemd_version: int = 0,
) -> NewItem:
    """Return the menu item of a new deployment.

    Args:
        scheme: The scheme of the machine.
        deployment: The deployment.
        os_release: The os-release of the image, or of its unified kernel image. If it is empty
            (``OsRelease({})``), title and version are the image id.
        options: The whole kernel command line with ``composefs=``. None for a unified kernel
            image, which contains its command line.
        artifact: The name of the kernel, if it is not the deployment's own.
        files: The names of its files; those besides kernel and initramfs count.
        systemd_version: The version of the installed systemd-boot, 0 if it is unknown.

    Raises:
        CmdlineError: the arguments are longer than the kernel takes.
    """
    assert (options is None) is scheme.boot_type.is_unified, "kernel arguments"
    own = artifact or deployment.hex
    os_id = _UNFIT_FOR_ID.sub("_", os_release.id or _DEFAULT_OS_ID)[:_MAX_ID]
    version = os_release.version or deployment.hex
    entry: bls.Entry | grubcfg.MenuEntry
    if options is not None:
        cmdline.check_length(options)
    if scheme.boot_type is BootType.BLS:
        path = scheme.entry_path(schemes.kernel_dir(own))
        entry = bls.Entry(
            title=os_release.title or deployment.hex,
            version=version,
            linux=f"{path}/{VMLINUZ}",
            # The kernel takes microcode from the first initrd only.
            initrd=tuple(f"{path}/{name}" for name in _initrds(files)),
            options=options,
            extra=((DEVICETREE, f"{path}/{DEVICETREE}"),) if DEVICETREE in files else (),
        )
        return NewItem(deployment, own, os_id, entry)
    path = scheme.entry_path(schemes.uki_file(own))
    label = os_release.boot_label or deployment.hex
    if scheme.menu_is_file:
        entry = grubcfg.uki_entry(label, deployment, path)
    elif scheme.bootloader is Bootloader.SYSTEMD and systemd_version >= _UKI_KEY_SYSTEMD:
        entry = bls.Entry(title=label, version=version, uki=path)
    else:
        entry = bls.Entry(title=label, version=version, efi=path)
    return NewItem(deployment, own, os_id, entry)


def compose_menu(
    scheme: Scheme, ordered: Sequence[NewItem | Item]
) -> tuple[tuple[str, bytes], ...]:
    """Return name and content of every file of the menu that boots these, the first by default.

    The two partitions of ukiboot are no files.

    Raises:
        CannotCompose: there is no deployment, one is there twice, there are too many for two
            partitions, or one needs another kind of menu.
        BlsError, GrubCfgError: an entry cannot be written as text, or GRUB cannot start it.
    """
    if not ordered:
        raise CannotCompose("a boot menu cannot be empty: nothing would boot")
    if len({item.deployment for item in ordered}) != len(ordered):
        raise CannotCompose("a boot menu cannot have a deployment twice")
    if scheme.in_slots:
        _check_slots(ordered)
        return ()
    if scheme.menu_is_file:
        entries = [item.entry for item in ordered if isinstance(item.entry, grubcfg.MenuEntry)]
        _check_kind(scheme, ordered, len(entries))
        return ((schemes.USER_CFG.rpartition("/")[2], grubcfg.serialise_menu(entries)),)
    os_id = _os_id(ordered[0])
    files: list[tuple[str, bytes]] = []
    for rank, item in enumerate(ordered):
        if isinstance(item.entry, bls.Entry):
            entry = dataclasses.replace(item.entry, sort_key=bls.sort_key(os_id, rank))
            version = entry.version or item.deployment.hex
            name = _file_name(scheme, os_id, version, rank, {name for name, _ in files})
            files.append((name, bls.serialise_entry(entry)))
            if scheme.generated:
                grubmenu.check_entry(entry)
    _check_kind(scheme, ordered, len(files))
    return tuple(
        (_counted(scheme, name, item, rank), data)
        for rank, ((name, data), item) in enumerate(zip(files, ordered, strict=True))
    )


def upgraded_options(
    booted_options: str | None,
    new_id: Digest,
    old_kargs_d: Sequence[str],
    new_kargs_d: Sequence[str],
    *,
    optional: bool,
) -> str:
    """Return the kernel arguments of the next deployment.

    They are the arguments of the booted entry, with the changes of an administrator, minus the
    arguments that only the old image asks for, plus those that only the new image asks for. All
    arguments of the booted entry that name an image are replaced by one, in the place of the
    first. It is ``composefs=`` for every version of the image format: the only spelling that the
    initramfs of upstream's images before 1.17 knows, and later ones boot by it as well.

    Args:
        booted_options: The arguments of the booted entry.
        new_id: The next deployment.
        old_kargs_d: The arguments that the old image asks for.
        new_kargs_d: The arguments that the new image asks for.
        optional: Tolerate missing fs-verity (``composefs=?``).

    Raises:
        CannotCompose: the booted entry has no arguments, or nothing can be appended to them.
    """
    if booted_options is None:
        raise CannotCompose("the boot entry of the running system has no kernel arguments")
    booted = cmdline.parse(booted_options)
    for parameter in booted:
        _check_appendable(parameter)
    argument = cmdline.composefs_karg(new_id.hex, optional=optional)
    arguments = cmdline.with_image(booted, argument)
    for removed in _without(old_kargs_d, new_kargs_d):
        arguments = cmdline.remove_exact(arguments, removed)
    arguments = cmdline.extend(arguments, _without(new_kargs_d, old_kargs_d))
    # Again, because the image of an old deployment may have asked for anything.
    return _line(cmdline.with_image(arguments, argument))


def _initrds(files: Collection[str]) -> tuple[str, ...]:
    return (MICROCODE, INITRD) if MICROCODE in files else (INITRD,)


def _check_appendable(parameter: str) -> None:
    try:
        cmdline.check_text(parameter)
    except CmdlineError as exc:
        raise CannotCompose(
            f"the boot entry of the running system has the {exc.message}",
            hint=f"{exc.hint}: correct the line 'options' of the entry",
        ) from None


def _line(parameters: Sequence[str]) -> str:
    """Join parameters so that no loader takes the first quote and the last one for a pair."""
    first, *others = parameters
    key, equals, value = first[1:].partition("=")
    if first.startswith('"') and equals and '"' not in key:
        first = f'{key}="{value}'
    return cmdline.join([first, *others])


def _check_slots(ordered: Sequence[NewItem | Item]) -> None:
    if len(ordered) > _SLOTS:
        extra = ordered[-1].deployment
        raise CannotCompose(
            f"this machine boots from two partitions, and pinned deployments need another: {extra}",
            hint=f"unpin it first: bootc unpin {extra}",
        )


def _check_kind(scheme: Scheme, ordered: Sequence[NewItem | Item], fitting: int) -> None:
    if fitting == len(ordered):
        return
    kind = grubcfg.MenuEntry if scheme.menu_is_file else bls.Entry
    odd = next(item for item in ordered if not isinstance(item.entry, kind))
    raise CannotCompose(
        f"deployment {odd.deployment} is in another boot menu than {scheme.entries}",
        hint=f"delete it first: bootc delete-deployment {odd.deployment}",
    )


def _os_id(item: NewItem | Item) -> str:
    if isinstance(item, NewItem):
        return item.os_id
    key = item.entry.sort_key if isinstance(item.entry, bls.Entry) else None
    match = _SORT_KEY.match(key or "") or _FILE_NAME.match(item.name)
    return _UNFIT_FOR_ID.sub("_", match[1])[:_MAX_ID] if match else _DEFAULT_OS_ID


def _file_name(scheme: Scheme, os_id: str, version: str, rank: int, taken: set[str]) -> str:
    priority = 0 if rank else 1
    if not scheme.bootloader.sorts_by_key:
        return bls.entry_file_name(os_id, str(_GRUB_FIRST - rank), priority)
    middle = _UNFIT_FOR_VERSION.sub("_", version)[:_MAX_VERSION]
    if rank > 1:
        middle += f"_{rank}"
    # FAT ignores the case of letters.
    known = {name.casefold() for name in taken}
    while (name := bls.entry_file_name(os_id, middle, priority)).casefold() in known:
        middle += "_"
    return name


def _counted(scheme: Scheme, name: str, item: NewItem | Item, rank: int) -> str:
    """Return a new file name with the boot counter that the entry keeps."""
    if isinstance(item, NewItem) or not scheme.counts_boots:
        return name
    return schemes.with_kept_counter(name, item.name, is_default=not rank)


def _without(params: Iterable[str], others: Sequence[str]) -> list[str]:
    return [param for param in params if cmdline.remove_exact(others, param) == list(others)]
