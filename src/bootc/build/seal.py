"""Seals a container image: gives it a signed UKI that names its file tree.

:func:`prepare` writes the files to sign, a signer signs them, and :func:`finish` writes the image.
:func:`seal` is the three in a row. The loader is a part of the tree, so it must be signed before
the tree can be named: the first run of :func:`prepare` may return only the loader, and the second
the unified kernel image (UKI).

The same image gives the same bytes on every machine with the same ukify, if the signer is
deterministic. Nothing of the building machine gets into the image: the stub of the UKI is that of
the image, times are that of ``/usr`` of the image, and a configuration of ukify is not read.

Promises: a sealed image is written only if its own tree, as a machine computes it, is the one that
its UKI names. The commit point is the new entry in ``index.json`` of the output
(:mod:`bootc.oci.layout_write`).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootc.boot.image_content import content_of
from bootc.boot.image_kernel import UkiFile, find_boot_resource
from bootc.boot.scheme import UKI_SUFFIX
from bootc.boot.sealed_checks import SIGNED_SUFFIX, loaders, raw_kernels, unsigned_programs
from bootc.boot.uki import check_sealing
from bootc.boot.unpacked_kernel import UKIS
from bootc.build.seal_base import BaseImage, SealRefused
from bootc.build.seal_layer import WrittenLayer, sealed_tree, write_layer
from bootc.build.seal_warnings import warnings
from bootc.build.seal_work import Work, WorkFile, WorkManifest
from bootc.build.signing import Signer, belongs, check_signed, usable_certificate, verifies
from bootc.build.uki import UKIFY, DigestChoice, UkiKernel, composed_cmdline, run_ukify
from bootc.errors import doing
from bootc.events import Notice, Sink, stage
from bootc.formats import cmdline, ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Manifest
from bootc.formats.pe import CMDLINE, Uki
from bootc.formats.security_version import SecurityVersion
from bootc.formats.shellquote import shell_quoted
from bootc.formats.tree import Directory, External, Leaf
from bootc.fs import process
from bootc.fs.dir import open_regular
from bootc.oci.append_layer import config_with_layer, manifest_with_layer
from bootc.oci.blob import CHUNK_BYTES
from bootc.oci.layout_write import LayoutWriter, check_output, layout_written
from bootc.oci.layoutdir import LayoutSource
from bootc.oci.names import FORMAT_VERSIONS
from bootc.oci.trees import image_id_of, image_tree
from bootc.printable import listed, printable

#: Directories for temporary files; /tmp is often in memory.
_TEMPORARY = "/var/tmp"
#: Files wait for a signature at most twice: the loader, and then the UKI.
_ROUNDS = 2
#: A file system with less room is full.
_FULL_BYTES = 1 << 20
_BUG = "report this as a bug, with the image"


@dataclass(frozen=True, slots=True)
class SealOptions:
    """The choices of the user.

    Attributes:
        choice: The digests that the UKI names.
        kargs: Kernel arguments besides those of ``kargs.d``.
        stub: The path of the stub for the UKI; None for that of the image.
        version: The security version that the UKI states; None for what the arguments state.
    """

    choice: DigestChoice = DigestChoice.V1
    kargs: tuple[str, ...] = ()
    stub: str | None = None
    version: SecurityVersion | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed image.

    Attributes:
        manifest_digest: The digest of its manifest.
        image_id: The id of its deployment: the first digest that its UKI names, in hex.
    """

    manifest_digest: OciDigest
    image_id: str


def seal(
    base: BaseImage, output: ImageReference, options: SealOptions, signer: Signer, sink: Sink
) -> Sealed:
    """Seal an image.

    Args:
        base: The image.
        output: The place for the sealed image.
        options: The choices of the user.
        signer: Signs loader and UKI.
        sink: Receives progress and messages.

    Raises:
        NotSigned: a file was not signed as it must be.
        Error, OSError: as :func:`prepare` and :func:`finish`.
    """
    certificate = usable_certificate(signer.certificate, sink)
    with _temporary_directory() as path, Work.open(path) as work:
        for _ in range(_ROUNDS):
            for file in prepare(base, work, options, sink):
                unsigned, signed = work.unsigned(file.name), work.signed(file.name)
                with stage(sink, "sign", f"Signing {file.name}"):
                    signer.sign(unsigned, signed, base.epoch)
                    check_signed(unsigned, signed, certificate)
        return finish(base, work, output, sink, certificate=certificate)


def check_ready(output: ImageReference | None = None, signer: Signer | None = None) -> None:
    """Check all that sealing needs besides the image, which takes long to read.

    Args:
        output: The place for the sealed image, if there will be one.
        signer: The signer, if one will sign.

    Raises:
        OutputExists: the output exists.
        ToolMissing: ukify or the signer is not installed.
        Error, OSError: the output or a file of the signer cannot be used.
    """
    if output is not None:
        check_output(output)
    process.find_tool(UKIFY)
    if signer is not None:
        signer.require()


def prepare(base: BaseImage, work: Work, options: SealOptions, sink: Sink) -> tuple[WorkFile, ...]:
    """Write the files to sign, and return those that are not signed yet.

    A UKI that was signed with other options, or beside another signed loader, is not signed yet.
    If the loader of the image is not signed, the first run returns the loader only. Run it again
    when the loader is signed.

    Args:
        base: The image.
        work: The directory for the files.
        options: The choices of the user.
        sink: Receives progress and messages.

    Raises:
        SealRefused: the directory belongs to another image, or the image has no stub.
        PeError: the stub that the user names is no EFI program.
        NotSigned: the signed loader is not the loader with a signature.
        UkiNotBuilt, ToolMissing: ukify failed, or is not installed.
        CmdlineError: an argument of ``kargs`` is not allowed, or the line is too long.
        Error, OSError: the image is damaged, or a file cannot be written.
    """
    _require_same_image(base, work.read())
    _require_stub(options.stub)
    image = str(base.source.manifest_digest)
    files: tuple[WorkFile, ...] = ()
    if base.loader is not None:
        path, leaf = base.loader
        files = (work.add(os.path.basename(path), path + SIGNED_SUFFIX, (base.read(leaf),)),)
    if waiting := work.waiting(files):
        work.write(WorkManifest(image, files, None))
        return waiting
    _check_files(work, files, None)
    with stage(sink, "uki", "Building the unified kernel image"):
        uki, line = _add_uki(base, work, files, options)
    files = (*files, uki)
    work.write(WorkManifest(image, files, line))
    waiting = work.waiting(files)
    if not waiting and not belongs(work.unsigned(uki.name), work.signed(uki.name)):
        # It was signed before the options or the signed loader changed.
        waiting = (uki,)
    if waiting:
        for text in warnings(base, line, uki.size_bytes):
            sink(Notice(text))
    return waiting


def finish(
    base: BaseImage,
    work: Work,
    output: ImageReference,
    sink: Sink,
    *,
    certificate: str | None = None,
) -> Sealed:
    """Write the sealed image from the signed files of a directory.

    Args:
        base: The image.
        work: The directory, which :func:`prepare` has written.
        output: The place for the sealed image.
        sink: Receives progress and messages.
        certificate: The path of the certificate that the signatures must verify with.

    Raises:
        SealRefused: the directory belongs to another image, a file is not signed, or the finished
            image would not boot: its UKI names another tree.
        NotSigned: a signed file is not the unsigned one with a signature.
        OutputExists: the output exists.
        Error, OSError: a file is damaged, or the output cannot be written. No new image is there.
    """
    manifest = work.read()
    _require_same_image(base, manifest)
    if manifest is None or manifest.cmdline is None or _expected(base) != _names(manifest.files):
        raise SealRefused(
            "the files to sign are not complete", hint="run: bootc container seal prepare"
        )
    if waiting := work.waiting(manifest.files):
        raise SealRefused(
            f"{waiting[0].name} is not signed", hint=f"write it to {work.signed(waiting[0].name)}"
        )
    certificate = usable_certificate(certificate, sink)
    _check_files(work, manifest.files, certificate)
    _tell_of_signed_loader(base, certificate, sink)
    _check_cmdline(work.signed(manifest.files[-1].name), manifest.cmdline)
    with (
        layout_written(output, sink) as layout,
        tempfile.TemporaryFile(dir=_temporary()) as file,
    ):
        layer = write_layer(base, _signed(work, manifest.files), file)
        with stage(sink, "write", "Writing the sealed image"):
            source = _write(base, layer, layout, output)
        image_id = _check_sealed(source, sink)
        raw = source.manifest_raw
        layout.commit(Descriptor(ocispec.MANIFEST, OciDigest.of(raw), len(raw), {}))
    return Sealed(source.manifest_digest, image_id)


def _require_same_image(base: BaseImage, manifest: WorkManifest | None) -> None:
    if manifest is not None and manifest.image != str(base.source.manifest_digest):
        raise SealRefused(
            f"the directory belongs to another image: {printable(manifest.image, 100)}",
            hint="name a new directory",
        )


def _require_stub(path: str | None) -> None:
    if path is not None:
        with (
            doing(f"Reading the stub {shell_quoted(path)}"),
            open(open_regular(path), "rb") as file,
        ):
            Uki.read(file)


def _uki_path(base: BaseImage) -> str:
    return f"{UKIS}/{base.kernel.kver}{UKI_SUFFIX}"


def _expected(base: BaseImage) -> list[tuple[str, str]]:
    uki = _uki_path(base)
    found = [(os.path.basename(uki), uki)]
    if base.loader is not None:
        path, _ = base.loader
        found.insert(0, (os.path.basename(path), path + SIGNED_SUFFIX))
    return found


def _names(files: tuple[WorkFile, ...]) -> list[tuple[str, str]]:
    return [(file.name, file.path) for file in files]


def _signed(work: Work, files: tuple[WorkFile, ...]) -> Mapping[str, str]:
    return {file.path: work.signed(file.name) for file in files}


def _check_files(work: Work, files: tuple[WorkFile, ...], certificate: str | None) -> None:
    for file in files:
        work.check(file)
        check_signed(work.unsigned(file.name), work.signed(file.name), certificate)


def _add_uki(
    base: BaseImage, work: Work, files: tuple[WorkFile, ...], options: SealOptions
) -> tuple[WorkFile, str]:
    """Build the UKI of the tree with the signed loader; return the file, and its command line."""
    with _temporary_directory() as home:
        with open(f"{home}/layer", "w+b") as file:
            tree = sealed_tree(base, write_layer(base, _signed(work, files), file))
        kargs = (*options.kargs, *_root_access(base, options))
        line = composed_cmdline(
            base.kargs, tree, options.choice, kargs=kargs, version=options.version
        )
        uki, stub = f"{home}/uki.efi", options.stub
        if stub is None:
            if base.stub is None:
                raise SealRefused(
                    "the image has no stub for unified kernel images",
                    hint="add the package systemd-boot-efi to it, or name the file with --stub",
                )
            stub = f"{home}/stub"
        parts = {
            "linux": base.kernel.vmlinuz,
            "initrd": base.kernel.initramfs,
            "os-release": base.os_release,
            **({"stub": base.stub} if base.stub and options.stub is None else {}),
        }
        for name, leaf in parts.items():
            with open(f"{home}/{name}", "wb") as part:
                part.write(base.read(leaf))
        kernel = UkiKernel(base.kernel.kver, f"{home}/linux", f"{home}/initrd")
        # Another configuration of ukify would make another UKI.
        own = ("--config=/dev/null", f"--stub={os.path.abspath(stub)}", f"--output={uki}")
        run_ukify(kernel, f"{home}/os-release", line, own, output=uki)
        path = _uki_path(base)
        return work.add(os.path.basename(path), path, _chunks(uki)), line


def _temporary() -> str:
    return os.environ.get("TMPDIR") or _TEMPORARY


@contextlib.contextmanager
def _temporary_directory() -> Iterator[str]:
    """Make a temporary directory, and name its place if that becomes full."""
    home = _temporary()
    with tempfile.TemporaryDirectory(prefix="bootc-seal-", dir=home) as path:
        try:
            yield path
        except OSError as exc:
            volume = os.statvfs(path)
            if exc.errno != errno.ENOSPC or volume.f_bavail * volume.f_frsize > _FULL_BYTES:
                raise
            raise SealRefused(
                f"no space is left in {shell_quoted(home)}",
                hint="free some there, or let the variable TMPDIR name another directory",
            ) from None


def _tell_of_signed_loader(base: BaseImage, certificate: str | None, sink: Sink) -> None:
    """Say that the loader is not signed again. With a certificate, say also if it does not fit."""
    if base.signed_loader is None:
        return
    path, leaf = base.signed_loader
    sink(Notice(f"/{path} of the image is signed already"))
    if certificate is None:
        return
    with tempfile.NamedTemporaryFile(dir=_temporary()) as file:
        file.write(base.read(leaf))
        file.flush()
        if not verifies(file.name, certificate):
            sink(
                Notice(
                    f"its signature does not verify with {printable(certificate)}: "
                    "machines that trust only this certificate do not start it"
                )
            )


def _root_access(base: BaseImage, options: SealOptions) -> tuple[str, ...]:
    """Return the argument for a writable root, unless the image or the user decides about it.

    The installer writes it into boot entries that are files. Without it the root file system is
    mounted read-only, with /etc and /var, and services of the system fail.
    """
    given = {*base.kargs, *(word for text in options.kargs for word in cmdline.parse(text))}
    return () if given & {"ro", "rw"} else ("rw",)


def _check_cmdline(path: str, line: str) -> None:
    with doing(f"Checking {path}"), open(open_regular(path), "rb") as file:
        if Uki.read(file).text(CMDLINE) != line:
            raise SealRefused(
                "the UKI has another kernel command line than its manifest says",
                hint="run again: bootc container seal prepare",
            )


def _write(
    base: BaseImage, layer: WrittenLayer, layout: LayoutWriter, output: ImageReference
) -> LayoutSource:
    """Write all blobs of the sealed image, and return it as a source."""
    for descriptor in base.source.layers:
        if not layout.has(descriptor.digest, descriptor.size_bytes):
            layout.add(descriptor.digest, _blob(base, descriptor))
    new = layer.layer.descriptor
    if not layout.has(new.digest, new.size_bytes):
        layout.add(new.digest, layer.chunks())
    config_raw = config_with_layer(base.source.config_raw, layer.layer)
    config = layout.put(config_raw, ocispec.CONFIG)
    raw = manifest_with_layer(base.source, base.manifest.annotations, config, layer.layer)
    manifest = layout.put(raw, ocispec.MANIFEST)
    layers = Manifest.parse(raw).layers
    return LayoutSource(output, manifest.digest, raw, config_raw, layers, layout.directory)


def _check_sealed(source: LayoutSource, sink: Sink) -> str:
    """Ensure that the UKI of an image names its tree, as a machine does; return the first id."""
    ahead: set[External] = set()
    tree = image_tree(source, sink, ahead=ahead)
    uki = find_boot_resource(tree.whole)
    if not isinstance(uki, UkiFile) or raw_kernels(tree.whole):
        raise SealRefused("the sealed image still has a bare kernel", hint=_BUG)

    def open_file(leaf: Leaf) -> io.BytesIO:
        return io.BytesIO(tree.read_content(content_of(leaf)))

    programs = [uki.leaf, *(leaf for _, leaf in (*uki.addon_files, *loaders(tree.whole)))]
    ahead.update(leaf.content for leaf in programs if isinstance(leaf.content, External))
    check_sealing(uki, open_file)
    images = Uki.read(open_file(uki.leaf)).composefs_images()
    own = _ids(tree.root)
    wrong = [argument.karg for argument in images.arguments if argument.hex not in own]
    if wrong or images.optional:
        raise SealRefused(
            f"the sealed image is not the one that its UKI names: {wrong[0] if wrong else '?'}",
            hint="if the boot loader was signed again after the UKI was built, run bootc container "
            "seal prepare and sign the UKI again; otherwise report this as a bug",
        )
    if unsigned := unsigned_programs(tree.whole, uki, open_file):
        sink(Notice(f"not signed, so firmware does not start it: {listed(unsigned)}"))
    return images.deployment


def _ids(root: Directory) -> set[str]:
    return {image_id_of(root, version=version).hex for version in FORMAT_VERSIONS}


def _blob(base: BaseImage, descriptor: Descriptor) -> Iterator[bytes]:
    with base.source.blob(descriptor) as blob:
        while chunk := blob.read(CHUNK_BYTES):
            yield chunk


def _chunks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
