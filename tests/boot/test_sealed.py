"""A sealed machine: signed boot loader and unified kernel images, Secure Boot with own keys.

It is installed once, and lives through an update and a rollback. Each attack changes a copy of
its disk while it is off, as somebody does who holds the disk. The console or the running system
show what came of it. Attacks that do not meet share a boot.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import budget
import pytest
from journeys import Journey, install
from sealed_machine import (
    CHANGED,
    INSTALL,
    MISSING,
    SECURE,
    UNPROTECTED,
    UNTOUCHED,
    Attacked,
    Sealed,
    enrol,
    live_through,
    object_path,
    seal_as_the_tutorial_says,
)
from system_checks import initramfs_log, slots

from bootc.formats import cmdline
from support import require, ukify, variants
from testbed import disks
from testbed.agent import Result
from testbed.demo_os import DemoOs
from testbed.machine import Machine
from testbed.qemu import find_qemu
from testbed.registry import Registry
from testbed.saved import Saved

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

#: What the machine runs where something of an attack is believed.
_BELIEVED = "/run/attack"
#: Creates a file when systemd-tmpfiles reads it.
_TMPFILES = f"f {_BELIEVED}-%s 0644 root root - attack\n"
#: A credential that systemd-sysctl takes, and the value that it would set.
_CREDENTIAL = "sysctl.extra"
_SETTING, _VALUE = "kernel/printk_ratelimit_burst", "77"
#: Images to update to that a sealed machine refuses, and what the refusal says.
REFUSED = {
    "s2-wrong": "The UKI has the wrong composefs= parameter",
    "s2-optional": "it tolerates missing fs-verity (composefs=?)",
    "s2-bare": "its kernel arguments are in a file on the boot partition",
}
#: How long three upgrades take that are refused, when each is looked for in every known way.
_REFUSALS_MINUTES = 20
#: How long two boots and an update take.
_WINDOW_MINUTES = 8
#: The name of an add-on, and of its argument.
_ADDON = "window"
#: What refuses s1 once the counter demands 2.
_TOO_OLD = " is 0, and the counter in the TPM requires 2"
_ACCESS_DENIED = r"(?i)access denied|security violation"


@pytest.fixture(scope="module")
def sealed(
    demo_os: DemoOs,
    live_machine: Saved,
    update_registry: Registry,
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sealed]:
    directory = tmp_path_factory.mktemp("sealed")
    first, keys = seal_as_the_tutorial_says(demo_os, directory)
    images = variants.build(demo_os, directory / "more", variants.SEALED, keys)
    images["s1"] = replace(images["s2"], tag="s1", **first)
    start = install(
        live_machine,
        update_registry,
        images["s1"],
        name="sealed",
        directory=directory,
        logs=logs,
        command=INSTALL,
    )
    # The machine where it will stand has no keys yet.
    shutil.copyfile(find_qemu().firmware_vars, directory / "own.vars")
    start = replace(start, firmware_vars=directory / "own.vars", secure_boot=True)
    enrol(start, logs)
    lived = live_through(start, images, keys, update_registry, directory, logs)
    yield lived
    lived.end.disk.unlink()


def test_it_lives_under_secure_boot(sealed: Sealed) -> None:
    first, second = sealed.images["s1"], sealed.images["s2"]
    assert sealed.secure == ["1", "0"]
    name = cmdline.composefs_karg(first.image_id.hex, optional=False, version="v1")
    assert name in sealed.cmdline.split()
    assert sealed.slots == {"s1": slots(first), "s2": slots(second, rollback=first)}


def test_what_lies_on_the_disk_cannot_weaken_it(sealed: Sealed, tmp_path: Path, logs: Path) -> None:
    attacked = sealed.copy(tmp_path)
    attacked.root.flip_byte(attacked.object_of(CHANGED), len(sealed.contents[CHANGED]) // 2)
    attacked.root.replace(attacked.object_of(UNPROTECTED), sealed.contents[UNPROTECTED])
    attacked.root.debugfs(f'rm "{attacked.object_of(MISSING)}"', write=True)
    # Without fs-verity, it says that the repository is insecure.
    meta = attacked.root.read("/composefs/meta.json")
    attacked.root.replace("/composefs/meta.json", meta)
    put_beside_the_kernel(attacked, tmp_path)
    with attacked.machine(logs / "sealed-weakened.txt") as machine:
        machine.wait_ready()
        # The attacker can keep a service from starting, by a credential as by damage.
        assert machine.wait_running() == "degraded"
        failed = machine.run("systemctl --failed --no-legend --plain").stdout.split("\n")
        assert {line.split()[0] for line in failed if line} == {"systemd-sysctl.service"}
        assert machine.run(f"cat /proc/sys/{_SETTING}").stdout.strip() != _VALUE
        check_nothing_was_believed(sealed, machine)
        for path in (CHANGED, UNPROTECTED, MISSING):
            result = machine.run(f"cat {path}", check=False)
            assert (result.rc, result.stdout_bytes in sealed.contents[path]) == (1, True), path
        assert machine.run(f"cat {UNTOUCHED}").stdout_bytes == sealed.contents[UNTOUCHED]


def test_the_menu_cannot_change_the_arguments(sealed: Sealed, tmp_path: Path, logs: Path) -> None:
    attacked = sealed.copy(tmp_path)
    attacked.root.debugfs('rm "/composefs/meta.json"', write=True)
    words = "options rd.break init=/bin/sh systemd.debug_shell attack\n"
    for path in attacked.esp.files():
        if path.startswith("loader/entries/"):
            attacked.esp.write(path, attacked.esp.read(path) + words.encode())
    attacked.esp.write("loader/loader.conf", b"timeout 0\neditor yes\n")
    # What the seal does not cover: the machine believes it, and shows it.
    attacked.root.replace(f"/state/deploy/{attacked.image('s1')}/etc/issue", b"attack\n")
    with attacked.machine(logs / "sealed-options.txt") as machine:
        machine.wait_ready()
        assert machine.wait_running() == "running"
        check_nothing_was_believed(sealed, machine)
        assert machine.run("cat /etc/issue").stdout == "attack\n"
        changes = json.loads(machine.run("bootc etc diff --json").stdout)["changes"]
        assert {"path": "issue", "change": "modified"} in changes


def check_nothing_was_believed(sealed: Sealed, machine: Machine) -> None:
    assert machine.run(SECURE).stdout.split() == ["1", "0"]
    assert "Secure Boot" not in initramfs_log(machine)
    assert machine.run("cat /proc/cmdline").stdout == sealed.cmdline
    assert machine.run(f"ls -d {_BELIEVED}*", check=False).stdout == ""
    options = machine.run("findmnt -no OPTIONS /").stdout.strip().split(",")
    assert {"ro", "verity=require"} <= set(options)


def put_beside_the_kernel(attacked: Attacked, scratch: Path) -> None:
    """Put on the ESP what the stub passes on: arguments, credentials, extensions."""
    addon = ukify.build(scratch / "attack.addon.efi", {"cmdline": "attack"}, stub="addon")
    directories = (f"{attacked.kernel}.extra.d", "loader/addons")
    for directory in directories:
        attacked.esp.write(f"{directory}/attack.addon.efi", addon.read_bytes())
    for directory in (directories[0], "loader/credentials"):
        setting = f"{_SETTING.replace('/', '.')} = {_VALUE}\n".encode()
        attacked.esp.write(f"{directory}/{_CREDENTIAL}.cred", setting)
    for kind, top in (("sysext", "usr/lib"), ("confext", "etc")):
        made = extension(scratch, kind, top)
        for directory in (directories[0], "loader/extensions"):
            attacked.esp.write(f"{directory}/attack.{kind}.raw", made)


def extension(scratch: Path, kind: str, top: str) -> bytes:
    """Make a system extension that writes a file when systemd-tmpfiles finds it."""
    tree, image = scratch / kind, scratch / f"attack.{kind}.raw"
    for name, text in (
        ("extension-release.d/extension-release.attack", "ID=_any\n"),
        ("tmpfiles.d/attack.conf", _TMPFILES % kind),
    ):
        path = tree / top / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    argv = [require.tool("mkfs.erofs"), "--quiet", str(image), str(tree)]
    subprocess.run(argv, check=True, capture_output=True)
    return image.read_bytes()


def change_the_image(attacked: Attacked) -> None:
    path = object_path(attacked.image("s1"))
    attacked.root.flip_byte(path, len(attacked.root.read(path)) // 2)


def exchange_the_image(attacked: Attacked) -> None:
    link_image(attacked, object_path(attacked.image("s2")).replace("/composefs", "..", 1))


def link_a_reference(attacked: Attacked) -> None:
    link_image(attacked, "refs/attack")
    attacked.root.debugfs(
        'mkdir "/composefs/images/refs"',
        f'symlink "/composefs/images/refs/attack" "../{attacked.image("s2")}"',
        write=True,
    )


def link_image(attacked: Attacked, target: str) -> None:
    link = f"/composefs/images/{attacked.image('s1')}"
    attacked.root.debugfs(f'rm "{link}"', f'symlink "{link}" "{target}"', write=True)


@pytest.mark.parametrize(
    ("attack", "cause"),
    [
        (change_the_image, "fs-verity: data corrupted"),
        (exchange_the_image, "fs-verity: digest mismatch"),
        (link_a_reference, "fs-verity: digest mismatch"),
    ],
)
def test_another_image_stops_the_boot(
    sealed: Sealed, attack: object, cause: str, tmp_path: Path, logs: Path
) -> None:
    attacked = sealed.copy(tmp_path)
    assert callable(attack)
    attack(attacked)
    with attacked.machine(logs / f"sealed-{getattr(attack, '__name__', '')}.txt") as machine:
        machine.wait_console(r"(?s)You are in emergency mode.*Press Enter to continue")
        said = machine.console_text()
    assert cause in said, said[-4000:]
    assert "Reached target initrd-switch-root.target" not in said
    assert "the root account is locked" in said


def own_kernel(attacked: Attacked, scratch: Path) -> bytes:
    """Make an unsigned unified kernel image."""
    content = attacked.esp.read(attacked.kernel)
    unsigned, signed = scratch / "unsigned.efi", scratch / "signed.efi"
    signed.write_bytes(content)
    shutil.copyfile(signed, unsigned)
    argv = [require.tool("sbattach"), "--remove", str(unsigned)]
    subprocess.run(argv, check=True, capture_output=True)
    return unsigned.read_bytes()


def changed_arguments(attacked: Attacked, scratch: Path) -> bytes:
    """Change the command line in the signed unified kernel image."""
    content = attacked.esp.read(attacked.kernel)
    image = attacked.image("s1").encode()
    assert content.count(image) == 1
    return content.replace(image, image[::-1])


@pytest.mark.parametrize("attack", [own_kernel, changed_arguments])
def test_a_kernel_without_a_valid_signature_is_not_started(
    sealed: Sealed, attack: object, tmp_path: Path, logs: Path
) -> None:
    attacked = sealed.copy(tmp_path)
    assert callable(attack)
    attacked.esp.write(attacked.kernel, attack(attacked, tmp_path))
    with attacked.machine(logs / f"sealed-{getattr(attack, '__name__', '')}.txt") as machine:
        machine.wait_console(_ACCESS_DENIED, before_kernel=True)
        assert "Linux version" not in machine.console_text()


@pytest.fixture(scope="module")
def refusals(
    sealed: Sealed, update_registry: Registry, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Result]:
    """What the machine answers to each image of ``REFUSED``."""
    if not budget.is_left(_REFUSALS_MINUTES):
        budget.skip_rest(0, len(REFUSED))
    answers = {}
    directory = tmp_path_factory.mktemp("refusals")
    with Journey(
        sealed.end, update_registry, name="sealed-refusals", directory=directory, logs=logs
    ) as journey:
        assert journey.boot() == "running"
        for tag in REFUSED:
            journey.publish(sealed.images[tag])
            answers[tag] = journey.bootc("upgrade", check=False)
        assert journey.slots() == slots(sealed.images["s1"], rollback=sealed.images["s2"])
    return answers


@pytest.mark.parametrize("tag", REFUSED)
def test_an_image_that_would_protect_less_is_refused(refusals: dict[str, Result], tag: str) -> None:
    assert refusals[tag].rc == 1
    assert REFUSED[tag] in refusals[tag].stderr


@pytest.fixture(scope="module")
def guarded(
    sealed: Sealed, update_registry: Registry, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sealed]:
    """The machine with a counter in its TPM, which s3 has raised. s1 and s2 are still there.

    It also has a signed add-on of the administrator, which s3 gets from s1.
    """
    if not budget.is_left(_WINDOW_MINUTES):
        budget.skip_rest(0, 1)
    directory = tmp_path_factory.mktemp("window")
    start = replace(sealed.end, tpm=directory / "tpm")
    with Journey(
        start, update_registry, name="sealed-window", directory=directory, logs=logs
    ) as journey:
        assert journey.boot() == "running"
        journey.bootc("security-version enable-counter")
        journey.machine.run(
            f"cat >/run/{_ADDON}.addon.efi",
            input_bytes=signed_addon(sealed, directory, f"{_ADDON}=1"),
        )
        journey.bootc(f"addon add /run/{_ADDON}.addon.efi")
        journey.bootc("pin rollback")
        journey.publish(sealed.images["s3"])
        journey.bootc("upgrade")
        assert journey.reboot() == "running"
        journey.machine.run("systemctl start bootc-security-counter.service")
        assert journey.status()["status"]["rollbackWindow"] == {"minimum": 2, "counter": 2}
        words = journey.machine.run("cat /proc/cmdline").stdout.split()
        assert words[-1] == f"{_ADDON}=1"
        for command in ("rollback", "rollback --allow-weaker"):
            refusal = journey.bootc(command, check=False)
            assert (refusal.rc, _TOO_OLD in refusal.stderr) == (1, True), refusal
        journey.publish(sealed.images["s1"])
        refusal = journey.bootc("upgrade", check=False)
        assert (refusal.rc, _TOO_OLD in refusal.stderr) == (1, True), refusal
        assert journey.slots() == slots(sealed.images["s3"], rollback=sealed.images["s1"])
        journey.shut_down()
        disk = disks.copy(journey.disk, directory / "guarded.img")
        firmware_vars = Path(shutil.copyfile(journey.firmware_vars, directory / "guarded.vars"))
    yield replace(sealed, end=replace(start, disk=disk, firmware_vars=firmware_vars))
    disk.unlink()


def signed_addon(sealed: Sealed, scratch: Path, arguments: str) -> bytes:
    """Make an add-on with kernel arguments that the firmware trusts."""
    unsigned, signed = scratch / "unsigned.addon.efi", scratch / "signed.addon.efi"
    ukify.build(unsigned, {"cmdline": arguments}, stub="addon")
    sealed.keys.sbsign(str(unsigned), str(signed))
    return signed.read_bytes()


def test_an_image_that_is_too_old_does_not_boot(
    guarded: Sealed, tmp_path: Path, logs: Path
) -> None:
    attacked = guarded.copy(tmp_path)
    attacked.remove_entries("s3", "s2")
    with attacked.machine(logs / "sealed-too-old.txt") as machine:
        machine.wait_console(r"(?s)You are in emergency mode.*Press Enter to continue")
        said = machine.console_text()
    assert _TOO_OLD in said, said[-4000:]
    assert "boot a newer entry of the boot menu" in said


def test_an_older_image_inside_the_window_boots(
    guarded: Sealed, tmp_path: Path, logs: Path
) -> None:
    attacked = guarded.copy(tmp_path)
    attacked.remove_entries("s3", "s1")
    with attacked.machine(logs / "sealed-older.txt") as machine:
        machine.wait_ready()
        assert machine.wait_running() == "running"
        status = json.loads(machine.run("bootc status --json").stdout)["status"]
    assert status["booted"]["composefs"]["verity"] == attacked.image("s2")
    assert status["booted"]["composefs"]["securityVersion"]["version"] == 2
    assert status["rollbackWindow"] == {"minimum": 0, "counter": 2}
