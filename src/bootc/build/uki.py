"""Builds the unified kernel image (UKI) of an unpacked image, with ``ukify`` of systemd.

The kernel command line of the UKI names the image by its digests. Therefore the root must be final.
Only ``/boot`` and ``/sysroot`` may change afterwards, because the digests leave them out.

Promises: the command line of the finished UKI is the one that this module composed. A UKI that
differs is removed.

Source: upstream bootc 1.17, ``bootc container ukify``.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootc.boot.kargs import KARGS_D, read_kargs_d
from bootc.boot.scheme import VMLINUZ
from bootc.boot.unpacked_kernel import INITRAMFS, find_kernel
from bootc.errors import Error, doing
from bootc.formats import cmdline, security_version
from bootc.formats.digest import Algorithm
from bootc.formats.pe import Uki
from bootc.formats.security_version import SecurityVersion
from bootc.formats.shellquote import shell_quoted
from bootc.formats.tree import Directory
from bootc.fs import process
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.fs.parents import directories_made
from bootc.oci.trees import image_id_of
from bootc.printable import printable

UKIFY = "ukify"
#: The places of os-release. The first file counts (os-release(5)).
OS_RELEASE = ("usr/lib/os-release", "etc/os-release")
#: Directories of a root that its digests leave out.
_UNMEASURED = ("boot", "sysroot")
#: Options of ukify that this module gives.
_OWN_OPTIONS = ("--linux", "--uname", "--cmdline", "--os-release")


class UkiNotBuilt(Error):
    """A UKI cannot be built from this root with these options. There is none afterwards."""


class DigestChoice(enum.StrEnum):
    """The digests that the command line of a UKI has, by upstream's names.

    An initramfs of bootc before 1.17 knows the last one only.
    """

    V1 = "v1"
    V2 = "v2"
    V1_ONLY = "v1-only"


@dataclass(frozen=True, slots=True)
class UkiKernel:
    """The kernel of a UKI.

    Attributes:
        version: Its version, as ``uname -r`` prints it.
        linux: The path of the kernel.
        initramfs: The path of the initramfs.
    """

    version: str
    linux: str
    initramfs: str


def uki_kernel(rootfs: str, root: ImageRoot, kernel_dir: str | None) -> UkiKernel:
    """Find the kernel for a UKI.

    Args:
        rootfs: The path of the root.
        root: The root.
        kernel_dir: The directory of the kernel, named like its version; None for that of the root.

    Raises:
        UkiNotBuilt: there is no kernel or no initramfs, or the root already has a UKI.
        SeveralKernels: the root has several kernels.
    """
    if kernel_dir is not None:
        directory = os.path.abspath(kernel_dir)
        kernel = UkiKernel(
            os.path.basename(directory), f"{directory}/{VMLINUZ}", f"{directory}/{INITRAMFS}"
        )
    else:
        found = find_kernel(root)
        if found is None:
            raise UkiNotBuilt(
                f"No kernel found in {shell_quoted(rootfs)}",
                hint="name its directory with --kernel-dir",
            )
        if found.unified:
            raise UkiNotBuilt(
                f"Cannot build UKI: rootfs already contains a UKI at {shell_quoted(found.path)}"
            )
        paths = (root.resolve(path) or path for path in (found.path, found.initramfs))
        kernel = UkiKernel(found.version, *(os.path.join(rootfs, path) for path in paths))
    for path in (kernel.linux, kernel.initramfs):
        if not os.path.isfile(path):
            raise UkiNotBuilt(f"{shell_quoted(path)} is missing, or is not a regular file")
    return kernel


def shipped_kargs(root: ImageRoot) -> list[str]:
    """Return the kernel arguments of ``kargs.d`` of a root.

    Raises:
        KargsError: a file of ``kargs.d`` is wrong.
    """
    outline = Outline.read(root, (KARGS_D,))
    return read_kargs_d(outline.root, outline.read_content, os.uname().machine)


def composed_cmdline(
    shipped: Sequence[str],
    tree: Directory,
    choice: DigestChoice,
    *,
    kargs: Sequence[str] = (),
    version: SecurityVersion | None = None,
    allow_missing_verity: bool = False,
) -> str:
    """Return the kernel command line: arguments of ``kargs.d``, digests, ``kargs``, the version.

    Args:
        shipped: The arguments of ``kargs.d``.
        tree: The tree that the digests are computed from.
        choice: The digests.
        kargs: More arguments.
        version: The security version to state.
        allow_missing_verity: Tolerate files without fs-verity.

    Raises:
        CmdlineError: an argument of ``kargs`` is not allowed, the arguments state a wrong security
            version or several ones, or the line is too long.
    """
    arguments = list(shipped)
    digests = []
    if choice is not DigestChoice.V2:
        first = image_id_of(tree, Algorithm.SHA512, version=1).hex
        digests.append(cmdline.composefs_karg(first, optional=allow_missing_verity, version="v1"))
    if choice is not DigestChoice.V1_ONLY:
        second = image_id_of(tree, Algorithm.SHA512, version=2).hex
        digests.append(cmdline.composefs_karg(second, optional=allow_missing_verity))
    arguments = cmdline.extend(arguments, digests)
    for text in kargs:
        cmdline.check(text)
        arguments = cmdline.extend(arguments, cmdline.parse(text))
    if version is not None:
        arguments = cmdline.extend(arguments, version.kargs())
    security_version.check(arguments)
    line = cmdline.join(arguments)
    cmdline.check_length(line)
    return line


def output_of(options: Sequence[str], rootfs: str) -> str:
    """Return the absolute path of the UKI that these options of ukify write.

    ukify runs in the root, so relative paths start there.

    Raises:
        UkiNotBuilt: the options name no file, or one that is a part of the measured root; or they
            replace what this module gives.
    """
    path = None
    for number, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name in _OWN_OPTIONS:
            raise UkiNotBuilt(
                f"{name} cannot be given: the command composes it",
                hint="use --karg and --kernel-dir before the --",
            )
        if name == "--output":
            path = value if equals else next(iter(options[number + 1 :]), None)
    if not path:
        raise UkiNotBuilt(
            "no name for the UKI",
            hint="add -- --output=FILE, for example -- --output=/boot/EFI/Linux/debian.efi",
        )
    path = os.path.join(rootfs, path)
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(rootfs)).split("/")
    if inside[0] != ".." and inside[0] not in _UNMEASURED:
        raise UkiNotBuilt(
            f"{shell_quoted(path)} would change the root after its digest was computed",
            hint="write the UKI below boot, or outside the root",
        )
    return os.path.abspath(path)


def build_uki(
    rootfs: str, root: ImageRoot, kernel: UkiKernel, line: str, options: Sequence[str]
) -> bytes:
    """Run ukify, and return what it prints.

    Args:
        rootfs: The path of the root.
        root: The root.
        kernel: The kernel.
        line: The kernel command line.
        options: More options for ukify.

    Raises:
        UkiNotBuilt: the root has no os-release, or the options are not allowed.
        Error: as :func:`run_ukify`.
    """
    output = output_of(options, rootfs)
    os_release = next(filter(None, (_resolved(root, path) for path in OS_RELEASE)), None)
    if os_release is None:
        raise UkiNotBuilt(f"{shell_quoted(rootfs)} has no /{OS_RELEASE[0]}")
    with _times_kept(rootfs), directories_made(os.path.dirname(output)):
        return run_ukify(kernel, os_release, line, options, output=output, cwd=rootfs)


def run_ukify(
    kernel: UkiKernel,
    os_release: str,
    line: str,
    options: Sequence[str],
    *,
    output: str,
    cwd: str | None = None,
) -> bytes:
    """Run ukify, check the finished UKI, and return what ukify prints.

    Args:
        kernel: The kernel.
        os_release: The path of os-release.
        line: The kernel command line.
        options: More options for ukify. They name the output.
        output: The path of the UKI that ukify writes.
        cwd: The directory to run ukify in.

    Raises:
        UkiNotBuilt: ukify failed, or the finished UKI has another command line.
        ToolMissing: ukify is not installed.
        PeError, CmdlineError: the finished UKI is not what was asked for. It is removed.
    """
    argv = [
        UKIFY,
        "build",
        *("--linux", kernel.linux, "--initrd", kernel.initramfs, "--uname", kernel.version),
        *("--cmdline", line, "--os-release", f"@{os_release}"),
        *options,
    ]
    try:
        done = process.run(argv, cwd=cwd)
    except process.CommandFailed as exc:
        # The message of the exception has the whole kernel command line.
        raise UkiNotBuilt(f"ukify failed: {_last_line(exc.stderr)}") from None
    try:
        with doing(f"Checking {shell_quoted(output)}"):
            _check(output, line)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(output)
        raise
    return done.stdout


@contextlib.contextmanager
def _times_kept(rootfs: str) -> Iterator[None]:
    """Give the directories that the digests leave out their times back.

    Their content does not count, but the nanoseconds of their times do (:mod:`bootc.oci.seal`).
    """
    paths = [os.path.join(rootfs, name) for name in _UNMEASURED]
    before = [(path, os.lstat(path)) for path in paths]
    try:
        yield
    finally:
        for path, info in before:
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _resolved(root: ImageRoot, path: str) -> str | None:
    """Return the path of a file without links, or None if it does not exist."""
    resolved = root.resolve(path)
    return None if resolved is None or root.stat(resolved) is None else resolved


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").split("\n")
    return next((printable(one.strip()) for one in reversed(lines) if one.strip()), "no message")


def _check(path: str, line: str) -> None:
    with open(path, "rb") as file:
        uki = Uki.read(file)
        if uki.text(".cmdline") != line:
            raise UkiNotBuilt(
                "the UKI has another kernel command line than the one composed for it",
                hint="look for options of ukify that replace it, and for its configuration file",
            )
        # All profiles must boot the same images.
        uki.composefs_images()
