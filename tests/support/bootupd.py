"""bootupd in a test image: a fake ``bootupctl`` that really runs there.

Debian has no bootupd. The fake writes what bootupd 0.2.35 writes, as its source says
(``src/grubconfigs.rs``, ``src/efi.rs``, ``src/bios.rs``), and records how it was called: its
arguments, its environment and what it sees in the files ``/sysroot/bootupctl.*``. Its shell and
tools are those of this system.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support import require
from support.images import Member, directory, file, symlink

PROGRAM = "usr/bin/bootupctl"
UPDATES = "usr/lib/bootupd/updates"
STATIC = "usr/lib/bootupd/grub2-static"
SHIM = b"MZ shim"
#: A GRUB of Fedora has the command in the program.
GRUB = b"MZ grub\0blscfg\0"
GRUB_WITHOUT_BLSCFG = b"MZ grub\0"
BOOT_UUID = "0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0"
#: bootupd's configuration, without the parts that a boot entry does not need.
CONFIGS = {
    f"{STATIC}/grub-static-pre.cfg": b"set root=$boot\n",
    f"{STATIC}/grub-static-efi.cfg": b"configfile $prefix/grub.cfg\n",
    f"{STATIC}/configs.d/01_users.cfg": b"source ${prefix}/user.cfg\n",
    f"{STATIC}/configs.d/10_blscfg.cfg": b"blscfg\n",
    f"{STATIC}/configs.d/41_custom.cfg": b"source $prefix/custom.cfg\n",
}
HELP = "--device <DEVICE> --filesystem <PATH>"
OLD_HELP = "--device <DEVICE>"

_SCRIPT = r"""#!/bin/sh
set -e
log=/sysroot/bootupctl
printf '%s\n' "$*" >>$log.calls
case "$*" in *--help*) echo '@HELP@'; exit 0;; esac
export -p >$log.env
for path in /proc/self/stat /dev/null /sys/kernel /run /tmp /boot /boot/efi; do
    [ ! -e $path ] || echo $path
done >$log.sees
echo left >/tmp/left
@BODY@
[ ! -e /boot/bootupd-state.json ] || { echo 'error: invalid re-install attempted' >&2; exit 1; }
mkdir -p /boot/grub2
cat @STATIC@/grub-static-pre.cfg @STATIC@/configs.d/*.cfg >/boot/grub2/grub.cfg
: >/boot/grub2/grubenv
vendor=
if [ -d /@UPDATES@/EFI ]; then
    for path in /@UPDATES@/EFI/*/*; do
        to=/boot/efi/EFI/${path#/@UPDATES@/EFI/}
        mkdir -p ${to%/*}
        cat $path >$to
    done
    vendor=/boot/efi/EFI/fedora
    cat @STATIC@/grub-static-efi.cfg >$vendor/grub.cfg
fi
if [ -e /@UPDATES@/BIOS.json ]; then
    mkdir -p /boot/grub2/i386-pc
    cat /usr/lib/grub/i386-pc/blscfg.mod >/boot/grub2/i386-pc/blscfg.mod
fi
case "$*" in *--write-uuid*)
    for path in /boot/grub2 $vendor; do echo 'set BOOT_UUID="@UUID@"' >$path/bootuuid.cfg; done
esac
echo '{}' >/boot/bootupd-state.json
"""
_LIBRARY = re.compile(r"(/\S+) \(0x")
_TOOLS = ("sh", "cat", "mkdir", "sleep")


def script(body: str = "", help_text: str = HELP) -> bytes:
    """Return the program; ``body`` runs after it has recorded the call, before it writes."""
    text = _SCRIPT.replace("@STATIC@", f"/{STATIC}").replace("@UPDATES@", UPDATES)
    text = text.replace("@BODY@", body).replace("@HELP@", help_text).replace("@UUID@", BOOT_UUID)
    return text.encode()


def members(
    *, body: str = "", help_text: str = HELP, grub: bytes | None = GRUB, bios: bool = False
) -> tuple[Member, ...]:
    """Return the files of an image with bootupd, and with GRUB for UEFI, for a BIOS, or both."""
    found = [file(path, content) for path, content in CONFIGS.items()]
    found += [directory(UPDATES), file(PROGRAM, script(body, help_text), mode=0o755)]
    if grub is not None:
        found += [
            file(f"{UPDATES}/EFI.json", b"{}"),
            file(f"{UPDATES}/EFI/BOOT/BOOTX64.EFI", SHIM),
            file(f"{UPDATES}/EFI/fedora/shimx64.efi", SHIM),
            file(f"{UPDATES}/EFI/fedora/grubx64.efi", grub),
        ]
    if bios:
        found += [
            file(f"{UPDATES}/BIOS.json", b"{}"),
            file("usr/lib/grub/i386-pc/blscfg.mod", b"module"),
        ]
    return tuple(found)


def system() -> Iterator[Member]:
    """Yield a shell and its tools, with their libraries, and the directories for mounts."""
    for name in ("proc", "sys", "dev", "run"):
        yield directory(name)
    for name in ("bin", "lib", "lib64"):
        yield symlink(name, f"usr/{name}")
    paths = {name: Path(require.tool(name)).resolve() for name in _TOOLS}
    for name, path in paths.items():
        yield file(f"usr/bin/{name}", path.read_bytes(), mode=0o755)
    ldd = [require.tool("ldd"), *map(str, paths.values())]
    libraries = subprocess.run(ldd, check=True, capture_output=True, text=True).stdout
    for library in sorted(set(_LIBRARY.findall(libraries))):
        inside = library if library.startswith("/usr/") else f"/usr{library}"
        yield file(inside.lstrip("/"), Path(library).read_bytes(), mode=0o755)


def record(root: str, name: str) -> list[str]:
    """Return the lines of a record in a root file system: ``calls``, ``env`` or ``sees``."""
    return Path(root, f"bootupctl.{name}").read_text().splitlines()
