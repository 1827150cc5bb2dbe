"""The step of the initramfs that turns the physical root into the deployment's root.

It runs once, between ``sysroot.mount`` and ``initrd-root-fs.target`` (bootc, "Initramfs
root setup"), and again when a soft reboot is prepared, with another target. Promises:

- It mounts the image that the kernel command line names, measured by the kernel. Of several
  it tries each in its order, and takes the next one only if the repository does not have the
  image at all. Any other fault stops the boot.
- Only ``?`` in the arguments tolerates missing fs-verity, and only if all have it; nothing on
  the root file system does. docs/explanation/trust.md explains how far the command line can
  be trusted.
- Configuration comes from the initramfs and the command line, never from the root file system.
- It verifies the image and opens the state of the deployment before it attaches anything
  over the physical root. If attaching fails half-way, it undoes it.
- If the TPM has a security counter, a command line whose image must be verified, or that states a
  security version, is refused below it. Without a TPM or without a counter nothing is refused.
- If a firmware without Secure Boot started the UKI of an image that must be verified, it reports
  that and goes on.
- A failure is one line on stderr and exit status 1. If the boot is refused, a second line says
  how to recover. There is no fallback: initrd-root-fs.target requires this step. Leaving the
  emergency shell therefore runs it again, and never switches to the physical root.

It imports only os, ctypes and a few modules of bootc; tomllib only if there is a
configuration file. A test reads ``sys.modules``. It is a program and not a
library: its exit closes what it opened. A program in another language can take its
place: command line, configuration and mounts are the contract.
"""

from __future__ import annotations

import os
import sys

from bootc.errors import Error, doing, one_line
from bootc.formats import cmdline, security_counter, security_version
from bootc.formats.security_counter import CounterUnreadable
from bootc.initramfs.secure_boot import unchecked_uki
from bootc.kernel import tpm
from bootc.kernel.libc import AT_EMPTY_PATH, AT_FDCWD
from bootc.kernel.mount import (
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    mount_setattr,
    move_mount,
    open_tree,
    umount2,
)
from bootc.repository import layout
from bootc.repository.mounting import (
    ImageNotFound,
    mount_composefs,
    mount_transient,
    open_verified_image,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bootc.formats.cmdline import ComposefsImages

USAGE = (
    "usage: initramfs-setup setup-root [--sysroot DIR] [--config FILE] [--cmdline TEXT]"
    " [--root-fs DIR] [--target DIR]"
)
SYSROOT = "/sysroot"
CONFIG = "/usr/lib/composefs/setup-root-conf.toml"
GPT_AUTO_ROOT = "/dev/gpt-auto-root"
VOLATILE_ROOT = "/run/systemd/volatile-root"
#: Printed after the error that refuses a boot.
RECOVERY = (
    "bootc: this boot is refused. To recover: boot another entry of the boot menu, or install the"
    " system again. If nothing but fs-verity is missing on the disk, an entry or a UKI with"
    " composefs=?ID boots without it, and without its protection\n"
)

BIND = "bind"
NONE = "none"
TRANSIENT = "transient"
_MAX_CONFIG_BYTES = 1 << 20
_MOUNTS = {
    "bind": BIND,
    "none": NONE,
    "root": NONE,
    "transient": TRANSIENT,
    "volatile": TRANSIENT,
}
#: How long the driver of a TPM that the firmware announces may take, in seconds.
_TPM_WAIT_S = 5.0
_UNCHECKED = "no security version is required"
_TOO_OLD_HINT = (
    "boot a newer entry of the boot menu; if there is none, install the system again, or remove "
    "the counter: clear the TPM in the setup of the firmware"
)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class SetupError(Error):
    """Options, configuration or the state of the disk do not allow this boot."""


class Options:
    """The command line of this program."""

    def __init__(self) -> None:
        self.sysroot = SYSROOT
        self.config = CONFIG
        self.cmdline: str | None = None
        self.root_fs: str | None = None
        self.target: str | None = None


class Config:
    """The ways to mount the root, ``/etc`` and ``/var``; empty if the file has no such setting."""

    def __init__(self, *, transient_root: bool = False, etc: str = "", var: str = "") -> None:
        self.transient_root = transient_root
        self.etc = etc
        self.var = var


def main(argv: Sequence[str]) -> int:
    """Run the step; return the exit status."""
    recovery = ""
    try:
        options = parse_options(argv)
        if options.target is None:  # a soft reboot that is not prepared refuses no boot
            recovery = RECOVERY
        link_volatile_root()
        setup_root(options)
    except (Error, OSError) as exc:
        sys.stderr.write(f"bootc: {one_line(exc)}\n{recovery}")
        return 1
    return 0


def parse_options(argv: Sequence[str]) -> Options:
    """Read options; words that are none (``setup-root``) are ignored.

    Raises:
        SetupError: an unknown option, or one without its value.
    """
    options = Options()
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        if name not in ("--sysroot", "--config", "--cmdline", "--root-fs", "--target"):
            raise SetupError(f"unknown option {name}", hint=USAGE)
        setattr(options, name[2:].replace("-", "_"), value if equals else _next(words, name))
    return options


def _next(words: Iterator[str], option: str) -> str:
    for word in words:
        return word
    raise SetupError(f"option {option} needs a value", hint=USAGE)


def read_config(path: str) -> Config:
    """Read the configuration; a missing file means the defaults.

    Raises:
        SetupError: the file is malformed, or asks for what is not supported.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return Config()
    if len(data) > _MAX_CONFIG_BYTES:
        raise SetupError(f"{path} is larger than {_MAX_CONFIG_BYTES} bytes")
    import tomllib  # here because it doubles the start-up time

    try:
        tables = tomllib.loads(data.decode())
    except ValueError as exc:  # of TOML and of UTF-8
        raise SetupError(f"{path}: {exc}") from None
    except RecursionError:
        raise SetupError(f"{path}: values are nested too deeply") from None
    with doing(path):
        return Config(
            transient_root=_flag(tables, "root"),
            etc=_mount_kind(tables, "etc"),
            var=_mount_kind(tables, "var"),
        )


def _table(tables: dict[str, object], name: str) -> dict[str, object]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise SetupError(f"[{name}] is not a table")
    return table


def _flag(tables: dict[str, object], name: str) -> bool:
    value = _table(tables, name).get("transient", False)
    if not isinstance(value, bool):
        raise SetupError(f"[{name}] transient is neither true nor false")
    return value


def _mount_kind(tables: dict[str, object], name: str) -> str:
    transient = _flag(tables, name)
    kind = _table(tables, name).get("mount")
    if kind is None:
        return TRANSIENT if transient else ""
    if kind == "overlay":
        raise SetupError(f'[{name}] mount = "overlay" is not supported; use bind or transient')
    if not isinstance(kind, str) or kind not in _MOUNTS:
        raise SetupError(f"[{name}] mount is none of {', '.join(sorted(_MOUNTS))}")
    return _MOUNTS[kind]


def link_volatile_root() -> None:
    """Tell systemd which partition the root is on, which overlayfs would hide from it.

    Only where systemd found the root by its partition type, and thus made that device link.
    """
    try:
        device = os.stat(GPT_AUTO_ROOT).st_rdev
    except FileNotFoundError:
        return
    with doing(VOLATILE_ROOT):
        os.makedirs(os.path.dirname(VOLATILE_ROOT), exist_ok=True)
        try:
            os.symlink(f"/dev/block/{os.major(device)}:{os.minor(device)}", VOLATILE_ROOT)
        except FileExistsError:
            return


def setup_root(options: Options) -> None:
    """Verify, assemble and attach the root.

    Raises:
        Error: the image, the configuration or the deployment's state is not as it must be.
        OSError: the kernel refused; the notes say what and why.
    """
    config = read_config(options.config)
    text = _kernel_command_line() if options.cmdline is None else options.cmdline
    images = cmdline.composefs_images(text)
    check_security_version(text, images)
    if options.target is None and not images.optional:
        report_unchecked_uki()
    kinds = {"etc": config.etc or BIND, "var": config.var or _var_kind(text)}
    sysroot_fd = os.open(options.sysroot, _DIRECTORY)

    if options.root_fs is None:
        with doing(f"opening the repository in {options.sysroot}"):
            repo_fd = os.open(layout.REPOSITORY, _DIRECTORY, dir_fd=sysroot_fd)
            objects_fd = os.open(layout.OBJECTS, _DIRECTORY, dir_fd=repo_fd)
        name, image_fd = open_first_image(repo_fd, images)
        verity = not images.optional
        root_fd = mount_composefs(image_fd, objects_fd, name=name, verity=verity)
    else:
        name, root_fd = images.deployment, _clone(AT_FDCWD, options.root_fs)
    physical_fd = _clone(sysroot_fd, "")
    mount_setattr(physical_fd, set_attrs=MOUNT_ATTR_RDONLY)
    parts = {"sysroot": physical_fd}
    state, state_fd = open_state(sysroot_fd, images)
    for part, kind in kinds.items():
        if kind == BIND:
            with doing(f"{state}/{part}"):
                parts[part] = _clone(state_fd, part)

    # Layers of an overlay must be attached before Linux 6.15, so the root comes first.
    target = options.target or options.sysroot
    _attach(root_fd, target)
    stacked = [root_fd]
    try:
        for part, kind in kinds.items():
            if kind == TRANSIENT:
                lower_fd = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd)
                parts[part] = mount_transient(lower_fd, source=TRANSIENT)
        if config.transient_root:
            view_fd = mount_transient(root_fd, source=f"transient:composefs={name}")
            _attach(view_fd, target)
            stacked.append(view_fd)
        for part, part_fd in parts.items():
            _attach_part(stacked[-1], part, part_fd)
    except BaseException:
        for _ in stacked:
            umount2(target, MNT_DETACH)
        raise


def check_security_version(text: str, images: ComposefsImages) -> None:
    """Refuse a command line whose security version is below the counter of the TPM.

    A machine without counter refuses nothing, and neither does one whose TPM does not tell whether
    it has a counter: whoever can break the TPM could remove it as well.

    Args:
        text: The kernel command line.
        images: The images that it names.

    Raises:
        SetupError: the security version is too low.
        CounterUnreadable: there is a counter, and its value cannot be read.
    """
    own = security_version.stated(cmdline.parse(text))
    if images.optional and not own.stated:
        return
    try:
        device = tpm.open_tpm(wait_s=_TPM_WAIT_S)
        if device is None:
            if tpm.is_announced():
                sys.stderr.write(f"bootc: warning: {_UNCHECKED}: the TPM has no driver\n")
            return
        with device:
            counter = security_counter.read(device.transmit)
    except CounterUnreadable:
        raise
    except (Error, OSError) as exc:
        sys.stderr.write(f"bootc: warning: {_UNCHECKED}: {one_line(exc)}\n")
        return
    if counter is not None and own.version < counter:
        raise SetupError(
            f"the security version of this image is {own.version}, and the counter in the TPM "
            f"requires {counter}",
            hint=_TOO_OLD_HINT,
        )


def report_unchecked_uki() -> None:
    """Warn of a firmware that did not check the UKI. The machine boots in either case."""
    try:
        report = unchecked_uki()
    except OSError as exc:
        report = f"the state of Secure Boot cannot be read: {one_line(exc)}"
    if report is not None:
        sys.stderr.write(f"bootc: warning: {report}\n")


def open_first_image(repo_fd: int, images: ComposefsImages) -> tuple[str, int]:
    """Open the first of the images that the repository has; return its digest and the descriptor.

    Raises:
        ImageNotFound: the repository has none of them.
        ImageNotTrusted: the first that it has lacks fs-verity, or has another digest.
        OSError: the first that it has is damaged.
    """
    missing: list[str] = []
    for image in images.hexes:
        try:
            opened = open_verified_image(repo_fd, image, require_verity=not images.optional)
        except ImageNotFound:
            missing.append(image)
            continue
        if missing:
            sys.stderr.write(
                f"bootc: warning: the repository does not have image {', '.join(missing)};"
                f" mounting {image}, which the command line names, too\n"
            )
        return image, opened
    with doing(f"image {', '.join(missing)}"):
        raise ImageNotFound("not in the repository")


def _var_kind(text: str) -> str:
    """Return how ``/var`` is mounted where the configuration does not say."""
    values = cmdline.find_all(cmdline.parse(text), "systemd.volatile")
    # Of several the last one that says anything counts, as for systemd.
    said = [value for value in values if value]
    return NONE if said and said[-1] in ("state", "overlay") else BIND


def _kernel_command_line() -> str:
    with open("/proc/cmdline", "rb") as file:
        return file.read().decode("utf-8", "surrogateescape")


def open_state(sysroot_fd: int, images: ComposefsImages) -> tuple[str, int]:
    """Open the state of the deployment; return its path and the descriptor.

    Raises:
        SetupError: no image of the command line has state.
        OSError: it cannot be opened.
    """
    for image in images.ids:
        path = layout.state_dir(image)
        try:
            return path, os.open(path, _DIRECTORY, dir_fd=sysroot_fd)
        except FileNotFoundError:
            continue
    path = layout.state_dir(images.deployment)
    raise SetupError(f"deployment {images.deployment} has no state: {path} is missing")


def _clone(dir_fd: int, path: str) -> int:
    return open_tree(dir_fd, path, OPEN_TREE_CLONE | (0 if path else AT_EMPTY_PATH))


def _attach(root_fd: int, target: str) -> None:
    # Over the physical root and not beneath it, as MOVE_MOUNT_BENEATH could: that is refused
    # for mounts on the initramfs itself.
    with doing(f"attaching the root at {target}"):
        move_mount(root_fd, "", AT_FDCWD, target)


def _attach_part(root_fd: int, name: str, part_fd: int) -> None:
    try:
        with doing(f"attaching /{name}"):
            move_mount(part_fd, "", root_fd, name)
    except FileNotFoundError:
        if name != "sysroot":
            raise
        # Such an image boots, but cannot be updated from within.
        sys.stderr.write("bootc: warning: the image has no /sysroot directory\n")
