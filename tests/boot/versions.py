"""What a run of the boot matrix ran: the commit, the kernel, the emulator and the boot loaders."""

from __future__ import annotations

import datetime
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from matrix import CELLS, Cell, Results, Row

from bootc.formats.kernelimage import HEAD_BYTES, kernel_release
from testbed.command import EMULATED, accelerator
from testbed.demo_os import DemoOs
from testbed.qemu import BUILD, Qemu, find_qemu
from testbed.tamper import Ext4

TOP = Path(__file__).parents[2]
STATUS = "var/lib/dpkg/status"


def now(cells: Iterable[Cell] = CELLS) -> Results:
    """Return the results of a run before it has run anything."""
    qemu = find_qemu()
    accelerated = accelerator()
    emulated = "emulated (TCG)" if accelerated == EMULATED else accelerated
    return Results(
        commit=commit(TOP),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machines=f"Linux {kernel(DemoOs())}, QEMU {emulator(qemu)}, {emulated}",
        loaders=loaders({cell.row for cell in cells}),
    )


def loaders(rows: Iterable[Row]) -> dict[str, dict[str, str]]:
    """Return the versions of the loaders' packages, by tree and package."""
    packages: dict[str, set[str]] = {}
    for row in rows:
        packages.setdefault(row.tree, set()).update(row.packages)
    return {
        tree: {name: version(installed, name) for name in sorted(names)}
        for tree, names in sorted(packages.items())
        for installed in [status(tree)]
    }


def commit(top: Path) -> str:
    """Return the commit that is checked out, with a remark if files differ from it."""
    head = _said("git", "-C", str(top), "rev-parse", "--short=12", "HEAD")
    changed = _said("git", "-C", str(top), "status", "--porcelain")
    return f"{head} (with changes)" if changed else head


def kernel(demo_os: DemoOs) -> str:
    """Return the release of the kernel that all images have."""
    with (demo_os.directory / "vmlinuz").open("rb") as file:
        return kernel_release(file.read(HEAD_BYTES)) or "unknown"


def emulator(qemu: Qemu) -> str:
    """Return the version of QEMU."""
    found = re.search(r"version (\S+)", _said(*qemu.argv, "--version"))
    return found[1] if found else "unknown"


def status(tree: str) -> str:
    """Return the list of the packages that are installed in a tree.

    ``demo`` is the live machine, which installs systemd-boot; other names are trees in ``build``.
    QEMU and its firmware may be those of this machine.
    """
    if tree == "demo":
        return Ext4(DemoOs().live_image, 0, 4096).read(f"/{STATUS}").decode()
    place = BUILD / tree / STATUS
    return (place if place.exists() else Path("/") / STATUS).read_text("utf-8")


def version(status: str, package: str) -> str:
    """Return the version of a package in a list of dpkg."""
    for paragraph in status.split("\n\n"):
        if paragraph.startswith(f"Package: {package}\n"):
            found = re.search(r"^Version: (\S+)$", paragraph, re.MULTILINE)
            return found[1] if found else "unknown"
    return "unknown"


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
