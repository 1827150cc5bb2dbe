"""Install configuration: files on the installing system that say how to install.

The files are ``bootc/install/*.toml`` below ``/usr/lib``, ``/usr/local/lib``, ``/etc`` and
``/run``. A file replaces a file of the same name in an earlier directory; a symlink to
``/dev/null`` removes it. The remaining files apply in the order of their names: a later
scalar wins, lists of kernel arguments grow.

Promises: an unknown key inside a table of ours is an error, because it is probably a spelling
mistake; elsewhere it is a warning. The key for ostree, which this program does not have, is checked
and ignored. Unlike in upstream's composefs backend, ``kargs``,
``karg-deletes`` and ``stateroot`` take effect: a missing kernel argument can make a machine
unreachable.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bootc.boot.esp_size import parse_size
from bootc.errors import Error, doing
from bootc.formats import cmdline
from bootc.formats.cmdline import CmdlineError
from bootc.fs.dir import open_regular, read_all

_log = logging.getLogger(__name__)

#: Later directories override earlier ones.
_DIRECTORIES = ("usr/lib", "usr/local/lib", "etc", "run")
_BELOW = "bootc/install"
#: No real file is larger.
_MAX_BYTES = 1 << 20

FILESYSTEMS = ("xfs", "ext4", "btrfs")
BLOCK_SETUPS = ("direct", "tpm2-luks")
DEFAULT_BLOCK_SETUPS = ("direct",)
BOOTLOADERS = ("grub", "grub-cc", "systemd", "none", "ukiboot")

#: The one name of the directory with ``/var``; upstream's ostree backend has others.
STATEROOT = "default"

#: A key of this program.
_ESP_SIZE = "esp-size"
#: A smaller ESP has no room for two kernels.
_MIN_ESP_SIZE_MIB = 128
_FLAT_TYPE = "root-fs-type"
_SIGPOLICY = "enforce-container-sigpolicy"
_MACHINES = "match-architectures"
_BOOTUPD, _SKIP_BOOT_UUID = "bootupd", "skip-boot-uuid"
_KARGS = "kargs"
_KARG_DELETES = "karg-deletes"
#: Keys that upstream leaves out of its JSON if no file has them. Other keys are null.
_OMITTED_IF_ABSENT = (_KARGS, _KARG_DELETES, "bls-append-except-default", _ESP_SIZE)
#: The keys of a table, each with its type or its own table.
_Schema = Mapping[str, "type | _Schema"]
_INSTALL: _Schema = {
    _FLAT_TYPE: str,
    "filesystem": {"root": {"type": str}},
    "block": list,
    _KARGS: list,
    _KARG_DELETES: list,
    _MACHINES: list,
    "ostree": {"bls-append-except-default": str},
    "stateroot": str,
    "root-mount-spec": str,
    "boot-mount-spec": str,
    _BOOTUPD: {_SKIP_BOOT_UUID: bool},
    "bootloader": str,
    "discoverable-partitions": bool,
    _ESP_SIZE: str,
    _SIGPOLICY: bool,
}
_TOML_NAMES = {str: "a string", list: "a list of strings", bool: "true or false"}


class ConfigError(Error):
    """An install configuration file is wrong."""


@dataclass(frozen=True, slots=True)
class InstallConfig:
    """The merged configuration of all files; ``None`` for keys that no file has."""

    root_fs_type: str | None = None
    block: tuple[str, ...] = DEFAULT_BLOCK_SETUPS
    kargs: tuple[str, ...] = ()
    karg_deletes: tuple[str, ...] = ()
    bootloader: str | None = None
    discoverable_partitions: bool | None = None
    enforce_sigpolicy: bool = False
    esp_size_mib: int | None = None
    stateroot: str | None = None
    root_mount_spec: str | None = None
    boot_mount_spec: str | None = None
    bootupd_skip_boot_uuid: bool = False


def read_config(machine: str, *, root: str = "/") -> InstallConfig | None:
    """Read the configuration of the running system; return None if there is no file.

    Args:
        machine: The architecture of this machine, as ``uname -m`` prints it. Files for other
            architectures are left out.
        root: The root of the four directories.

    Raises:
        ConfigError: a file is not TOML, or has an unknown key or value; or a directory is no
            directory.
        OSError: a file cannot be read.
    """
    merged = read_merged(machine, root=root)
    return None if merged is None else _as_config(merged)


def read_merged(machine: str, *, root: str = "/") -> dict[str, Any] | None:
    """Read the configuration as one table; return None if there is no file.

    Arguments and errors are those of :func:`read_config`.

    Returns:
        The table. Keys that no file has are None, or left out where upstream leaves them out.
        ``root-fs-type`` and ``filesystem.root.type`` have the same value, and ``block`` has its
        default.
    """
    tables: list[Mapping[str, Any]] = []
    for path in _effective_files(root):
        with doing(f"Reading {path}"), open(open_regular(path), "rb", buffering=0) as file:
            table = parse_config(read_all(file.fileno(), path, _MAX_BYTES), path)
        if table is None:
            continue
        machines = table.get(_MACHINES)
        if machines is None or machine in machines:
            tables.append(table)
    if not tables:
        return None
    merged = _merge(_INSTALL, tables)
    # The nested spelling wins over the flat one, whichever file it is in.
    if _nested_type(merged) is not None:
        merged[_FLAT_TYPE] = _nested_type(merged)
    elif merged[_FLAT_TYPE] is not None:
        merged["filesystem"] = {"root": {"type": merged[_FLAT_TYPE]}}
    if merged["block"] is None:
        merged["block"] = list(DEFAULT_BLOCK_SETUPS)
    return merged


def external_view(merged: Mapping[str, Any] | None, *, everything: bool) -> dict[str, Any]:
    """Return the configuration as ``install print-configuration`` prints it.

    Programs that make the file systems for ``install to-filesystem`` read it. The format is
    upstream's, with a further key ``esp-size`` if a file has it.

    Args:
        merged: The result of :func:`read_merged`.
        everything: Include the kernel arguments, which the installer itself applies.
    """
    table = _merge(_INSTALL, ()) if merged is None else merged
    hidden = () if everything else (_KARGS, _KARG_DELETES)
    return {key: value for key, value in table.items() if key not in hidden}


def parse_config(data: bytes, path: str) -> Mapping[str, Any] | None:
    """Return the checked ``[install]`` table of a file, or None if it has no such table.

    Raises:
        ConfigError: the file is not TOML, or has an unknown key or value.
    """
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"not TOML: {exc}") from exc
    except RecursionError:
        raise ConfigError("values are nested too deeply") from None
    for key in document.keys() - {"install"}:
        _log.warning('"%s": Unknown key %s', path, key)
    install = document.get("install")
    if install is None:
        return None
    table = _check_table(install, _INSTALL, "install")
    _check_choice(f"install.{_FLAT_TYPE}", FILESYSTEMS, table.get(_FLAT_TYPE))
    _check_choice("install.filesystem.root.type", FILESYSTEMS, _nested_type(table))
    _check_choice("install.bootloader", BOOTLOADERS, table.get("bootloader"))
    if _ESP_SIZE in table:
        _esp_size(table[_ESP_SIZE])
    for setup in table.get("block", ()):
        _check_choice("install.block", BLOCK_SETUPS, setup)
    if table.get("block") == []:
        raise ConfigError("install.block allows no block setup at all")
    for key in (_KARGS, _KARG_DELETES):
        for karg in table.get(key, ()):
            _check_karg(f"install.{key}", karg)
    return table


def _merge(schema: _Schema, tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge checked tables of one schema. A key that no table has is None, or left out.

    A later value wins. Lists of kernel arguments grow. The architectures are those of the first
    file, as in upstream, where nothing uses them any more.
    """
    merged: dict[str, Any] = {}
    for key, kind in schema.items():
        values = [table[key] for table in tables if key in table]
        if not values:
            if key not in _OMITTED_IF_ABSENT:
                merged[key] = None
        elif isinstance(kind, Mapping):
            merged[key] = _merge(kind, values)
        elif key in (_KARGS, _KARG_DELETES):
            merged[key] = [karg for value in values for karg in value]
        elif key == _MACHINES:
            merged[key] = tables[0].get(key)
        else:
            merged[key] = values[-1]
    return merged


def _as_config(merged: Mapping[str, Any]) -> InstallConfig:
    return InstallConfig(
        root_fs_type=merged[_FLAT_TYPE],
        block=tuple(merged["block"]),
        kargs=tuple(merged.get(_KARGS, ())),
        karg_deletes=tuple(merged.get(_KARG_DELETES, ())),
        bootloader=merged["bootloader"],
        discoverable_partitions=merged["discoverable-partitions"],
        enforce_sigpolicy=bool(merged[_SIGPOLICY]),
        esp_size_mib=_esp_size(merged.get(_ESP_SIZE)),
        stateroot=merged["stateroot"],
        root_mount_spec=merged["root-mount-spec"],
        boot_mount_spec=merged["boot-mount-spec"],
        bootupd_skip_boot_uuid=bool((merged[_BOOTUPD] or {}).get(_SKIP_BOOT_UUID)),
    )


def _effective_files(root: str) -> list[str]:
    found: dict[str, str] = {}
    for directory in _DIRECTORIES:
        path = os.path.join(root, directory, _BELOW)
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            raise ConfigError(
                f"{path} is not a directory, or lies below a file",
                hint="make it a directory of files *.toml, or remove it",
            ) from None
        for name in names:
            if name.endswith(".toml"):
                found[name] = os.path.join(path, name)
    return [path for _, path in sorted(found.items()) if not _is_mask(path)]


def _is_mask(path: str) -> bool:
    return os.path.islink(path) and os.readlink(path) == os.devnull


def _check_table(value: object, schema: _Schema, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table")
    for key, inside in value.items():
        expected = schema.get(key)
        name = f"{where}.{key}"
        if expected is None:
            raise ConfigError(f"unknown key {name}", hint=f"known are {', '.join(sorted(schema))}")
        if isinstance(expected, Mapping):
            _check_table(inside, expected, name)
        elif not isinstance(inside, expected) or (
            isinstance(inside, list) and not all(isinstance(item, str) for item in inside)
        ):
            raise ConfigError(f"{name} must be {_TOML_NAMES[expected]}")
    return value


def _check_choice(name: str, choices: Sequence[str], value: str | None) -> None:
    if value is not None and value not in choices:
        raise ConfigError(f"{name}: unknown value {value!r}", hint=f"one of {', '.join(choices)}")


def _check_karg(name: str, text: str) -> None:
    try:
        cmdline.check(text)
    except CmdlineError as exc:
        raise ConfigError(f"{name}: {exc.message}", hint=exc.hint) from None


def _esp_size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size_mib = parse_size(text)
    except ValueError as exc:
        raise ConfigError(f"install.{_ESP_SIZE}: {exc}") from None
    if size_mib < _MIN_ESP_SIZE_MIB:
        raise ConfigError(
            f"install.{_ESP_SIZE}: {text} is too small", hint=f"at least {_MIN_ESP_SIZE_MIB}M"
        )
    return size_mib


def _nested_type(table: Mapping[str, Any]) -> str | None:
    filesystem = table.get("filesystem") or {}
    value: str | None = (filesystem.get("root") or {}).get("type")
    return value
