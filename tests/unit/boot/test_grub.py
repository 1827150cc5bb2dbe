from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot import grub
from bootc.fs.dir import Dir


@pytest.mark.parametrize(
    ("arguments", "serial"), [(["rw", "console=tty0"], False), (["console=ttyS0,115200"], True)]
)
def test_a_serial_console_of_the_kernel_is_one_of_grub(arguments: list[str], serial: bool) -> None:
    assert grub.static_config(arguments).startswith(b"serial --unit=0") is serial


def test_a_configuration_of_ours_is_known(tmp_path: Path) -> None:
    config = tmp_path / grub.STATIC_CONFIG
    with Dir.open(tmp_path) as boot:
        assert not grub.reads_generated_menu(boot)
        config.parent.mkdir()
        config.write_bytes(b"blscfg\n")
        assert not grub.reads_generated_menu(boot)
        config.write_bytes(grub.static_config([]) + b"# edited\n")
        assert grub.reads_generated_menu(boot)


@pytest.mark.parametrize(("present", "kept"), [(b"", b""), (b"set x=1", b"set x=1\n")])
def test_an_addition_to_the_configuration_of_bootupd_is_known(
    tmp_path: Path, present: bytes, kept: bytes
) -> None:
    custom = tmp_path / grub.CUSTOM_CONFIG
    custom.parent.mkdir()
    with Dir.open(tmp_path) as boot:
        (tmp_path / grub.STATIC_CONFIG).write_bytes(b"blscfg\nsource $prefix/custom.cfg\n")
        custom.write_bytes(present)
        assert not grub.reads_generated_menu(boot)
        custom.write_bytes(grub.custom_config(grub.read_config(boot, grub.CUSTOM_CONFIG)))
        assert custom.read_bytes().startswith(kept + b"# Written by bootc")
        assert grub.reads_generated_menu(boot)


def test_the_environment_has_the_size_that_grub_demands() -> None:
    assert len(grub.EMPTY_ENVIRONMENT) == 1024
    assert grub.EMPTY_ENVIRONMENT.startswith(b"# GRUB Environment Block\n#")


@pytest.mark.parametrize(("separate", "prefix"), [(False, "/boot/grub2"), (True, "/grub2")])
def test_the_early_configuration_is_commands_only(separate: bool, prefix: str) -> None:
    assert grub.early_config("1234", separate_boot=separate).decode().splitlines() == [
        "search --no-floppy --fs-uuid --set=root 1234",
        f"set prefix=($root){prefix}",
    ]


def test_unified_kernel_images_are_on_the_first_esp_that_exists() -> None:
    assert grub.esp_uuid_config("A") == b'set EFI_PART_UUID="A"'
    assert grub.esp_uuid_config("A", "B").decode().split("\n") == [
        'set EFI_PART_UUID="A"',
        "search --no-floppy --fs-uuid --set=bootc_esp A",
        'if [ -z "${bootc_esp}" ]; then set EFI_PART_UUID="B"; fi',
    ]
    assert grub.esp_uuid_config("A", "B", "C").decode().split("\n")[3:] == [
        "search --no-floppy --fs-uuid --set=bootc_esp B",
        'if [ -z "${bootc_esp}" ]; then set EFI_PART_UUID="C"; fi',
    ]
