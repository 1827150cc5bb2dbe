"""What boot tests share: images, installed disks, and machines that were saved while they ran.

Each is made once in a process. A test that needs a running machine, and does not test its boot,
resumes a saved one: ``live_machine`` or ``running``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import budget
import matrix_run
import pytest
from journeys import Installed, Journey, install
from sharing import Sharing, rank
from stations import (
    Demonstration,
    FirstBoot,
    LiveBoot,
    boot_installed,
    boot_live,
    demonstrate,
    save_live,
)

from support import images as oci_images
from support import require, variants
from support.variants import Variant
from testbed import disks
from testbed import registry as registries
from testbed.accelerator import settle
from testbed.command import AUTO, VARIABLE
from testbed.demo_os import DemoOs
from testbed.qemu import QemuMissingError, find_qemu
from testbed.registry import Registry
from testbed.saved import Saved

if TYPE_CHECKING:
    from xdist.remote import Producer

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the boot matrix."""
    matrix_run.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Start the clock, and choose processors and accelerator; workers inherit the choice.

    Machines that run side by side get a processor each. They are emulated, as everywhere;
    ``BOOTC_QEMU_ACCEL=auto`` asks the demo's probe whether KVM boots a guest here.
    """
    budget.start()
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("BOOTC_QEMU_PROCESSORS", "1")
    if os.environ.get(VARIABLE) == AUTO:
        with contextlib.suppress(QemuMissingError):  # each test that needs it says so
            settle(DemoOs(), find_qemu())
    matrix_run.register(config)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let ``-k`` find the cells of the boot matrix."""
    matrix_run.name(item)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for; begin with the machines that every change must boot."""
    matrix_run.choose(config, items)
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing:
    """Let one process run all tests that share machines and disks."""
    return Sharing(config, log)


@pytest.fixture(scope="session")
def logs() -> Path:
    """Where the consoles of all machines are kept."""
    directory = REPOSITORY / "build" / "boot-tests"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def demo_os() -> DemoOs:
    demo = DemoOs()
    try:
        find_qemu()
    except QemuMissingError as exc:
        require.lacking(str(exc))
    if demo.missing():
        require.lacking(f"{demo.missing()[0]} is not built (examples/debian/build)")
    return demo


@pytest.fixture(scope="session")
def live_machine(
    demo_os: DemoOs, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Saved]:
    """The live machine, saved when it had booted; its disks are those of ``stations.py``."""
    saved = save_live(demo_os, tmp_path_factory.mktemp("live-machine"), logs)
    yield saved
    saved.remove()


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(variants.TYPE1, id="type1"),
        pytest.param(variants.UKI, id="uki"),
    ],
)
def family(request: pytest.FixtureRequest) -> str:
    """What a journey's images boot: kernel and initramfs, or a unified kernel image."""
    letter: str = request.param
    return letter


@pytest.fixture(scope="session")
def images(
    demo_os: DemoOs, family: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Variant]:
    """The images of the journeys, by tag without the family's letter."""
    built = variants.build(demo_os, tmp_path_factory.mktemp("variants"), family)
    return {tag.removeprefix(family): variant for tag, variant in built.items()}


@pytest.fixture(scope="session")
def update_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The registry that updates come from; its tags move."""
    require.tool("docker-registry")
    require.tool("skopeo")
    with registries.running(tmp_path_factory.mktemp("update-registry")) as server:
        yield server


@pytest.fixture(scope="session")
def installation(
    live_machine: Saved,
    update_registry: Registry,
    images: dict[str, Variant],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installed]:
    """A disk where the first image is installed, for journeys whose first boot is tested."""
    if not budget.is_left():
        budget.skip_rest(0, 1)
    directory, first = tmp_path_factory.mktemp("installed"), images["1"]
    name = f"demo-{first.tag}"
    start = install(live_machine, update_registry, first, name=name, directory=directory, logs=logs)
    yield start
    start.disk.unlink()


@pytest.fixture(scope="session")
def running(
    installation: Installed,
    update_registry: Registry,
    images: dict[str, Variant],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installed]:
    """The installation, booted and saved, for all other journeys."""
    directory, name = tmp_path_factory.mktemp("running"), f"running-{images['1'].tag}"
    with Journey(
        installation, update_registry, name=name, directory=directory, logs=logs
    ) as journey:
        assert journey.boot() == "running"
        start = journey.save(directory / "saved")
    yield start
    assert start.saved is not None
    start.saved.remove()


@pytest.fixture(scope="session")
def registry(demo_os: DemoOs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real registry on the loopback interface that holds demo:v1 and unbootable:v1; its port."""
    require.tool("docker-registry")
    require.tool("skopeo")
    directory = tmp_path_factory.mktemp("registry")
    unbootable = oci_images.single(directory / "unbootable", oci_images.bootable(), tag="v1")
    with registries.running(directory / "registry") as server:
        server.push(f"oci:{demo_os.layout}:v1", "demo:v1", "--preserve-digests")
        server.push(unbootable.reference("v1"), "unbootable:v1", "--preserve-digests")
        yield server.port


@pytest.fixture(scope="session")
def demonstration(
    demo_os: DemoOs, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Demonstration:
    require.tool("docker-registry")
    require.tool("skopeo")
    return demonstrate(demo_os, tmp_path_factory.mktemp("demo"), logs)


@pytest.fixture(scope="session")
def live_boot(
    live_machine: Saved,
    demonstration: Demonstration,
    registry: int,
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> LiveBoot:
    directory = tmp_path_factory.mktemp("live")
    return boot_live(live_machine, demonstration, registry, directory, logs)


@pytest.fixture(scope="session")
def first_boot(demonstration: Demonstration, logs: Path) -> FirstBoot:
    return boot_installed(demonstration, logs)


@pytest.fixture
def copied(
    demonstration: Demonstration, first_boot: FirstBoot, tmp_path: Path
) -> Iterator[tuple[Path, Path]]:
    """A copy of the healthy disk and its firmware variables, to be damaged."""
    assert first_boot.state == "running"
    disk = disks.copy(demonstration.disk, tmp_path / "disk.img")
    firmware_vars = tmp_path / "vars.fd"
    shutil.copyfile(demonstration.firmware_vars, firmware_vars)
    yield disk, firmware_vars
    disk.unlink()
