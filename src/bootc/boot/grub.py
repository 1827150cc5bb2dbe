"""The configuration of a GRUB that bootc installed: the constant files around its menu.

The generated menu (:mod:`bootc.formats.grubmenu`) is in the directory of the boot entries. The
static configuration ``grub2/grub.cfg`` finds it there; bootc writes it once, at installation. The
stub finds the static configuration by the UUID of the file system. It is the configuration beside
the EFI program, and the one inside the BIOS program.

bootupd writes a static configuration of its own, which belongs to bootupd. It lets GRUB read the
boot entries (``blscfg``), and then reads ``grub2/custom.cfg``. For a GRUB without that command,
bootc writes that file, which reads the generated menu.
"""

from __future__ import annotations

from collections.abc import Iterable

from bootc.fs.dir import Dir

STATIC_CONFIG = "grub2/grub.cfg"
#: grub.cfg can contain the hash of a password.
STATIC_CONFIG_MODE = 0o600
#: A file for additions, which all static configurations read last.
CUSTOM_CONFIG = "grub2/custom.cfg"
#: The variable with the menu, by which a configuration of ours is known.
_MARK = b"set bootc_menu="
_MAX_CONFIG_BYTES = 1 << 20
_SERIAL_CONSOLE = "console=ttyS"

#: The variables that GRUB keeps from boot to boot, in a file of a fixed size: GRUB writes into it.
ENVIRONMENT = "grubenv"
EMPTY_ENVIRONMENT = b"# GRUB Environment Block\n".ljust(1024, b"#")

#: The configuration that tells entries of unified kernel images where the ESP is.
ESP_UUID = "efiuuid.cfg"

_SERIAL = """\
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
"""
#: ``insmod`` is true as a condition even if it fails, so the module and Secure Boot are looked at.
_STATIC = """\
set timeout=1
set timeout_style=menu
set default=0
if [ -d ($root)/boot/loader ]; then set bootc_boot=/boot; else set bootc_boot=; fi
set bootc_menu=($root)$bootc_boot/loader/entries
if [ -s $prefix/grubenv ]; then load_env; fi
if [ -n "${next_entry}" ]; then
  set default="${next_entry}"
  set next_entry=
  save_env next_entry
fi
if [ -f $bootc_menu/grub.cfg ]; then
  source $bootc_menu/grub.cfg
elif [ -f $prefix/$grub_cpu-$grub_platform/blsuki.mod -a "$lockdown" != y ]; then
  insmod blsuki
  blscfg --path $bootc_boot/loader/entries
elif [ -f $prefix/bootc-last.cfg ]; then
  source $prefix/bootc-last.cfg
fi
if [ -f ${config_directory}/user.cfg ]; then source ${config_directory}/user.cfg; fi
if [ -f $prefix/custom.cfg ]; then source $prefix/custom.cfg; fi
"""

#: The menu of unified kernel images, if there is one, comes first in bootupd's configuration, and
#: only that menu sets the variable with the UUID of the ESP.
_CUSTOM = """\
# Written by bootc: the GRUB of this system reads no boot entries, but a menu made of them.
if [ -d ($root)/boot/loader ]; then set bootc_boot=/boot; else set bootc_boot=; fi
set bootc_menu=($root)$bootc_boot/loader/entries
if [ -f $bootc_menu/grub.cfg ]; then
  source $bootc_menu/grub.cfg
elif [ -f $prefix/bootc-last.cfg ]; then
  source $prefix/bootc-last.cfg
fi
if [ -n "${bootc_first}" -a -z "${EFI_PART_UUID}" ]; then set default="bootc-${bootc_first}"; fi
"""


def static_config(kernel_arguments: Iterable[str]) -> bytes:
    """Return the static configuration.

    Args:
        kernel_arguments: If the kernel has a serial console, GRUB gets it as well.
    """
    serial = any(argument.startswith(_SERIAL_CONSOLE) for argument in kernel_arguments)
    return ((_SERIAL if serial else "") + _STATIC).encode()


def custom_config(present: bytes) -> bytes:
    """Return the content of :data:`CUSTOM_CONFIG` that has GRUB read the generated menu.

    Args:
        present: The content that the file has. It is kept.
    """
    return (present.rstrip(b"\n") + b"\n" if present else b"") + _CUSTOM.encode()


def esp_uuid_config(uuid: str, *mirrors: str) -> bytes:
    """Return the content of :data:`ESP_UUID`, for one ESP as upstream bootc writes it.

    Args:
        uuid: The UUID of the file system of the ESP, as ``blkid`` prints it.
        mirrors: Those of its mirrors. GRUB uses the first ESP that exists.
    """
    lines = [f'set EFI_PART_UUID="{uuid}"']
    for mirror in mirrors:
        lines += [
            f"search --no-floppy --fs-uuid --set=bootc_esp {uuid}",
            f'if [ -z "${{bootc_esp}}" ]; then set EFI_PART_UUID="{mirror}"; fi',
        ]
        uuid = mirror
    return "\n".join(lines).encode()


def stub(boot_uuid: str) -> bytes:
    """Return the configuration beside the EFI program. It reads the static configuration.

    Args:
        boot_uuid: The UUID of the file system with ``boot``, as ``blkid`` prints it.
    """
    return (
        f"{_search(boot_uuid)}"
        "if [ -d ($root)/grub2 ]; then set prefix=($root)/grub2; "
        "else set prefix=($root)/boot/grub2; fi\n"
        "configfile $prefix/grub.cfg\n"
    ).encode()


def early_config(boot_uuid: str, *, separate_boot: bool) -> bytes:
    """Return the configuration inside the BIOS program, which then reads the static one itself.

    GRUB reads it before it has a language: it has commands only.

    Args:
        boot_uuid: As for :func:`stub`.
        separate_boot: ``/boot`` is a file system of its own.
    """
    directory = "/grub2" if separate_boot else "/boot/grub2"
    return f"{_search(boot_uuid)}set prefix=($root){directory}\n".encode()


def reads_generated_menu(boot: Dir) -> bool:
    """Tell whether the configuration in a boot directory reads a generated menu.

    Raises:
        OSError: it cannot be read.
    """
    return any(_MARK in read_config(boot, path) for path in (STATIC_CONFIG, CUSTOM_CONFIG))


def read_config(boot: Dir, path: str) -> bytes:
    """Return the content of a configuration file in a boot directory; empty if there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return boot.read_bytes(path, _MAX_CONFIG_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _search(boot_uuid: str) -> str:
    return f"search --no-floppy --fs-uuid --set=root {boot_uuid}\n"
