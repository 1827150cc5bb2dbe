"""The table of all lints, in the order of the output.

First come upstream's lints of a root, then upstream's lints of every name, then bootc's own with
the prefix ``pybootc-``; each group is sorted by name. Names and kinds of upstream's lints are an
interface: builds skip lints by name, and the kind decides whether a build fails. The descriptions
are bootc's own.
"""

from __future__ import annotations

from bootc.lint import (
    booting,
    kernel,
    layout,
    machine,
    names,
    prepareroot,
    runtime,
    sealed,
    sealing,
)
from bootc.lint.model import Lint, LintKind, RootType
from bootc.lint.sysusers import sysusers
from bootc.lint.tmpfiles import var_tmpfiles

_UPSTREAM = (
    Lint(
        "api-base-directories",
        LintKind.FATAL,
        "/var and the mount points of API file systems are directories.",
        layout.api_directories,
    ),
    Lint(
        "baseimage-composefs",
        LintKind.WARNING,
        "The prepare-root.conf of ostree enables composefs.",
        prepareroot.baseimage_composefs,
    ),
    Lint(
        "baseimage-root",
        LintKind.FATAL,
        "/sysroot is a directory, and /ostree is a link to sysroot/ostree.",
        layout.baseimage_root,
    ),
    Lint(
        "bootc-kargs",
        LintKind.FATAL,
        "The files of /usr/lib/bootc/kargs.d can be parsed.",
        kernel.kargs,
    ),
    Lint(
        "buildah-injected",
        LintKind.WARNING,
        "/etc/hostname and /etc/resolv.conf are not empty files, as container engines leave them.",
        layout.buildah_injected,
        # A running container has the engine's own files in their place.
        root_type=RootType.ALTERNATIVE,
    ),
    Lint(
        "etc-usretc",
        LintKind.FATAL,
        "The image does not have both /etc and /usr/etc.",
        layout.etc_usretc,
    ),
    Lint(
        "kernel",
        LintKind.FATAL,
        "/usr/lib/modules has at most one kernel.",
        kernel.kernel,
    ),
    Lint(
        "nonempty-boot",
        LintKind.WARNING,
        "/boot is empty except for unified kernel images. On a machine, a mount covers it.",
        layout.nonempty_boot,
    ),
    Lint(
        "nonempty-run-tmp",
        LintKind.WARNING,
        "/run and /tmp are empty. On a machine, mounts cover them.",
        runtime.nonempty_run_tmp,
    ),
    Lint(
        "sysusers",
        LintKind.WARNING,
        "Users and groups of /etc/passwd and /etc/group are in sysusers.d, too. It creates them "
        "on a machine that has changed these files.",
        sysusers,
    ),
    Lint(
        "var-log",
        LintKind.WARNING,
        "/var/log contains no logs. Logs of a build differ each time.",
        runtime.var_log,
    ),
    Lint(
        "var-run",
        LintKind.FATAL,
        "/var/run is a link.",
        layout.var_run,
    ),
    Lint(
        "var-tmpfiles",
        LintKind.WARNING,
        "Directories and links of /var are in tmpfiles.d, too. It creates them on a machine, where "
        "updates do not change /var.",
        var_tmpfiles,
        root_type=RootType.RUNNING,
    ),
    Lint(
        "utf8",
        LintKind.FATAL,
        "File names and targets of links are UTF-8.",
        look=names.utf8,
    ),
)
_OWN = (
    Lint(
        "pybootc-esp-size",
        LintKind.WARNING,
        "The unified kernel images of two deployments fit on the EFI system partition.",
        sealed.esp_size,
    ),
    Lint(
        "pybootc-fstab",
        LintKind.WARNING,
        "/etc/fstab does not mount the file systems that the initramfs mounts.",
        machine.fstab,
    ),
    Lint(
        "pybootc-initramfs",
        LintKind.WARNING,
        "The initramfs contains the program that mounts the image.",
        booting.initramfs,
    ),
    Lint(
        "pybootc-installable",
        LintKind.WARNING,
        "bootc install does not refuse the kernel, the boot entries or the kernel arguments.",
        booting.installable,
    ),
    Lint(
        "pybootc-kernel-version",
        LintKind.WARNING,
        "The kernel is a kernel image, and new enough to mount the image.",
        booting.kernel_version,
    ),
    Lint(
        "pybootc-machine-id",
        LintKind.WARNING,
        "/etc/machine-id contains no id.",
        machine.machine_id,
    ),
    Lint(
        "pybootc-os-release",
        LintKind.WARNING,
        "os-release is text, and has a name for the boot menu.",
        machine.os_release,
    ),
    Lint(
        "pybootc-seal-kargs",
        LintKind.WARNING,
        "The command line of a sealed image has all arguments of kargs.d.",
        sealed.kargs,
    ),
    Lint(
        "pybootc-seal-kernel",
        LintKind.WARNING,
        "A sealed image has no kernel beside its unified kernel image.",
        sealed.raw_kernel,
    ),
    Lint(
        "pybootc-seal-layers",
        LintKind.WARNING,
        "Layers can carry everything that the digest of a sealed image depends on.",
        sealed.layers,
        # The root of a running process is not what an image will be made of.
        root_type=RootType.ALTERNATIVE,
    ),
    Lint(
        "pybootc-seal-lockdown",
        LintKind.WARNING,
        "The kernel of a sealed image is locked down against root.",
        sealed.lockdown,
    ),
    Lint(
        "pybootc-seal-panic",
        LintKind.WARNING,
        "The initramfs of a sealed image opens no shell if the boot fails.",
        sealed.panic,
    ),
    Lint(
        "pybootc-seal-signatures",
        LintKind.WARNING,
        "The EFI programs of a sealed image are signed.",
        sealed.signatures,
    ),
    Lint(
        "pybootc-skopeo",
        LintKind.WARNING,
        "An image with bootc contains skopeo, too.",
        machine.skopeo,
    ),
    Lint(
        "pybootc-uki-digests",
        LintKind.WARNING,
        "Every digest on the command line of a unified kernel image is an image of this root.",
        sealing.uki_digests,
        # The root of a running process is not what an image will be made of.
        root_type=RootType.ALTERNATIVE,
    ),
    Lint(
        "pybootc-usr-merge",
        LintKind.WARNING,
        "/bin, /sbin, /lib and its variants are links to directories of /usr.",
        layout.usr_merge,
    ),
)
LINTS = _UPSTREAM + _OWN
