from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from bootc.deploy.install.config import (
    ConfigError,
    InstallConfig,
    external_view,
    parse_config,
    read_config,
    read_merged,
)
from bootc.errors import one_line


def put(root: Path, directory: str, name: str, text: str) -> None:
    path = root / directory / "bootc/install"
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(text)


def read(root: Path, machine: str = "x86_64") -> InstallConfig | None:
    return read_config(machine, root=str(root))


def test_no_file_is_no_configuration(tmp_path: Path) -> None:
    assert read(tmp_path) is None


def test_a_file_without_our_table_is_no_configuration(tmp_path: Path) -> None:
    put(tmp_path, "etc", "10.toml", "[other]\nkey = 1\n")
    assert read(tmp_path) is None


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    put(
        tmp_path,
        "usr/lib",
        "00-all.toml",
        """
        [install]
        root-fs-type = "ext4"
        block = ["direct", "tpm2-luks"]
        kargs = ["console=ttyS0", "quiet"]
        karg-deletes = ["rhgb"]
        match-architectures = ["x86_64", "aarch64"]
        stateroot = "default"
        root-mount-spec = "LABEL=root"
        boot-mount-spec = ""
        bootloader = "systemd"
        discoverable-partitions = true
        enforce-container-sigpolicy = true
        esp-size = "3G"
        [install.ostree]
        bls-append-except-default = "x"
        [install.bootupd]
        skip-boot-uuid = true
        """,
    )
    assert read(tmp_path) == InstallConfig(
        root_fs_type="ext4",
        block=("direct", "tpm2-luks"),
        kargs=("console=ttyS0", "quiet"),
        karg_deletes=("rhgb",),
        bootloader="systemd",
        discoverable_partitions=True,
        enforce_sigpolicy=True,
        esp_size_mib=3072,
        stateroot="default",
        root_mount_spec="LABEL=root",
        boot_mount_spec="",
        bootupd_skip_boot_uuid=True,
    )


def test_the_last_file_decides_on_signatures(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib", "10.toml", "[install]\nenforce-container-sigpolicy = true\n")
    put(tmp_path, "usr/lib", "20.toml", "[install]\n")
    assert read(tmp_path) == InstallConfig(enforce_sigpolicy=True)
    put(tmp_path, "etc", "30.toml", "[install]\nenforce-container-sigpolicy = false\n")
    assert read(tmp_path) == InstallConfig()


def test_files_merge_in_the_order_of_their_names_not_of_their_directories(tmp_path: Path) -> None:
    put(tmp_path, "run", "10-a.toml", '[install]\nroot-fs-type = "xfs"\nkargs = ["a"]\n')
    put(tmp_path, "usr/lib", "20-b.toml", '[install]\nroot-fs-type = "ext4"\nkargs = ["b"]\n')
    put(tmp_path, "etc", "30-c.toml", '[install]\nkargs = ["c"]\n')
    config = read(tmp_path)
    assert config is not None
    assert config.root_fs_type == "ext4"
    assert config.kargs == ("a", "b", "c")


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("usr/lib", "usr/local/lib"), ("usr/local/lib", "etc"), ("etc", "run")],
)
def test_a_later_directory_replaces_a_file_of_the_same_name(
    tmp_path: Path, earlier: str, later: str
) -> None:
    put(tmp_path, earlier, "10.toml", '[install]\nroot-fs-type = "xfs"\nkargs = ["gone"]\n')
    put(tmp_path, later, "10.toml", '[install]\nroot-fs-type = "btrfs"\n')
    assert read(tmp_path) == InstallConfig(root_fs_type="btrfs")


def test_a_symlink_to_dev_null_masks(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib", "10.toml", "this is not even TOML")
    put(tmp_path, "usr/lib", "20.toml", '[install]\nroot-fs-type = "xfs"\n')
    (tmp_path / "etc/bootc/install").mkdir(parents=True)
    (tmp_path / "etc/bootc/install/10.toml").symlink_to("/dev/null")
    assert read(tmp_path) == InstallConfig(root_fs_type="xfs")


def test_other_files_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, "etc", "README", "no TOML")
    put(tmp_path, "etc", "10.toml.bak", "no TOML")
    assert read(tmp_path) is None


def test_files_for_other_machines_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "etc", "10.toml", '[install]\nroot-fs-type = "xfs"\n')
    put(
        tmp_path,
        "etc",
        "20.toml",
        '[install]\nroot-fs-type = "ext4"\nmatch-architectures = ["aarch64"]\n',
    )
    assert read(tmp_path) == InstallConfig(root_fs_type="xfs")
    assert read(tmp_path, "aarch64") == InstallConfig(root_fs_type="ext4")


@pytest.mark.parametrize(
    "text",
    [
        '[install]\nroot-fs-type = "xfs"\n[install.filesystem.root]\ntype = "btrfs"\n',
        '[install.filesystem.root]\ntype = "btrfs"\n',
    ],
)
def test_the_nested_file_system_type_wins(tmp_path: Path, text: str) -> None:
    put(tmp_path, "etc", "10.toml", text)
    put(tmp_path, "etc", "20.toml", '[install]\nroot-fs-type = "ext4"\n')
    assert read(tmp_path) == InstallConfig(root_fs_type="btrfs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[install", "not TOML"),
        ("install = 1", "install must be a table"),
        ("[install]\nroot-fs = 'x'", "unknown key install.root-fs"),
        ("[install.filesystem]\nboot = 1", "unknown key install.filesystem.boot"),
        ("[install.filesystem.root]\nkind = 'x'", "unknown key install.filesystem.root.kind"),
        ("[install.ostree]\nx = 1", "unknown key install.ostree.x"),
        ("[install.bootupd]\nx = 1", "unknown key install.bootupd.x"),
        ("[install]\nfilesystem = 'ext4'", "install.filesystem must be a table"),
        ("[install]\nkargs = 'quiet'", "install.kargs must be a list of strings"),
        ("[install]\nkarg-deletes = ['composefs']", "install.karg-deletes: the kernel argument"),
        ("[install]\nkargs = [1]", "install.kargs must be a list of strings"),
        ("[install]\nkargs = ['a=\"']", "install.kargs: bad kernel argument 'a=\"'"),
        ('[install]\nkargs = ["a\\nb"]', "install.kargs: bad kernel argument"),
        (
            "[install]\nkargs = ['quiet', '\"composefs=x\"']",
            "is not yours to set",
        ),
        (f"x = {'[' * 100_000}", "values are nested too deeply"),
        ("[install]\nroot-fs-type = 4", "install.root-fs-type must be a string"),
        ("[install]\ndiscoverable-partitions = 'yes'", "must be true or false"),
        ("[install]\nroot-fs-type = 'vfat'", "install.root-fs-type: unknown value 'vfat'"),
        ("[install.filesystem.root]\ntype = 'zfs'", "unknown value 'zfs'"),
        ("[install]\nblock = ['lvm']", "install.block: unknown value 'lvm'"),
        ("[install]\nblock = []", "install.block allows no block setup at all"),
        ("[install]\nesp-size = 2048", "install.esp-size must be a string"),
        ("[install]\nesp-size = '2 pounds'", "install.esp-size: not a size: '2 pounds'"),
        ("[install]\nesp-size = '64M'", "install.esp-size: 64M is too small"),
        ("[install]\nbootloader = 'lilo'", "install.bootloader: unknown value 'lilo'"),
    ],
)
def test_mistakes_are_named_with_their_file(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "etc", "10.toml", text)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path)
    line = one_line(caught.value)
    assert message in line
    assert str(tmp_path / "etc/bootc/install/10.toml") in line


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        parse_config(b"[install]\nstateroot = '\xff'\n", "x.toml")


def test_unknown_tables_of_others_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert parse_config(b"[install]\n[vendor]\nx = 1\n", "/etc/x.toml") == {}
    assert caplog.messages == ['"/etc/x.toml": Unknown key vendor']


@pytest.mark.parametrize("name", ["etc/bootc/install", "run/bootc", "usr/lib"])
def test_a_file_in_the_way_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("[install]\n")
    with pytest.raises(ConfigError, match="is not a directory, or lies below a file"):
        read(tmp_path)


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "etc/bootc/install/10.toml").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught:
        read(tmp_path)
    assert caught.value.__notes__ == [f"Reading {tmp_path}/etc/bootc/install/10.toml"]


def test_a_fifo_in_place_of_a_file_is_an_error_and_no_wait(tmp_path: Path) -> None:
    directory = tmp_path / "etc/bootc/install"
    directory.mkdir(parents=True)
    os.mkfifo(directory / "10.toml")
    with pytest.raises(OSError, match="not a regular file") as caught:
        read_config("x86_64", root=str(tmp_path))
    assert caught.value.filename == str(directory / "10.toml")
    (directory / "10.toml").unlink()
    (directory / "10.toml").touch()
    os.truncate(directory / "10.toml", 1 << 40)
    with pytest.raises(OSError, match="larger than"):
        read_config("x86_64", root=str(tmp_path))


#: What upstream prints without a file.
NULLS = dict.fromkeys(
    (
        "block",
        "boot-mount-spec",
        "bootloader",
        "bootupd",
        "discoverable-partitions",
        "enforce-container-sigpolicy",
        "filesystem",
        "match-architectures",
        "ostree",
        "root-fs-type",
        "root-mount-spec",
        "stateroot",
    )
)


def test_the_view_without_a_file(tmp_path: Path) -> None:
    merged = read_merged("x86_64", root=str(tmp_path))
    assert external_view(merged, everything=False) == NULLS
    assert external_view(merged, everything=True) == NULLS


def test_the_view_of_several_files(tmp_path: Path) -> None:
    put(
        tmp_path,
        "usr/lib",
        "10.toml",
        """
        [install]
        root-fs-type = "xfs"
        kargs = ["a"]
        match-architectures = ["x86_64"]
        [install.ostree]
        """,
    )
    put(
        tmp_path,
        "etc",
        "20.toml",
        """
        [install]
        kargs = ["b"]
        karg-deletes = ["c"]
        esp-size = "3G"
        match-architectures = ["x86_64", "aarch64"]
        [install.bootupd]
        """,
    )
    merged = read_merged("x86_64", root=str(tmp_path))
    expected = NULLS | {
        "block": ["direct"],
        "bootupd": {"skip-boot-uuid": None},
        "esp-size": "3G",
        "filesystem": {"root": {"type": "xfs"}},
        "match-architectures": ["x86_64"],
        "ostree": {},
        "root-fs-type": "xfs",
    }
    assert external_view(merged, everything=False) == expected
    arguments = {"kargs": ["a", "b"], "karg-deletes": ["c"]}
    assert external_view(merged, everything=True) == expected | arguments


def test_the_view_has_both_spellings_of_the_file_system(tmp_path: Path) -> None:
    put(tmp_path, "etc", "10.toml", '[install.filesystem.root]\ntype = "btrfs"\n')
    put(tmp_path, "etc", "20.toml", '[install]\nroot-fs-type = "ext4"\n')
    view = external_view(read_merged("x86_64", root=str(tmp_path)), everything=False)
    assert (view["root-fs-type"], view["filesystem"]) == ("btrfs", {"root": {"type": "btrfs"}})
