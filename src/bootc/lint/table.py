"""All lints: upstream's by their names there, and then ours, which begin with ``pybootc-``.

The order is that of the output: upstream's that look at a root, upstream's that look at
every name, ours; each by name. Names and kinds of upstream's are interfaces: builds skip
lints by name, and fail or not by kind.
"""

from __future__ import annotations

from bootc.lint import booting, kernel, layout, machine, names, prepareroot, runtime, sealing
from bootc.lint.model import Lint, LintKind, RootType
from bootc.lint.sysusers import sysusers
from bootc.lint.tmpfiles import var_tmpfiles

_UPSTREAM = (
    Lint(
        "api-base-directories",
        LintKind.FATAL,
        "The directories that API file systems are mounted on, and /var, are there.",
        layout.api_directories,
    ),
    Lint(
        "baseimage-composefs",
        LintKind.WARNING,
        "prepare-root.conf of ostree enables composefs.",
        prepareroot.baseimage_composefs,
    ),
    Lint(
        "baseimage-root",
        LintKind.FATAL,
        "/sysroot is a directory and /ostree a link to sysroot/ostree.",
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
        "/etc/hostname and /etc/resolv.conf are not the empty files that container engines leave.",
        layout.buildah_injected,
        # In a running container the engine's own files are there.
        root_type=RootType.ALTERNATIVE,
    ),
    Lint(
        "etc-usretc",
        LintKind.FATAL,
        "There is /etc and no /usr/etc.",
        layout.etc_usretc,
    ),
    Lint(
        "kernel",
        LintKind.FATAL,
        "There is no more than one kernel in /usr/lib/modules.",
        kernel.kernel,
    ),
    Lint(
        "nonempty-boot",
        LintKind.WARNING,
        "/boot is there and empty, but for unified kernel images; something else is mounted over "
        "it on a machine.",
        layout.nonempty_boot,
    ),
    Lint(
        "nonempty-run-tmp",
        LintKind.WARNING,
        "/run and /tmp are empty; on a machine nothing in them is seen.",
        runtime.nonempty_run_tmp,
    ),
    Lint(
        "sysusers",
        LintKind.WARNING,
        "Users and groups of /etc/passwd and /etc/group are in sysusers.d too, which makes them "
        "on a machine whose /etc was changed.",
        sysusers,
    ),
    Lint(
        "var-log",
        LintKind.WARNING,
        "There are no logs in /var/log: they are the build's, and differ each time.",
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
        "What is in /var is in tmpfiles.d too, which makes it on a machine; an image's /var "
        "counts at installation only.",
        var_tmpfiles,
        root_type=RootType.RUNNING,
    ),
    Lint(
        "utf8",
        LintKind.FATAL,
        "Names and targets of links are UTF-8.",
        look=names.utf8,
    ),
)
_OWN = (
    Lint(
        "pybootc-fstab",
        LintKind.WARNING,
        "/etc/fstab does not mount what the initramfs mounts.",
        machine.fstab,
    ),
    Lint(
        "pybootc-initramfs",
        LintKind.WARNING,
        "The initramfs has the step that mounts the image.",
        booting.initramfs,
    ),
    Lint(
        "pybootc-installable",
        LintKind.WARNING,
        "bootc install will not refuse the kernel, the boot entries or the kernel arguments.",
        booting.installable,
    ),
    Lint(
        "pybootc-kernel-version",
        LintKind.WARNING,
        "The kernel is new enough to mount the image.",
        booting.kernel_version,
    ),
    Lint(
        "pybootc-machine-id",
        LintKind.WARNING,
        "/etc/machine-id holds no id.",
        machine.machine_id,
    ),
    Lint(
        "pybootc-os-release",
        LintKind.WARNING,
        "os-release is text and names the system.",
        machine.os_release,
    ),
    Lint(
        "pybootc-skopeo",
        LintKind.WARNING,
        "skopeo is there if bootc is.",
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
        "/bin, /sbin, /lib and its variants are links.",
        layout.usr_merge,
    ),
)
LINTS = _UPSTREAM + _OWN
