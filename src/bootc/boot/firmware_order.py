"""The boot menu of a machine without a boot loader: what the firmware starts, and in which order.

The firmware starts the entries of ``BootOrder`` one after the other, until one works. The files in
``loader/entries`` on the ESP record the menu (``docs/adr/0017-one-menu-protocol.md``). If
``BootOrder`` has no entry of ours, the firmware starts the fallback, ``EFI/BOOT/BOOTX64.EFI``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from bootc.boot import scheme as schemes
from bootc.boot.fallback import FALLBACK, fallback_artifacts
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.firmware_entries import Firmware, LoadOption
from bootc.boot.menu_read import Item, Menu, program_of, read_files
from bootc.boot.scheme import UKIS, BootDirs, uki_file
from bootc.errors import one_line
from bootc.formats import bls
from bootc.formats.digest import Digest

_LOST = "the firmware has no boot entry for it; the next boot, or the next update, writes one"

_NO_FALLBACK = "it starts no deployment of the boot menu; the firmware would start it by itself"
_NO_PROGRAM = "the firmware starts only unified kernel images, and this entry has a kernel"


def read_started(dirs: BootDirs, firmware: Firmware) -> Menu:
    """Read the live menu of a machine without a boot loader.

    Its first item is what the firmware starts next. Problems become findings, not exceptions.
    """
    record = read_files(dirs, staged=False)
    try:
        started = in_order(firmware)
    except OSError as exc:
        unreadable = Finding(FindingKind.UNREADABLE, "BootOrder", one_line(exc))
        return dataclasses.replace(record, findings=(*record.findings, unreadable))
    items = [item for option in started if (item := _item(dirs, option, record.items)) is not None]
    items = list({item.artifact: item for item in items}.values())
    lost = [item for item in record.items if item not in items]
    fallback = fallback_artifacts(dirs)
    # Without an entry of ours the firmware starts the fallback.
    first = None if items else _fallback_item(dirs, fallback, record.items)
    items = [*items, *lost] if first is None else [first, *(i for i in lost if i is not first)]
    missing = []
    if firmware.is_writable:
        missing = [Finding(FindingKind.MISSING, item.name, _why(item)) for item in lost]
    if fallback.isdisjoint(item.artifact for item in items):
        missing.append(Finding(FindingKind.MISSING, FALLBACK, _NO_FALLBACK))
    return dataclasses.replace(
        record,
        items=tuple(items),
        missing=tuple(finding.subject for finding in missing),
        findings=(*record.findings, *missing),
    )


def in_order(firmware: Firmware) -> tuple[LoadOption, ...]:
    """Return our entries that the firmware starts, in its order.

    Raises:
        OSError: the variables cannot be read.
    """
    options = {option.number: option for option in our_entries(firmware) if option.active}
    numbers = dict.fromkeys(firmware.order())
    return tuple(options[number] for number in numbers if number in options)


def our_entries(firmware: Firmware) -> tuple[LoadOption, ...]:
    """Return all entries for unified kernel images of ours.

    Raises:
        OSError: the variables cannot be read.
    """
    return tuple(o for o in firmware.entries() if schemes.started_artifact(o.path) is not None)


def _why(item: Item) -> str:
    return _LOST if program_of(item.entry) is not None else _NO_PROGRAM


def _item(dirs: BootDirs, option: LoadOption, record: Sequence[Item]) -> Item | None:
    """Return the item that an entry of the firmware starts, if its program exists."""
    artifact = schemes.started_artifact(option.path)
    if artifact is None or not dirs.binaries.exists(f"{UKIS}/{uki_file(artifact)}"):
        return None
    known = (item for item in record if item.artifact == artifact)
    return next(known, None) or _new_item(dirs, artifact, f"Boot{option.number:04X}", option.title)


def _fallback_item(dirs: BootDirs, names: Iterable[str], record: Sequence[Item]) -> Item | None:
    """Return the item that the fallback starts, if it is of a deployment of ours."""
    for artifact in names:
        known = next((item for item in record if item.artifact == artifact), None)
        if known is not None:
            return known
        if dirs.binaries.exists(f"{UKIS}/{uki_file(artifact)}"):
            return _new_item(dirs, artifact, FALLBACK, None)
    return None


def _new_item(dirs: BootDirs, artifact: str, name: str, title: str | None) -> Item:
    # The record is older: a commit was interrupted.
    entry = bls.Entry(title=title, efi=dirs.scheme.entry_path(uki_file(artifact)))
    return Item(name, Digest.from_hex(artifact), artifact, entry)
