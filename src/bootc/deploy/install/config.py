"""Install configuration: files on the installing system that say how to install.

The files are ``bootc/install/*.toml`` below ``/usr/lib``, ``/usr/local/lib``, ``/etc`` and
``/run``. A file replaces a file of the same name in an earlier directory; a symlink to
``/dev/null`` removes it. The remaining files apply in the order of their names: a later
scalar wins, lists of kernel arguments grow.

Promises: an unknown key inside a table of ours is an error, because it is probably a spelling
mistake; elsewhere it is a warning. Keys for functions that this program does not have
(ostree, bootupd, an existing root) are checked and ignored. Unlike in upstream's composefs
backend, ``kargs`` takes effect: a missing kernel argument can make a machine unreachable.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bootc.deploy.install.partition import parse_size
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
BOOTLOADERS = ("grub", "grub-cc", "systemd", "none")

#: A key of this program.
_ESP_SIZE = "esp-size"
#: A smaller ESP has no room for two kernels.
_MIN_ESP_SIZE_MIB = 128
_SIGPOLICY = "enforce-container-sigpolicy"
#: The keys of a table, each with its type or its own table.
_Schema = Mapping[str, "type | _Schema"]
_INSTALL: _Schema = {
    "root-fs-type": str,
    "filesystem": {"root": {"type": str}},
    "block": list,
    "kargs": list,
    "karg-deletes": list,
    "match-architectures": list,
    "ostree": {"bls-append-except-default": str},
    "stateroot": str,
    "root-mount-spec": str,
    "boot-mount-spec": str,
    "bootupd": {"skip-boot-uuid": bool},
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
    bootloader: str | None = None
    discoverable_partitions: bool | None = None
    enforce_sigpolicy: bool = False
    esp_size_mib: int | None = None


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
    tables: list[Mapping[str, Any]] = []
    for path in _effective_files(root):
        with doing(f"Reading {path}"), open(open_regular(path), "rb", buffering=0) as file:
            table = parse_config(read_all(file.fileno(), path, _MAX_BYTES), path)
        if table is None:
            continue
        machines = table.get("match-architectures")
        if machines is None or machine in machines:
            tables.append(table)
    return merge(tables) if tables else None


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
    _check_choice("install.root-fs-type", FILESYSTEMS, table.get("root-fs-type"))
    _check_choice("install.filesystem.root.type", FILESYSTEMS, _nested_type(table))
    _check_choice("install.bootloader", BOOTLOADERS, table.get("bootloader"))
    if _ESP_SIZE in table:
        _esp_size(table[_ESP_SIZE])
    for setup in table.get("block", ()):
        _check_choice("install.block", BLOCK_SETUPS, setup)
    if table.get("block") == []:
        raise ConfigError("install.block allows no block setup at all")
    for karg in table.get("kargs", ()):
        _check_karg(karg)
    return table


def merge(tables: Sequence[Mapping[str, Any]]) -> InstallConfig:
    """Merge checked tables. A later table wins."""

    def last(values: Sequence[Any]) -> Any:
        return next((value for value in reversed(values) if value is not None), None)

    # The nested spelling wins over the flat one, whichever file it is in.
    nested = last([_nested_type(table) for table in tables])
    block = last([table.get("block") for table in tables])
    return InstallConfig(
        root_fs_type=nested or last([table.get("root-fs-type") for table in tables]),
        block=tuple(block) if block else DEFAULT_BLOCK_SETUPS,
        kargs=tuple(karg for table in tables for karg in table.get("kargs", ())),
        bootloader=last([table.get("bootloader") for table in tables]),
        discoverable_partitions=last([t.get("discoverable-partitions") for t in tables]),
        esp_size_mib=_esp_size(last([table.get(_ESP_SIZE) for table in tables])),
        enforce_sigpolicy=last([t.get(_SIGPOLICY) for t in tables]) or False,
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


def _check_karg(text: str) -> None:
    try:
        cmdline.check(text)
    except CmdlineError as exc:
        raise ConfigError(f"install.kargs: {exc.message}", hint=exc.hint) from None


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
    value: str | None = table.get("filesystem", {}).get("root", {}).get("type")
    return value
