"""The first boot entry of an image, by the rules of composefs.

The search, which ends at the first match:

1. The entries ``boot/loader/entries/*.conf`` of the image, by name. The paths in them start at
   the root of the image.
2. The unified kernel images ``boot/EFI/Linux/*.efi``, then ``usr/lib/modules/<kver>/*.efi``.
3. ``usr/lib/modules/<kver>/vmlinuz`` with ``initramfs.img``. The entry is made here.

An installation has stricter rules: :mod:`bootc.boot.image_kernel`.

Source: composefs, "Boot entry discovery" and "Writing entries".
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bootc.boot.image_content import ObjectSource, open_content
from bootc.boot.image_kernel import ImageNotBootable, UkiFile, find_ukis, kernel_dirs
from bootc.boot.scheme import UKI_SUFFIX, VMLINUZ, addons_dir
from bootc.boot.unpacked_kernel import INITRAMFS, MODULES
from bootc.errors import Error, doing
from bootc.formats import bls, cmdline, fat
from bootc.formats.osrelease import OsRelease
from bootc.formats.tree import Directory, External, Inline, Leaf, NotADirectoryInTree
from bootc.printable import printable, shown

ENTRIES = "loader/entries"
_CONF = ".conf"
_UKIS = "EFI/Linux"
#: Directories of boot loaders. FAT takes upper and lower case for the same.
_OF_LOADERS = ("loader", "efi")


class NotAnEntry(Error):
    """A name or an argument does not fit into a boot entry."""


@dataclass(frozen=True, slots=True)
class BootFiles:
    """The files that an image boots with, and their paths below the boot directory.

    Attributes:
        files: The content of each file by its path. The file that makes the image bootable is
            last if there is no entry.
        entry_name: The file name of the boot entry.
        entry: The boot entry. None for a unified kernel image, which boot loaders find.
        uki: The unified kernel image, if it is one.
    """

    files: Mapping[str, Leaf]
    entry_name: str = ""
    entry: bls.Entry | None = None
    uki: UkiFile | None = field(default=None)


def first_boot_files(
    root: Directory,
    objects: ObjectSource,
    os_release: OsRelease,
    *,
    entry_id: str | None = None,
) -> BootFiles:
    """Find the first boot entry of an image.

    Args:
        root: The tree of the image, with the content of ``/boot``.
        objects: Where the content of its files is.
        os_release: Its os-release, for the title of an entry that is made here.
        entry_id: The name of the entry without its suffix. With it, all files of the entry move
            into a directory of this name.

    Raises:
        NotAnEntry: ``entry_id`` cannot be the name of a file on FAT, or two files of the entry
            would get the same path.
        ImageNotBootable: the image has no kernel, or a file that it boots with is missing.
        BlsError: its entry is malformed.
        OSError: reading failed.
    """
    if entry_id is not None:
        check_entry_id(entry_id)
    found = _own_entry(root, objects)
    if found is None:
        ukis = find_ukis(root)
        if ukis:
            return _uki_files(ukis[0], entry_id)
        return _kernel_files(root, os_release, entry_id)
    return found if entry_id is None else _relocated(found, entry_id)


def with_options(entry: bls.Entry, image: str, arguments: Sequence[str]) -> bls.Entry:
    """Return an entry that boots an image, with more kernel arguments.

    Each argument takes the place of those with its key, or else the last place.

    Args:
        entry: The entry.
        image: The argument that names the image.
        arguments: The other arguments.

    Raises:
        CmdlineError: an argument does not fit into an entry, or names an image.
    """
    options = cmdline.with_image(cmdline.parse(entry.options or ""), image)
    for text in arguments:
        cmdline.check(text)
        for parameter in cmdline.parse(text):
            options = cmdline.add_or_modify(options, parameter)
    line = cmdline.join(options)
    cmdline.check_length(line)
    return dataclasses.replace(entry, options=line)


def _own_entry(root: Directory, objects: ObjectSource) -> BootFiles | None:
    try:
        directory = root.find_directory(f"boot/{ENTRIES}")
    except NotADirectoryInTree as exc:
        raise ImageNotBootable(exc.message) from None
    for raw_name, node in () if directory is None else directory.sorted_entries():
        name = raw_name.decode("utf-8", "surrogateescape")
        if not name.endswith(_CONF):
            continue
        with doing(f"Reading boot/{ENTRIES}/{printable(name)} of the image"):
            check_component(name, "boot entry")
            if not isinstance(node, Leaf):
                raise ImageNotBootable("it is not a regular file")
            entry = bls.parse_entry(_text(node, objects))
            paths = _paths(entry)
            return BootFiles({_below(p): _file(root, _below(p)) for p in paths}, name, entry)
    return None


def _paths(entry: bls.Entry) -> tuple[str, ...]:
    # systemd-boot starts one of the first three.
    started = entry.linux or entry.efi or entry.uki
    assert started is not None, "parse_entry checks it"
    return (*entry.initrd, started)


def _relocated(found: BootFiles, entry_id: str) -> BootFiles:
    entry = found.entry
    assert entry is not None, "an entry of the image"

    def moved(path: str) -> str:
        return f"/{entry_id}/{posixpath.basename(path)}"

    files: dict[str, Leaf] = {}
    for path, leaf in found.files.items():
        new = moved(path)[1:]
        if files.setdefault(new, leaf) is not leaf:
            raise NotAnEntry(
                f"two files of the boot entry are called {shown(posixpath.basename(path))}",
                hint="leave out --entry-id, or rename one of them in the image",
            )
    entry = dataclasses.replace(
        entry,
        linux=entry.linux and moved(entry.linux),
        efi=entry.efi and moved(entry.efi),
        uki=entry.uki and moved(entry.uki),
        initrd=tuple(map(moved, entry.initrd)),
    )
    return BootFiles(files, entry_id + _CONF, entry)


def _uki_files(uki: UkiFile, entry_id: str | None) -> BootFiles:
    name = posixpath.basename(uki.path) if entry_id is None else entry_id + UKI_SUFFIX
    check_component(name, "unified kernel image")
    home = f"{_UKIS}/{addons_dir(name)}"
    addons = {f"{home}/{addon}": leaf for addon, leaf in uki.addons.items()}
    return BootFiles({**addons, f"{_UKIS}/{name}": uki.leaf}, uki=uki)


def _kernel_files(root: Directory, os_release: OsRelease, entry_id: str | None) -> BootFiles:
    for version, directory in kernel_dirs(root):
        if VMLINUZ.encode() not in directory.entries:
            continue
        name = version if entry_id is None else entry_id
        check_component(name, "kernel")
        home = f"{MODULES}/{version}"
        if INITRAMFS.encode() not in directory.entries:
            raise ImageNotBootable(
                f"kernel {printable(version)} has no initramfs: "
                f"{printable(home)}/{INITRAMFS} is missing",
                hint="build it into the image with dracut",
            )
        files = {f"{name}/{file}": _file(root, f"{home}/{file}") for file in (INITRAMFS, VMLINUZ)}
        entry = bls.Entry(
            title=os_release.title or version,
            version=os_release.version or version,
            linux=f"/{name}/{VMLINUZ}",
            initrd=(f"/{name}/{INITRAMFS}",),
        )
        return BootFiles(files, name + _CONF, entry)
    raise ImageNotBootable(
        f"no kernel: the image has no boot entry, no unified kernel image and no "
        f"{MODULES}/<version>/{VMLINUZ}",
        hint="use a bootable image",
    )


def _file(root: Directory, path: str) -> Leaf:
    node = root.lookup(path)
    if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
        what = "has no" if node is None else "has no regular file"
        raise ImageNotBootable(f"the image {what} {printable(path)}, which it boots with")
    return node


def _text(leaf: Leaf, objects: ObjectSource) -> bytes:
    if not isinstance(leaf.content, Inline | External):
        raise ImageNotBootable("it is not a regular file")
    with open_content(leaf, objects) as file:
        data = file.read(bls.MAX_ENTRY_BYTES + 1)
    if len(data) > bls.MAX_ENTRY_BYTES:
        raise ImageNotBootable(f"it has more than {bls.MAX_ENTRY_BYTES} bytes")
    return data


def _below(path: str) -> str:
    """Return the path of a file of an entry without the slash at its beginning."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for part in parts:
        check_component(part, "path in a boot entry")
    if not parts:
        raise NotAnEntry(f"{shown(path)} in a boot entry names no file")
    return "/".join(parts)


def check_entry_id(entry_id: str) -> None:
    """Refuse a name that a boot entry and the directory of its files cannot have.

    Raises:
        NotAnEntry: no file on FAT can have it, or a directory of boot loaders has it.
    """
    check_component(entry_id, "entry id")
    if entry_id.casefold() in _OF_LOADERS:
        raise NotAnEntry(
            f"{shown(entry_id)} is the directory of boot loaders", hint="use another entry id"
        )


def check_component(name: str, what: str) -> None:
    """Refuse a name that a file of a boot entry cannot have.

    Args:
        name: The name.
        what: What has this name.

    Raises:
        NotAnEntry: it is hidden, is not printable, or does not fit FAT.
    """
    # The boot directory is usually on FAT.
    if name.startswith(".") or not (fat.is_name(name) and name.isprintable()):
        raise NotAnEntry(f"{shown(name)} cannot name a file on FAT ({what})")
