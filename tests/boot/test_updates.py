"""Years of a machine in minutes: updated, changed, updated again, rolled back, cleaned up.

One system, from its installation to its fifth boot, with Type #1 entries and with unified
kernel images. The image's name in os-release changes on the way, its version goes from 9 to
10, and its kernels change twice.

The disk is as upstream's installation leaves one: ``meta.json`` has no fs-verity. What upstream
and earlier versions of this project may leave in menus lies there at the first shutdown.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import budget
import pytest
from journeys import ESP, FINALIZE_UNIT, Images, Installed, Journey
from stations import measure
from system_checks import assert_clean, brought_by, default_entry, kernels, slots, states

from support.variants import CHANGED_DEFAULT, CONFLICT, REMOVED_DEFAULT, Variant
from testbed.registry import Registry
from testbed.tamper import root_filesystem

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

#: What another system has on the same ESP.
FOREIGN = {
    "loader/entries/other.conf": "title Another system\nefi /EFI/other/other.efi\n",
    "EFI/other/other.efi": "not for us\n",
}
META = "/composefs/meta.json"
HAS_VERITY = f"lsattr -l /sysroot{META} | grep -q Verity"
#: What earlier versions left in a live menu, and upstream in a staged one: an entry of an
#: earlier staging, which a loader would show first.
OLD_MARK = f"{ESP}/loader/entries/.bootc-staged"
STALE_ENTRY = f"{ESP}/loader/entries.staged/bootc_aaa-1-1.conf"
STALE_ID = "ab" * 64
#: Added to the boot entry by hand.
LOCAL_KARG = "local.argument=1"
SET_XATTR = "import os; os.setxattr('/etc/mine', 'user.mine', b'yes')"
GET_XATTR = "import os; print(os.getxattr('/etc/mine', 'user.mine').decode())"
CONFLICT_LINE = "local\n"


def test_a_life_of_updates(
    installation: Installed,
    update_registry: Registry,
    images: Images,
    logs: Path,
    tmp_path: Path,
) -> None:
    name = f"updates-{images['1'].tag}"
    with Journey(
        installation, update_registry, name=name, directory=tmp_path, logs=logs
    ) as journey:
        root = root_filesystem(journey.disk)
        root.replace(META, root.read(META))
        assert journey.boot() == "running"
        assert journey.machine.run(HAS_VERITY, check=False).rc == 1
        booted = journey.status()["status"]["booted"]["composefs"]
        assert booted["bootType"] == ("Uki" if images["1"].is_uki else "Bls")
        put_foreign(journey)
        done = 0
        for part in PARTS:
            if done and not budget.is_left():
                break
            part(journey, images)
            done += 1
    budget.skip_rest(done, len(PARTS))


def from_first_to_second(journey: Journey, images: Images) -> None:
    """Download, hold back, release, drop, stage, finalize, boot."""
    machine = journey.machine
    v1, v2 = images["1"], images["2"]
    before = journey.esp_files()
    journey.publish(v2)
    for looking in ("etc diff", "upgrade --dry-run", "internals composefs-gc --dry-run"):
        journey.bootc(looking)
    check = journey.bootc("upgrade --check").stdout
    assert check.startswith(f"Update available for: {journey.reference()}\n"), check
    assert f"  Digest: {v2.manifest_digest}\n" in check
    booted = journey.status()["status"]["booted"]
    assert booted["cachedUpdate"]["imageDigest"] == str(v2.manifest_digest)
    assert journey.esp_files() == before
    assert machine.run(HAS_VERITY, check=False).rc == 1

    adopted = "Adopted /sysroot/composefs: fs-verity is enabled on its meta.json, too.\n"
    assert adopted in journey.bootc("upgrade --download-only").stdout
    machine.run(HAS_VERITY)
    assert journey.slots() == slots(v1, staged=v2)
    assert journey.status()["status"]["staged"]["downloadOnly"] is True
    # What the shutdown would do.
    machine.run(f"systemctl stop {FINALIZE_UNIT}")
    assert default_entry(journey) == v1.image_id.hex
    journey.bootc("upgrade --cancel")
    assert journey.slots() == slots(v1)
    assert journey.esp_files() == before
    assert states(journey) == {v1.image_id.hex}
    assert_clean(journey)

    if not v1.is_uki:
        machine.run(f"sed -i '/^options/s/$/ {LOCAL_KARG}/' {ESP}/loader/entries/bootc_*.conf")
    journey.bootc("upgrade --download-only")
    journey.bootc("upgrade --from-downloaded")
    staged = journey.status()["status"]["staged"]
    assert staged["downloadOnly"] is False
    assert staged["image"]["version"] == v2.version
    assert staged["composefs"]["bootDigest"] == v1.boot_digest == v2.boot_digest
    # One kernel for both, but for unified images.
    assert kernels(journey) == brought_by(v1, v1, v2)
    repeated = journey.bootc("upgrade").stdout
    assert repeated == "Update already staged. To apply update run `bootc update --apply`\n"

    machine.run(
        "echo mine >/etc/mine; chmod 600 /etc/mine\n"
        f"python3 -c {shlex.quote(SET_XATTR)}\n"
        "ln -s mine /etc/mine.link; rm /etc/issue.net; chmod 700 /etc/kernel"
    )
    leave_what_others_leave(journey, v2)
    assert journey.slots() == slots(v1, staged=v2)

    assert journey.reboot() == "running"
    machine = journey.machine
    log = machine.run(f"journalctl --boot=-1 --unit={FINALIZE_UNIT} --output=cat").stdout
    assert f"Deployment {v2.image_id} boots next" in log.splitlines()
    assert "Adopted" not in log
    assert journey.slots() == slots(v2, rollback=v1)
    assert not any(STALE_ID in entry for entry in journey.esp_entries().values())
    assert not any("staged" in path for path in journey.esp_files())
    assert_runs(journey, v2)
    assert machine.run(f"cat /{CHANGED_DEFAULT} /{REMOVED_DEFAULT}").stdout == (
        'greeting = "hello from version 9"\nbrought by version 9\n'
    )
    assert_mine(journey)
    measured = measure(machine, "/sysroot/composefs")
    assert measured.keys() == {f"{name[:2]}/{name[2:]}" for name in measured.values() if name}


def leave_what_others_leave(journey: Journey, staged: Variant) -> None:
    """Put a mark into the live menu, and an entry that was never cleared into the staged one."""
    journey.machine.run(
        f"touch {OLD_MARK}; cd {ESP}/loader/entries.staged\n"
        f"sed -e 's/{staged.image_id}/{STALE_ID}/; s/^sort-key .*/sort-key bootc-aaa-0/'"
        f" $(grep -l {staged.image_id} *.conf) >{STALE_ENTRY}"
    )


def rebuilt_with_the_same_tree(journey: Journey, images: Images) -> None:
    v1, v2, rebuilt = images["1"], images["2"], images["2-meta"]
    before = journey.esp_files()
    journey.publish(rebuilt)
    said = journey.bootc("upgrade").stdout
    assert "The image has the tree of the booted one; its new metadata is recorded.\n" in said
    assert journey.slots() == slots(v2, rollback=v1)
    image = journey.status()["status"]["booted"]["image"]
    assert image["version"] == rebuilt.version
    assert image["imageDigest"] == str(rebuilt.manifest_digest)
    again = journey.bootc("upgrade").stdout
    assert again == f"No changes in: {journey.reference()}\n"
    assert journey.esp_files() == before


def from_second_to_third(journey: Journey, images: Images) -> None:
    """An update that conflicts, one that does not in its place, and the first by a decision."""
    machine = journey.machine
    v1, v2 = images["1"], images["2"]
    conflicting, plain = images["3"], images["3-plain"]
    machine.run(f"printf {shlex.quote(CONFLICT_LINE)} >>/{CONFLICT}; echo second >/etc/second")
    before = journey.esp_files()
    journey.publish(conflicting)
    refused = journey.bootc("upgrade", check=False)
    assert refused.rc == 1
    assert "Merge conflicts found in etc: " in refused.stderr
    assert "conflict.d" in refused.stderr
    assert "bootc etc keep PATH" in refused.stderr
    assert journey.slots() == slots(v2, rollback=v1)
    assert journey.esp_files() == before
    assert states(journey) == {v1.image_id.hex, v2.image_id.hex}

    journey.publish(plain)
    journey.bootc("upgrade")
    assert journey.slots() == slots(v2, staged=plain, rollback=v1)
    assert kernels(journey) == brought_by(v1, v1, v2, plain)

    journey.publish(conflicting)
    assert journey.bootc("upgrade", check=False).rc == 1
    assert journey.slots() == slots(v2, staged=plain, rollback=v1)
    journey.bootc(f"etc keep /{CONFLICT}")
    journey.bootc("upgrade")
    assert journey.slots() == slots(v2, staged=conflicting, rollback=v1)
    assert kernels(journey) == brought_by(v1, v1, v2, conflicting)
    assert states(journey) == {v.image_id.hex for v in (v1, v2, conflicting)}

    assert journey.reboot() == "running"
    machine = journey.machine
    assert journey.slots() == slots(conflicting, rollback=v2)
    assert_runs(journey, conflicting)
    assert_mine(journey)
    assert machine.run(f"cat /{CONFLICT} /etc/second").stdout == f"a file\n{CONFLICT_LINE}second\n"
    assert machine.run(f"test -e /{REMOVED_DEFAULT}", check=False).rc == 1
    assert states(journey) == {v2.image_id.hex, conflicting.image_id.hex}
    # The second may boot with the kernel of the first, which is gone otherwise.
    assert kernels(journey) == brought_by(v1, v2, conflicting)
    assert_foreign(journey)


def back_to_second(journey: Journey, images: Images) -> None:
    machine = journey.machine
    v2, v3 = images["2"], images["3"]
    machine.run("echo third >/etc/third; echo third >/etc/second")
    journey.bootc("rollback")
    status = journey.status()
    assert status["status"]["rollbackQueued"] is True
    assert status["spec"]["bootOrder"] == "rollback"
    journey.bootc("rollback")
    assert journey.status()["status"]["rollbackQueued"] is False
    journey.bootc("rollback")

    assert journey.reboot() == "running"
    machine = journey.machine
    assert journey.slots() == slots(v2, rollback=v3)
    assert journey.status()["status"]["rollbackQueued"] is False
    assert_runs(journey, v2)
    assert machine.run(f"cat /etc/second /{REMOVED_DEFAULT} /{CONFLICT}").stdout == (
        f"second\nbrought by version 9\na file\n{CONFLICT_LINE}"
    )
    assert machine.run("test -e /etc/third", check=False).rc == 1
    assert_mine(journey)


def from_the_rollback_to_fourth(journey: Journey, images: Images) -> None:
    v1, v2, v3, v4 = (images[tag] for tag in ("1", "2", "3", "4"))
    journey.publish(v4)
    said = journey.bootc("upgrade").stdout
    assert f"Deployment {v3.image_id} leaves the menu with the next boot; pin it to keep it." in (
        said.splitlines()
    )
    assert journey.slots() == slots(v2, staged=v4, rollback=v3)

    assert journey.reboot() == "running"
    assert journey.slots() == slots(v4, rollback=v2)
    assert_runs(journey, v4)
    assert_mine(journey)
    assert states(journey) == {v4.image_id.hex, v2.image_id.hex}
    assert kernels(journey) == brought_by(v1, v2, v4)
    # The shutdown leaves the repository for later.
    journey.bootc("internals composefs-gc --prune-repo")
    assert_clean(journey)
    assert_foreign(journey)
    images = journey.machine.run("ls /sysroot/composefs/images").stdout.split()
    assert {v2.image_id.hex, v4.image_id.hex} <= set(images)
    assert not {v1.image_id.hex, v3.image_id.hex} & set(images)


def assert_runs(journey: Journey, variant: Variant) -> None:
    """The system is this image, with its own arguments and the local ones."""
    machine = journey.machine
    release = machine.run(". /etc/os-release; echo $ID $VERSION_ID").stdout.split()
    assert release == [variant.os_id, variant.version]
    assert default_entry(journey) == variant.image_id.hex
    arguments = machine.run("cat /proc/cmdline").stdout.split()
    if variant.is_uki:
        # What is sealed in it, and no more.
        assert arguments == [*variant.kargs, f"composefs={variant.image_id}", "rw"]
        return
    assert f"composefs={variant.image_id}" in arguments
    assert set(variant.kargs) <= set(arguments)
    assert [word for word in arguments if word.startswith("variant=")] == [
        word for word in variant.kargs if word.startswith("variant=")
    ]
    assert LOCAL_KARG in arguments


def assert_mine(journey: Journey) -> None:
    found = journey.machine.run(
        f"stat -c %a /etc/mine; python3 -c {shlex.quote(GET_XATTR)}\n"
        "cat /etc/mine.link; test -e /etc/issue.net || echo gone; stat -c %a /etc/kernel"
    )
    assert found.stdout.split() == ["600", "yes", "mine", "gone", "700"]


def put_foreign(journey: Journey) -> None:
    for path, text in FOREIGN.items():
        journey.machine.run(
            f"mkdir -p $(dirname {ESP}/{path}) && cat >{ESP}/{path}", input_bytes=text.encode()
        )


def assert_foreign(journey: Journey) -> None:
    assert [(found["kind"], found["subject"]) for found in journey.findings()] == [
        ("foreign", "other.conf")
    ]
    for path, text in FOREIGN.items():
        assert journey.machine.run(f"cat {ESP}/{path}").stdout == text


#: In their order; each begins where the one before ends.
PARTS = (
    from_first_to_second,
    rebuilt_with_the_same_tree,
    from_second_to_third,
    back_to_second,
    from_the_rollback_to_fourth,
)
