"""The image that is to be sealed: its tree, its kernel and its boot loader.

The image is read layer by layer, as a pull reads it. Nothing is mounted or unpacked, except the
few files that ukify and the signer need.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field

from bootc.boot.esp_size import INSTALL_CONFIG
from bootc.boot.image_content import content_of, size_of
from bootc.boot.image_kernel import Kernel, UkiFile, find_boot_resource, kernel_dirs
from bootc.boot.kargs import KARGS_D, read_kargs_d
from bootc.boot.kernel_release import kernel_config
from bootc.boot.scheme import UKI_SUFFIX
from bootc.boot.sealed_checks import LOADERS, SIGNED_SUFFIX
from bootc.boot.uki import MAX_UKI_BYTES
from bootc.boot.unpacked_kernel import MODULES
from bootc.build.uki import OS_RELEASE
from bootc.errors import Error, UsageError, doing
from bootc.events import Sink
from bootc.formats import fat
from bootc.formats.ocispec import ImageConfig, Manifest
from bootc.formats.pesignature import is_signed
from bootc.formats.tree import Directory, External, Inline, Leaf, Node, Symlink
from bootc.oci.layer_doubts import LayerDoubts
from bootc.oci.names import XattrMode
from bootc.oci.selabel import ReadContent
from bootc.oci.source import Source, parse_documents
from bootc.oci.trees import image_tree
from bootc.printable import printable

#: In the names of these programs, by architecture.
_SUFFIXES = {"x86_64": "x64", "aarch64": "aa64"}
_MAX_LINKS = 40
#: Larger files of a configuration are not read ahead.
_MAX_CONFIG_BYTES = 4 << 20
#: The history of an image cannot have a later time.
_LAST_SECOND = 253402300799


class SealRefused(Error):
    """The image cannot be sealed. Nothing was written."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that can be sealed.

    Attributes:
        source: The open image.
        manifest: Its manifest.
        config: Its configuration.
        root: Its plain tree, with ``user.`` attributes.
        read_content: Reads a file of the tree.
        kernel: Its kernel.
        kargs: The kernel arguments of its ``kargs.d``.
        os_release: Its os-release.
        stub: The stub for unified kernel images that the image ships; None if it has none.
        loader: The path and the file of its systemd-boot, which is not signed yet; None if it has
            none, or a signed one.
        signed_loader: The same of a signed one.
        epoch: The time of everything that sealing adds, in seconds since 1970.
        doubts: What other programs that unpack its layers do differently.
    """

    source: Source
    manifest: Manifest
    config: ImageConfig
    root: Directory
    read_content: ReadContent
    kernel: Kernel
    kargs: tuple[str, ...]
    os_release: Leaf
    stub: Leaf | None
    loader: tuple[str, Leaf] | None
    signed_loader: tuple[str, Leaf] | None
    epoch: int
    doubts: LayerDoubts

    def read(self, leaf: Leaf) -> bytes:
        """Return the content of a regular file."""
        return self.read_content(content_of(leaf))


@dataclass(slots=True)
class _Found:
    """The files of an image that sealing reads."""

    kernel: Kernel
    os_release: Leaf
    stub: Leaf | None
    loader: tuple[str, Leaf] | None
    leaves: list[Leaf] = field(default_factory=list)


def read_base(source: Source, sink: Sink, *, epoch: int | None = None) -> BaseImage:
    """Read an image that is to be sealed.

    Args:
        source: The image; must stay open.
        sink: Receives the progress.
        epoch: The time of everything that sealing adds. By default it is the time of ``/usr``,
            which is equal for equal trees, whatever program built the image.

    Raises:
        SealRefused: the image is sealed already, or lacks a file.
        ImageNotBootable: the image has no kernel, no initramfs or several kernels.
        KargsError: a file of ``kargs.d`` is wrong.
        Error: the image is damaged or malformed.
    """
    manifest, config = parse_documents(source, None)
    ahead: set[External] = set()
    doubts = LayerDoubts()
    tree = image_tree(
        source,
        sink,
        bootable=False,
        xattrs=XattrMode.KEEP_USER_XATTRS,
        ahead=ahead,
        doubts=doubts,
    )
    root = tree.whole
    machine = os.uname().machine
    found = _find(root, machine)
    for leaf in (*found.leaves, *_configuration(root, found.kernel.kver)):
        if isinstance(leaf.content, External):
            ahead.add(leaf.content)
    kargs = read_kargs_d(root, tree.read_content, machine)
    loader, signed_loader = found.loader, None
    if loader is not None and _is_signed(*loader, tree.read_content):
        loader, signed_loader = None, loader
    if epoch is None:
        usr = root.entries[b"usr"]
        epoch = min(max(usr.stat.mtime_s, 0), _LAST_SECOND)
    return BaseImage(
        source,
        manifest,
        config,
        root,
        tree.read_content,
        found.kernel,
        tuple(kargs),
        found.os_release,
        found.stub,
        loader,
        signed_loader,
        epoch,
        doubts,
    )


def parse_epoch(text: str) -> int | None:
    """Return the value of ``SOURCE_DATE_EPOCH``, or None for an empty one.

    Raises:
        UsageError: it is no number of seconds, or too late for the history of an image.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _LAST_SECOND):
        raise UsageError(f"SOURCE_DATE_EPOCH is not a number of seconds since 1970: {text[:40]!r}")
    return int(text)


def _find(root: Directory, machine: str) -> _Found:
    kernel = _kernel(root)
    os_release = next(filter(None, (_regular(root, path) for path in OS_RELEASE)), None)
    if os_release is None:
        raise SealRefused(
            f"the image has no /{OS_RELEASE[0]}", hint="the boot menu shows the name that it has"
        )
    suffix = _SUFFIXES.get(machine, machine)
    stub = _regular(root, f"{LOADERS}/linux{suffix}.efi.stub")
    path = f"{LOADERS}/systemd-boot{suffix}.efi"
    # bootctl takes the first of these.
    programs = ((one, _regular(root, one)) for one in (path + SIGNED_SUFFIX, path))
    loader = next(((one, leaf) for one, leaf in programs if leaf is not None), None)
    leaves = [kernel.vmlinuz, kernel.initramfs, os_release]
    leaves += [leaf for leaf in (stub, loader and loader[1]) if leaf is not None]
    if sum(map(size_of, leaves)) > MAX_UKI_BYTES:
        raise SealRefused(f"kernel and initramfs have more than {MAX_UKI_BYTES >> 20} MiB")
    return _Found(kernel, os_release, stub, loader, leaves)


def _configuration(root: Directory, kver: str) -> list[Leaf]:
    """Return the files that configure arguments, installation and kernel."""
    homes = map(root.lookup, (KARGS_D, *INSTALL_CONFIG))
    entries = [e for home in homes if isinstance(home, Directory) for e in home.entries.values()]
    return [
        leaf
        for leaf in (kernel_config(root, kver), *entries)
        if isinstance(leaf, Leaf) and isinstance(leaf.content, Inline | External)
        if size_of(leaf) <= _MAX_CONFIG_BYTES
    ]


def _is_signed(path: str, leaf: Leaf, read_content: ReadContent) -> bool:
    """Tell whether a loader is signed, and refuse one that must be and is not."""
    with doing(f"Reading {path} of the image"):
        signed = is_signed(io.BytesIO(read_content(content_of(leaf))))
    if path.endswith(SIGNED_SUFFIX) and not signed:
        raise SealRefused(f"/{path} of the image is not signed", hint="remove the file, or sign it")
    return signed


def _kernel(root: Directory) -> Kernel:
    found = find_boot_resource(root)
    if isinstance(found, UkiFile):
        raise SealRefused(
            f"the image has a unified kernel image already: {printable(found.path)}",
            hint="seal the image that it was made of",
        )
    # The kernel has a name for messages. The file on the ESP gets the same.
    if found.kver not in dict(kernel_dirs(root)) or not fat.is_name(found.kver + UKI_SUFFIX):
        raise SealRefused(
            f"the ESP cannot have a file named like the kernel {found.kver}",
            hint=f"rename the directory below {MODULES}",
        )
    return found


def _regular(root: Directory, path: str) -> Leaf | None:
    """Return a regular file of a tree; links of the last component are followed in the tree."""
    parts = os.fsencode(path).split(b"/")
    for _ in range(_MAX_LINKS):
        node: Node | None = root.lookup(b"/".join(parts))
        if not isinstance(node, Leaf):
            return None
        if isinstance(node.content, Inline | External):
            return node
        if not isinstance(node.content, Symlink):
            return None
        target = os.path.join(b"/", *parts[:-1], node.content.target)
        parts = os.path.normpath(target).lstrip(b"/").split(b"/")
    return None
