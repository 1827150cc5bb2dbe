"""The command line on a system with real mounts and a boot menu of GRUB, all but booted."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.loader import Bootloader
from bootc.cli.options import Command
from bootc.cli.session import DRY_RUN
from bootc.cli.table import commands_for
from bootc.deploy.journal import Event
from bootc.formats.digest import Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, Stat
from bootc.fs.dir import Dir
from bootc.fs.tree_write import write_tree
from bootc.repository.repository import Repository
from support import images, pe, require
from support.bootedroot import Done, loop_disk, run, run_inside
from support.etctrees import directory, etc
from support.sysroot import FakeSysroot

pytestmark = pytest.mark.host

#: /etc of the booted image, of the one to go back to, and of a third.
ETCS = (
    etc(motd="one", ssh=directory(config="Port 22"), hosts="localhost"),
    etc(motd="two", ssh=directory(config="Port 22"), hosts="localhost"),
    etc(motd="three", ssh=directory(config=directory(part="x")), hosts="localhost"),
)


class Host:
    """A machine that runs image A, can go back to B, and has a third image C."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._device = device
        self.ids: list[Digest] = []
        self._system: FakeSysroot | None = None

    def addon(self) -> str:
        """Return the path of an add-on."""
        path = self._path / "keymap.addon.efi"
        path.write_bytes(pe.signable((b".cmdline", b"vconsole.keymap=de")))
        return str(path)

    def install(self, place: Path, *, staged: bool) -> None:
        system = FakeSysroot(place / "made", Bootloader.GRUB)
        with (
            Dir.open(system.physical) as root,
            Repository.open(root, require_verity=False, writable=True) as repository,
        ):
            for tree in ETCS:
                image = Directory(Stat(0o755), {b"etc": tree})
                self.ids.append(repository.images.add(mkfs_erofs(image)))
        a, b, c = self.ids
        for deployment, tree in zip(self.ids, ETCS, strict=True):
            if deployment != c or staged:
                system.add_state(deployment)
                (system.state_dir(deployment) / "etc").mkdir()
                with Dir.open(system.state_dir(deployment) / "etc") as target:
                    write_tree(tree, target, lambda content: pytest.fail(f"{content}"))
        for deployment in self.ids:
            kernel = system.menu / f"bootc_composefs-{deployment}"
            kernel.mkdir()
            (kernel / "vmlinuz").write_bytes(deployment.raw)
            (kernel / "initrd").write_bytes(deployment.raw)
        system.set_menu(a, b)
        if staged:
            system.set_menu(c, a, staged=True)
        for part in ("composefs", "state", "boot"):
            (system.physical / part).rename(place / part)

    def announce(self, deployment: Digest) -> str:
        """Return a command that stages."""
        marker = json.dumps({"depl_id": deployment.hex, "finalization_locked": False})
        return f"mkdir -p /run/composefs; echo '{marker}' > /run/composefs/staged-deployment"

    def run(self, *commands: list[str] | str, verity: bool = False) -> list[Done]:
        """Run commands, one after the other, without a boot in between.

        With ``verity`` the kernel command line demands it.
        """
        return run_inside(
            self._path,
            commands,
            device=self._device,
            image_id=self.ids[0].hex,
            argument=f"composefs={'' if verity else '?'}{self.ids[0].hex}",
        )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_disk(tmp_path / "disk.img") as device:
        yield device


@pytest.fixture
def host(tmp_path: Path, disk: str, request: pytest.FixtureRequest) -> Host:
    place = tmp_path / "place"
    place.mkdir()
    made = Host(tmp_path, disk)
    run("mount", disk, str(place))
    try:
        made.install(place, staged=getattr(request, "param", False))
    finally:
        run("umount", str(place))
    return made


staged = pytest.mark.parametrize("host", [True], indirect=True, ids=["staged"])


def ids_of(done: Done) -> list[Event]:
    return [Event(message_id) for message_id, _ in done.journal]


OF_PINS = (
    "Upstream's program has no pins: if it updates or cleans this machine, it removes the "
    "deployment, and its rollback fails while the menu has three."
)


def check(done: Done, *lines: str, journal: tuple[Event, ...] = ()) -> None:
    """Check that a command did well, printed these lines, and told the journal of these events."""
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == list(lines)
    assert ids_of(done) == list(journal)


def test_pins(host: Host) -> None:
    _, b, _ = host.ids
    dry, pin, again, delete, unpin = host.run(
        ["pin", "rollback", "--dry-run"],
        ["pin", b.hex[:6]],
        ["pin", b.hex],
        ["delete-deployment", b.hex[:10]],
        ["unpin", "rollback"],
    )
    check(dry, f"* pin deployment {b}", OF_PINS)
    check(pin, OF_PINS, journal=(Event.PINNED,))
    check(again, f"Deployment {b} is pinned already.")
    assert (delete.code, delete.journal) == (1, [])
    assert delete.err == f"error: deployment {b} is pinned (hint: first: bootc unpin {b})\n"
    check(unpin, journal=(Event.UNPINNED,))


def test_boot_entries_have_no_addons(host: Host) -> None:
    file = host.addon()
    state = "find /sysroot -printf '%p %U %m %T@ %s\\n' | sort"
    before, add, for_all, remove, after = host.run(
        state,
        ["addon", "add", file],
        ["addon", "add", "--global", file, "--dry-run"],
        ["addon", "remove", "keymap"],
        state,
    )
    for done in (add, for_all, remove):
        assert (done.code, done.out, done.journal) == (1, "", [])
        assert done.err == (
            f"error: deployment {host.ids[0]} has no unified kernel image that could have add-ons "
            "(hint: its kernel arguments are in its boot entry: edit the line options of the file "
            "in loader/entries; updates carry the change over)\n"
        )
    assert after.out == before.out


def test_objects_without_the_verity_that_is_demanded(host: Host) -> None:
    verbs = (
        ["upgrade", "--cancel"],
        ["rollback"],
        ["pin", "rollback"],
        ["etc", "diff"],
        ["composefs-finalize-staged"],
        ["internals", "composefs-gc"],
    )
    list_all = "cd /sysroot; find boot state composefs | sort"
    before, status, *refused, after = host.run(list_all, ["status"], *verbs, list_all, verity=True)
    assert (status.code, host.ids[0].hex in status.out) == (0, True)
    for done in refused:
        assert done.code == 1
        assert "has no fs-verity, and the kernel command line demands it" in done.err
        assert "(hint: bootc internals cfs --require-verity fsck --repair enables it" in done.err
    assert after.out == before.out


def test_rollback_and_back(host: Host) -> None:
    a, b, _ = host.ids
    first = "cd /sysroot/boot/loader/entries; cat $(ls | sort -r | head -1)"
    before, dry, same, there, after, back, restored = host.run(
        first,
        ["rollback", "--dry-run", "--apply"],
        first,
        ["rollback"],
        first,
        ["rollback"],
        first,
    )
    assert (dry.code, dry.journal) == (0, [])
    assert dry.out.splitlines()[-1] == "Next boot: rollback deployment"
    assert same.out == before.out
    check(there, "Next boot: rollback deployment", journal=(Event.ROLLBACK,))
    assert a.hex in before.out
    assert b.hex in after.out
    check(
        back,
        "notice: Reverting queued rollback state",
        "Next boot: current deployment",
        journal=(Event.ROLLBACK,),
    )
    assert a.hex in restored.out


def test_apply_reboots_with_nothing_held(host: Host) -> None:
    rollback, asked, again = host.run(
        ["rollback", "--apply"], "cat /run/asked", ["rollback", "--dry-run"]
    )
    check(rollback, "Next boot: rollback deployment", journal=(Event.ROLLBACK,))
    assert asked.out == "--quiet -- systemctl reboot --message=Initiated by bootc\n"
    assert again.code == 0


def test_a_deployment_is_deleted(host: Host) -> None:
    a, b, _ = host.ids
    entries, booted, deleted, after, gone = host.run(
        "ls /sysroot/boot/loader/entries | wc -l",
        ["delete-deployment", "booted"],
        ["delete-deployment", b.hex[:8]],
        "ls /sysroot/boot/loader/entries | wc -l; ls /sysroot/state/deploy",
        ["delete-deployment", b.hex],
    )
    assert entries.out == "2\n"
    assert booted.err == "error: Cannot delete currently booted deployment\n"
    assert deleted.code == 0, deleted.err
    assert ids_of(deleted) == [Event.DEPLOYMENT_DELETED]
    assert after.out == f"1\n{a}\n"
    assert (gone.code, gone.journal) == (1, [])
    assert gone.err.startswith(f"error: Deployment ID not found: {b}")


def test_local_changes(host: Host) -> None:
    edit = "echo mine > /etc/motd; echo x > /etc/extra; rm /etc/hosts"
    _, listed, compared, kept, again, as_json, restored, removed, motd, rest = host.run(
        edit,
        ["config-diff"],
        ["etc", "diff"],
        ["etc", "keep", "/etc/motd"],
        ["etc", "keep", "motd"],
        ["etc", "diff", "--json"],
        ["etc", "reset", "motd"],
        ["etc", "reset", "extra"],
        "cat /etc/motd",
        ["etc", "diff"],
    )
    changes = ['Added "extra"', 'Modified "motd"', 'Removed "hosts"']
    check(listed, *changes)
    check(compared, *changes)
    check(kept, "Decided: /etc/motd stays as it is here when an update is merged.")
    check(again, "Decided already: /etc/motd stays as it is here when an update is merged.")
    assert json.loads(as_json.out)["decisions"] == [{"choice": "keep", "path": "motd"}]
    check(
        restored,
        "/etc/motd is as the booted image has it.",
        "The decision about /etc/motd is forgotten.",
    )
    text = "/etc/extra is removed: it was a local addition, the booted image does not have it."
    check(removed, text)
    assert motd.out == "one"
    check(rest, 'Removed "hosts"')


@staged
def test_what_is_staged_is_finalized(host: Host) -> None:
    c = host.ids[2]
    shutdown = ["composefs-finalize-staged"]
    _, _, compared, failed, _, taken, done, merged, twice = host.run(
        host.announce(c),
        "echo mine > /etc/motd; echo Port 2222 > /etc/ssh/config",
        ["etc", "diff"],
        shutdown,
        "test -e /run/composefs/staged-deployment",
        ["etc", "take", "ssh/config"],
        shutdown,
        f"cd /sysroot/state/deploy/{c}/etc; cat motd ssh/config/part; ls /run/composefs",
        shutdown,
    )
    reason = "File 'ssh/config' now defaults to a directory in new etc"
    check(
        compared,
        'Modified "motd"',
        'Modified "ssh/config"',
        "",
        f"Merged into staged deployment {c}:",
        '  Local version stays, the new image\'s is not used: "motd"',
        f"  Unmergable {reason}",
        "  The update cannot be finalized: decide with bootc etc keep PATH or take PATH.",
    )
    assert failed.code == 1
    assert reason in failed.err
    assert ids_of(failed) == [Event.FINALIZE_FAILED]
    assert taken.code == 0
    assert done.code == 0, done.err
    assert ids_of(done) == [Event.FINALIZED]
    assert merged.out == "mine\nx"  # and nothing is announced any more
    check(twice)


@staged
def test_what_is_staged_is_dropped(host: Host) -> None:
    c = host.ids[2]
    _, dry, cancelled, nothing, state = host.run(
        host.announce(c),
        ["upgrade", "--cancel", "--dry-run"],
        ["upgrade", "--cancel", "--quiet"],
        ["upgrade", "--cancel"],
        f"test ! -e /sysroot/state/deploy/{c}",
    )
    assert (dry.code, dry.journal) == (0, [])
    # Quiet: no progress.
    assert (cancelled.code, cancelled.err) == (0, "")
    assert "The staged deployment is dropped." in cancelled.out
    assert ids_of(cancelled) == [Event.STAGED_DROPPED]
    assert (nothing.code, nothing.journal) == (1, [])
    assert state.code == 0


@staged
def test_a_rollback_drops_what_is_staged(host: Host) -> None:
    _, rollback = host.run(host.announce(host.ids[2]), ["rollback"])
    assert rollback.code == 0
    assert ids_of(rollback) == [Event.STAGED_DROPPED, Event.ROLLBACK]


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Make an image that boots, as far as anybody here looks."""
    members = (
        images.directory("etc"),
        images.file("etc/motd", b"four"),
        images.file("etc/hosts", b"localhost"),
        images.file("usr/lib/os-release", b"ID=debian\nVERSION_ID=14\n"),
        *(images.directory(name) for name in ("proc", "tmp", "var", "dev", "run")),
    )
    layer = images.bootable(*members, kernel=b"kernel" * 100, initramfs=b"initramfs" * 100)
    images.single(tmp_path / "layout", layer)
    return str(tmp_path / "layout")


def test_another_image(host: Host, image: str) -> None:
    a, _, _ = host.ids
    target = ["switch", "--transport", "oci", image]
    dry, status, _, switched, again, upgrade, apply, asked, _, done, menu = host.run(
        [*target, "--retain", "--dry-run"],
        ["status", "--json"],
        "test ! -e /run/composefs/staged-deployment",
        [*target, "--retain", "--etc-conflict", "take-new"],
        target,
        ["upgrade", "--quiet"],
        ["upgrade", "--quiet", "--apply"],
        "cat /run/asked",
        "echo mine > /etc/motd; rm -r /etc/ssh",
        ["composefs-finalize-staged"],
        "cd /sysroot/boot/loader/entries; cat $(ls | sort -r | head -1)",
    )
    assert (dry.code, dry.journal) == (0, []), dry.err
    assert json.loads(status.out)["status"]["staged"] is None
    assert switched.code == 0, switched.err
    assert ids_of(switched) == [Event.SWITCH_STAGED, Event.PINNED]
    check(again, "Image specification is unchanged.")
    check(upgrade, "Update already staged. To apply update run `bootc update --apply`")
    check(apply)
    assert "systemctl reboot" in asked.out
    assert done.code == 0, done.err
    assert ids_of(done) == [Event.FINALIZED]
    assert a.hex not in menu.out
    assert "composefs=" in menu.out


#: Names, owners, modes, times, sizes and targets of what there is, and what is mounted how.
STATE = (
    "cd /; find sysroot etc run -path run/systemd -prune -o {} -printf '%p %U %m %T@ %C@ %s %l\\n'"
    " | sort; sed 's/^[0-9]* [0-9]* //' /proc/self/mountinfo"
)
ALL, BUT_THE_STORE = STATE.format(""), STATE.format("-path sysroot/composefs -prune -o")
#: Has another process hold a lock, and lets go of all of them.
HOLD = "mkdir -p /run/held {0}; flock -F {0} sleep 300 </dev/null >/dev/null 2>&1 &\n" + (
    "touch /run/held/$!; sleep 0.5"
)
LET_GO = "kill $(ls /run/held)"
#: Another command is at work, and has come to collecting garbage.
COMMAND, COLLECTION = HOLD.format("/run/bootc"), HOLD.format("/sysroot/composefs")
#: Says where the booted image came from.
COMES_FROM = """\
mount -o remount,rw /sysroot
sed -i 's,^container-image-reference.*,container-image-reference = oci:{},' \
    /sysroot/state/deploy/{}/*.origin
mount -o remount,ro,bind /sysroot
"""
#: The kernel refuses all writes to the disk, and not only those by this mount.
READ_ONLY = "mount -o remount,ro /sysroot"
LOOKS = (
    ["status"],
    ["addon", "list"],
    ["etc", "diff"],
    ["config-diff"],
    ["rollback", "--dry-run", "--apply"],
    ["pin", "booted", "--dry-run"],
    ["unpin", "booted", "--dry-run"],
    ["delete-deployment", "rollback", "--dry-run"],
    ["upgrade", "--cancel", "--dry-run"],
    ["upgrade", "--from-downloaded", "--dry-run", "--apply"],
    ["internals", "composefs-gc", "--dry-run"],
)
#: These wait for a collection, which is about to remove what they would count, but for no command.
COUNTS = (
    ["internals", "composefs-gc", "--prune-repo", "--dry-run"],
    ["internals", "composefs-gc", "--prune-repo", "--assert-no-op"],
)
#: These store the image.
PULLS = (
    ["upgrade", "--dry-run"],
    ["upgrade", "--dry-run", "--download-only", "--no-wait"],
    ["switch", "--transport", "oci", "{}", "--dry-run", "--retain", "--apply"],
)


@staged
@pytest.mark.parametrize(
    ("commands", "locks"),
    [(LOOKS, (COMMAND, COLLECTION)), (COUNTS, (COMMAND,))],
    ids=["looks", "counts"],
)
def test_looking_changes_nothing_and_waits_for_nobody(
    host: Host, commands: tuple[list[str], ...], locks: tuple[str, ...]
) -> None:
    arranged = (READ_ONLY, host.announce(host.ids[2]), *locks)
    looked = [step for command in commands for step in (command, ALL)]
    before, *rest = host.run(*arranged, ALL, *looked, LET_GO)[len(arranged) : -1]
    for command, done, after in zip(commands, rest[::2], rest[1::2], strict=True):
        dirty = "--assert-no-op" in command
        assert (done.code, done.journal) == (1 if dirty else 0, []), (command, done.err)
        assert "Waiting" not in done.out + done.err, command
        assert after.out == before.out, command


@staged
def test_looking_for_updates_changes_no_disk(host: Host, image: str) -> None:
    before, checked, status, noted, after, _ = host.run(
        COMES_FROM.format(image, host.ids[0]),
        READ_ONLY,
        COMMAND,
        COLLECTION,
        ALL,
        ["upgrade", "--check"],
        ["status", "--json"],
        "ls /run/composefs; rm -r /run/composefs",
        ALL,
        LET_GO,
    )[4:]
    assert (checked.code, checked.journal) == (0, []), checked.err
    assert checked.out.startswith(f"Update available for: ostree-unverified-image:oci:{image}\n")
    assert json.loads(status.out)["status"]["booted"]["cachedUpdate"]["imageDigest"] in checked.out
    # A note in memory is all that it leaves.
    assert noted.out == "cached-update.json\n"
    assert disks(after) == disks(before)


def disks(state: Done) -> list[str]:
    return [line for line in state.out.splitlines() if not line.startswith("run ")]


@staged
@pytest.mark.parametrize("command", PULLS, ids=" ".join)
def test_a_dry_run_that_pulls_changes_the_store_only(
    host: Host, image: str, command: list[str]
) -> None:
    origin = image if command[0] == "upgrade" else "/elsewhere"
    before, done, after, kept, _ = host.run(
        COMES_FROM.format(origin, host.ids[0]),
        COMMAND,
        BUT_THE_STORE,
        [word.format(image) for word in command],
        BUT_THE_STORE,
        "ls /sysroot/composefs/streams/refs/oci | wc -l",
        LET_GO,
    )[2:]
    assert (done.code, done.journal) == (0, []), done.err
    assert "  make the state of deployment" in done.out
    assert "Waiting" not in done.out + done.err
    assert after.out == before.out
    assert kept.out == "1\n"


def test_every_dry_run_is_among_these() -> None:
    tested = {tuple(word for word in c if word[0] != "-") for c in (*LOOKS, *COUNTS, *PULLS)}
    # In test_install_to_disk.py and test_install_to_filesystem.py: they need no installed host.
    tested |= {("install", to) for to in ("to-disk", "to-filesystem", "to-existing-root")}
    # In tests/unit/cli/test_addon_verb.py: they need a unified kernel image.
    tested |= {("addon", verb) for verb in ("add", "remove")}
    for path, command in dry_runs(commands_for()):
        assert any(words[: len(path)] == path for words in tested), (path, command.name)


def dry_runs(
    commands: tuple[Command, ...], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Command]]:
    for command in commands:
        path = (*above, command.name)
        if any(option.flags == DRY_RUN.flags for option in command.options):
            yield path, command
        yield from dry_runs(command.commands, path)


def test_a_signature_policy_that_nobody_enforces(host: Host, image: str) -> None:
    target = ["switch", "--enforce-container-sigpolicy", "--transport"]
    layout, registry, state = host.run(
        [*target, "oci", image],
        [*target, "registry", "127.0.0.1:1/os:1"],
        "ls /run/composefs; cat /sysroot/state/deploy/*/*.origin",
    )
    assert (layout.code, layout.journal) == (1, [])
    assert layout.err.startswith(
        f"error: the signature policy cannot be enforced for oci:{image}: "
    )
    assert "--enforce-container-sigpolicy" in layout.err
    # /etc of this machine has no policy.json.
    assert (registry.code, registry.journal) == (1, [])
    assert "there is no signature policy to enforce for docker://127.0.0.1:1/os:1" in registry.err
    assert "ostree-image-signed" not in state.out


def test_garbage(host: Host) -> None:
    collect = ["internals", "composefs-gc", "--prune-repo"]
    dry, dirty, done, clean = host.run(
        [*collect, "--dry-run"], [*collect, "--assert-no-op"], collect, [*collect, "--assert-no-op"]
    )
    assert dry.out.splitlines()[0] == "Dry run (no files deleted)"
    counted = [line for line in dry.out.splitlines() if line.startswith(("Objects:", "Pruned"))]
    assert dirty.code == 1
    assert "error: --assert-no-op: GC would " in dirty.err
    assert done.out.splitlines()[-2:] == counted
    assert ids_of(done) == [Event.GARBAGE_COLLECTED]
    assert clean.code == 0, clean.err


def test_an_overlay_that_is_there(host: Host) -> None:
    # What test_usr_overlay.py mounts; here it is /usr of the machine that runs the tests.
    again, other, _, refused, same = host.run(
        ["usr-overlay"],
        ["usroverlay", "--read-only"],
        "mount -o remount,bind,ro /usr",
        ["usr-overlay"],
        ["usr-overlay", "--read-only"],
    )
    for done in (again, other, same):
        check(done, "An overlayfs is already mounted on /usr")
    message = "A read-only overlayfs is already mounted on /usr (hint: first: umount /usr)"
    assert (refused.code, refused.err) == (1, f"error: {message}\n")


@pytest.mark.parametrize("lock", ["/run/bootc/lock", "/run/bootc"], ids=["new", "old"])
def test_another_command_at_work(host: Host, lock: str) -> None:
    """Also one of a version that takes only the old lock."""
    _, refused, waited = host.run(
        HOLD.format(lock),
        ["upgrade", "--cancel", "--no-wait"],
        # The other command ends when this one says that it waits.
        f"{sys.executable} -m bootc pin booted >/run/out 2>&1 & waits=$!\n"
        "for i in $(seq 600); do grep -q Waiting /run/out && break; sleep 0.1; done\n"
        f"{LET_GO}; wait $waits; cat /run/out",
    )
    assert refused.code == 1
    assert re.search(rf"{lock} is in use by process \d+ \(sleep\) \(hint: wait", refused.err)
    assert (waited.code, waited.err) == (0, "")  # both streams are in one file
    waits = rf"Waiting for process \d+ \(sleep\), which uses {lock}\n"
    assert re.fullmatch(f"{waits}{re.escape(OF_PINS)}\n", waited.out)
    assert ids_of(waited) == [Event.PINNED]


def test_nobody_but_root_keeps_root_waiting(host: Host) -> None:
    require.tool("setpriv")
    user = "setpriv --reuid=4711 --regid=4711 --clear-groups"
    _, done, refused, mode = host.run(
        f"mkdir -p -m 755 /run/bootc; {user} flock -F /run/bootc sleep 300"
        " </dev/null >/dev/null 2>&1 & sleep 0.5",
        ["pin", "booted"],
        f"{user} flock --nonblock /run/bootc/lock true || echo refused",
        "stat -c %a /run/bootc/lock; flock --nonblock /run/bootc true || echo still held",
    )
    assert (done.code, done.out, done.err) == (0, f"{OF_PINS}\n", "")
    assert refused.out == "refused\n"
    assert mode.out == "700\nstill held\n"


def test_a_mount_with_a_strange_name(host: Host) -> None:
    """mountinfo holds a carriage return and more as they are."""
    strange = "\\r\\013\\014\\034\\302\\205\\342\\200\\250x"
    before, mounted, after, pinned, back = host.run(
        ["status", "--json"],
        f'd=$(printf \'/run/{strange}\'); mkdir "$d"; mount -t tmpfs "$d" "$d"',
        ["status", "--json"],
        ["pin", "rollback"],
        ["rollback"],
    )
    assert mounted.code == 0, mounted.err
    assert after.out == before.out
    assert after.code == 0
    check(pinned, OF_PINS, journal=(Event.PINNED,))
    check(back, "Next boot: rollback deployment", journal=(Event.ROLLBACK,))


@staged
def test_finalizing_beside_a_mount_with_a_strange_name(host: Host) -> None:
    _, _, done = host.run(
        host.announce(host.ids[2]),
        'd=$(printf \'/run/\\rx\'); mkdir "$d"; mount -t tmpfs x "$d"',
        ["composefs-finalize-staged"],
    )
    assert done.code == 0, done.err
    assert ids_of(done) == [Event.FINALIZED]


def test_what_nobody_can_read_is_done_all_the_same(host: Host) -> None:
    a, b, _ = host.ids
    first = "cd /sysroot/boot/loader/entries; cat $(ls | sort -r | head -1)"
    bootc = f"{sys.executable} -m bootc"
    closed, after, full, back, looked, dry = host.run(
        f"{bootc} rollback <&- >&- 2>&-",
        first,
        f"{bootc} rollback >/dev/full 2>/dev/full",
        first,
        f"{bootc} status >/dev/full || echo $?",
        f"{bootc} rollback --dry-run >/dev/full || echo $?",
    )
    assert (closed.code, full.code) == (0, 0)
    assert b.hex in after.out
    assert a.hex in back.out
    assert looked.out == dry.out == "1\n"
    assert looked.err == dry.err == "error: standard output: No space left on device\n"


def test_a_rollback_that_is_so_already_sends_nothing(host: Host) -> None:
    """The entry of what runs is lost, so that nothing changes places with it."""
    entries = "/sysroot/boot/loader/entries"
    _, done = host.run(
        f"mount -o remount,rw /sysroot; rm $(grep -l {host.ids[0]} {entries}/*)", ["rollback"]
    )
    check(done, "Next boot: rollback deployment", journal=())


def test_what_changes_nothing_sends_nothing(host: Host) -> None:
    collect = ["internals", "composefs-gc", "--prune-repo"]
    _, first, second, looked, listed, dry = host.run(
        "mount -o remount,rw /sysroot; rm /sysroot/state/deploy/*/*.origin",
        collect,
        collect,
        ["etc", "diff"],
        ["config-diff"],
        ["pin", "booted", "--dry-run"],
    )
    assert Event.GARBAGE_COLLECTED not in ids_of(second), (first, second)
    for done in (looked, listed, dry):
        assert done.journal == []


@staged
def test_a_disk_that_cannot_be_opened_at_shutdown(host: Host) -> None:
    _, _, failed = host.run(
        host.announce(host.ids[2]),
        "mount -o remount,rw /sysroot; echo '{' > /sysroot/composefs/meta.json",
        ["composefs-finalize-staged"],
    )
    assert failed.code == 1
    assert "meta.json" in failed.err
    assert ids_of(failed) == [Event.FINALIZE_FAILED]


def test_what_is_missing_is_told(host: Host) -> None:
    b = host.ids[1]
    _, pinned = host.run(
        f"mount -o remount,rw /sysroot; rm /sysroot/state/deploy/{b}/{b}.origin", ["pin", "booted"]
    )
    assert pinned.code == 0
    assert ids_of(pinned) == [Event.MISSING_ORIGIN, Event.PINNED]
