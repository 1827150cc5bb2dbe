"""What the journeys stand on: the harness, and the service that finalizes at shutdown.

One system is installed and lives through a shutdown with the service and a power cut.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from journeys import BALLAST, FINALIZE_UNIT, Images, Installed, Journey

from support.variants import TYPE1
from testbed.registry import Registry

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

TYPE1_ONLY = pytest.param(TYPE1, id="type1")
UNITS = Path(__file__).parents[2] / "data" / "systemd"
#: An ordinary service that takes its time to stop, and writes to /etc last of all.
LATE = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStop=/bin/sh -c 'sleep 2; echo late >/etc/late'
"""
#: Looks around as finalizing does.
PROBE = """\
exec >/var/probe 2>&1
cat /etc/late
echo written >/etc/written && echo /etc can be written
findmnt -no FSTYPE /sysroot
mkdir -p /run/probe && mount /dev/disk/by-partlabel/EFI-SYSTEM /run/probe && ls /run/probe
test -S /run/systemd/journal/stdout && echo journal
"""
#: A large file on the ESP, and ten small ones elsewhere meanwhile. At any time the kernel may
#: write FAT's table to the disk; here it does after each piece.
PROGRAM = """\
import os
from bootc.fs.atomic import write_stream
from bootc.fs.dir import Dir

def pieces():
    esp = os.open("/dev/disk/by-partlabel/EFI-SYSTEM", os.O_RDONLY)
    ten = os.open("/var/ten", os.O_RDONLY)
    for number in range(10):
        os.fsync(os.open(f"/var/ten/{number}", os.O_WRONLY | os.O_CREAT))
        os.fsync(ten)
        yield bytes([number]) * (1 << 20)
        os.fsync(esp)

with Dir.open("/boot/EFI") as directory:
    write_stream(directory, "large", pieces())
"""


@pytest.mark.parametrize("family", [TYPE1_ONLY], indirect=True)
def test_one_life(
    running: Installed,
    update_registry: Registry,
    images: Images,
    logs: Path,
    tmp_path: Path,
) -> None:
    with Journey(running, update_registry, name="life", directory=tmp_path, logs=logs) as journey:
        journey.resume()
        v1 = images["1"]
        assert journey.slots() == {"booted": v1.image_id.hex, "staged": None, "rollback": None}
        booted = journey.status()["status"]["booted"]
        assert booted["composefs"]["bootDigest"] == v1.boot_digest
        assert booted["image"]["image"]["image"] == journey.reference()
        # The registry answers, and a tag moves.
        for variant in (v1, images["2"]):
            journey.publish(variant)
            inspect = f"skopeo inspect --format '{{{{.Digest}}}}' docker://{journey.reference()}"
            assert journey.machine.run(inspect).stdout.strip() == str(variant.manifest_digest)

        files = journey.esp_files()
        directory = f"EFI/Linux/bootc_composefs-{v1.image_id}"
        assert files[f"{directory}/vmlinuz"] == v1.boot_files["vmlinuz"]
        (entry,) = journey.esp_entries().values()
        assert f"composefs={v1.image_id}" in entry
        journey.leave_on_esp(48 << 20)
        assert abs(journey.esp_free_bytes() - (48 << 20)) < 1 << 16
        assert journey.esp_files() == files

        shut_down_with_the_service(journey)
        assert journey.boot() == "running"
        probe = journey.machine.run("cat /var/probe; rm /etc/late").stdout
        assert probe.splitlines() == [
            "late",
            "/run/probe.sh: 3: cannot create /etc/written: Read-only file system",
            "ext4",
            "EFI",
            "ballast",
            "loader",
            "journal",
        ]
        log = journey.machine.run(f"journalctl --boot=-1 --unit={FINALIZE_UNIT} --output=cat")
        assert f"{FINALIZE_UNIT}: Deactivated successfully." in log.stdout.splitlines()
        journey.machine.run(f"rm {BALLAST}")

        cut_short(journey)


def shut_down_with_the_service(journey: Journey) -> None:
    machine = journey.machine
    machine.run(f"cat >/run/systemd/system/{FINALIZE_UNIT}", input_bytes=unit())
    checked = machine.run(f"systemd-analyze verify --man=no /run/systemd/system/{FINALIZE_UNIT}")
    assert (checked.stdout, checked.stderr) == ("", "")
    assert machine.run(f"systemctl is-enabled {FINALIZE_UNIT}", check=False).stdout == "static\n"
    machine.run("cat >/run/systemd/system/late.service", input_bytes=LATE.encode())
    machine.run("cat >/run/probe.sh", input_bytes=PROBE.encode())
    machine.run(
        f"d=/run/systemd/system/{FINALIZE_UNIT}.d; mkdir -p $d && cat >$d/probe.conf"
        " && systemctl daemon-reload",
        input_bytes=b"[Service]\nExecStop=\nExecStop=/bin/sh /run/probe.sh\n",
    )
    machine.run(f"systemctl start late.service {FINALIZE_UNIT}")
    # Going to the rescue target and the like would finalize too early.
    properties = machine.run(f"systemctl show -P IgnoreOnIsolate -P ActiveState {FINALIZE_UNIT}")
    assert sorted(properties.stdout.split()) == ["active", "yes"]
    machine.run("test ! -e /var/probe")
    said = journey.shut_down()
    assert not re.search(r"FAILED\].*bootc", said), said
    done, unmounting = "Stopped bootc-finalize-staged", "Unmounting sysroot.mount"
    assert -1 < said.find(done) < said.find(unmounting), said


def unit() -> bytes:
    return (UNITS / FINALIZE_UNIT).read_bytes()


def cut_short(journey: Journey) -> None:
    machine = journey.machine
    machine.run("mkdir /var/ten; cat >/var/ten.py", input_bytes=PROGRAM.encode())
    journey.cut_at("'/var/ten/6'", "/var/ten.py")
    assert journey.boot() == "running"
    machine = journey.machine
    assert machine.run("ls /var/ten").stdout.split() == list("012345")
    # The ESP has been checked: the piece has its name, and is no FSCK0000.REC.
    assert machine.run("ls -A /boot/EFI").stdout.split() == [
        ".tmp-file-large",
        "BOOT",
        "Linux",
        "systemd",
    ]
    assert machine.run("ls -A /boot/.").stdout.split() == ["EFI", "loader"]
