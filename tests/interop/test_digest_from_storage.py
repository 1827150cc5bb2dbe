"""``compute-composefs-digest-from-storage``: an image of containers-storage has its layout's id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.cli.main import main
from bootc.cli.verbs.container import digest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.fs.mounts import read_mounts
from bootc.kernel.mount import umount2
from support import images, require, skopeo
from support.images import directory, file
from testbed import registry

pytestmark = pytest.mark.interop

VERB = ["container", "compute-composefs-digest-from-storage"]


@pytest.fixture(params=["vfs", "overlay"])
def driver(request: pytest.FixtureRequest) -> str:
    require.root()
    require.tool("skopeo")
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def nothing_mounted(tmp_path: Path) -> Iterator[None]:
    """Undo what the overlay driver of containers-storage does to its home, and leaves."""
    yield
    for entry in read_mounts():
        if entry.path.startswith(f"{tmp_path}/"):
            umount2(entry.path, 0)


@pytest.fixture
def layout(tmp_path: Path) -> images.Layout:
    noise = file("usr/share/noise", bytes(i * i % 251 for i in range(300_000)))
    layers = (images.bootable(kernel=b"k" * 100), images.layer(directory("usr/share"), noise))
    return images.single(tmp_path / "layout", *layers, tag="os")


@pytest.fixture
def store(
    driver: str, layout: images.Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A storage with the image, which is the one that skopeo is configured for."""
    configure(tmp_path, "first", driver, monkeypatch)
    registry.skopeo("copy", layout.reference("os"), "containers-storage:localhost/os:1")
    monkeypatch.setattr(digest, "_HOST_STORAGE", str(tmp_path / "none"))
    return tmp_path / "first"


def configure(tmp_path: Path, name: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / f"{name}.conf"
    conf.write_text(
        f'[storage]\ndriver = "{driver}"\nrunroot = "{tmp_path}/run-{name}"\n'
        f'graphroot = "{tmp_path}/{name}"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))


def expect(capsys: pytest.CaptureFixture[str], layout: images.Layout, *arguments: str) -> None:
    assert main(["container", "compute-composefs-digest", layout.reference("os")]) == 0
    expected = capsys.readouterr().out
    assert len(expected) == 129
    code = main([*VERB, *arguments])
    out, err = capsys.readouterr()
    if skopeo.version() < skopeo.LOCAL_STORAGE:
        assert (code, out) == (1, "")
        assert "this skopeo is too old to read local container storage" in err
    else:
        assert (code, out) == (0, expected)


def config_of(layout: images.Layout) -> str:
    manifest = layout.manifests[0]["digest"]
    document = images.json.loads(layout.blob_path(manifest).read_bytes())
    config: str = document["config"]["digest"]
    return config.removeprefix("sha256:")


def test_by_name_and_by_id(
    store: Path, layout: images.Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    expect(capsys, layout, "localhost/os:1")
    expect(capsys, layout, config_of(layout))


def test_the_dumpfile(
    store: Path, layout: images.Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = tmp_path / "dump"
    expect(capsys, layout, "--write-dumpfile-to", str(dump), "localhost/os:1")
    if skopeo.version() >= skopeo.LOCAL_STORAGE:
        tree = parse_dumpfile(dump.read_bytes().splitlines())
        assert tree.lookup("usr/share/noise") is not None
        assert tree.lookup("boot/vmlinuz") is None


@pytest.mark.parametrize("driver", ["overlay"])
def test_the_image_of_this_container_in_the_hosts_storage(
    driver: str,
    store: Path,
    layout: images.Layout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(tmp_path, "empty", driver, monkeypatch)
    containerenv = tmp_path / "containerenv"
    containerenv.write_text(f'engine="podman-5.4.2"\nimageid="{config_of(layout)}"\n')
    monkeypatch.setattr(digest, "_CONTAINERENV", str(containerenv).lstrip("/"))
    assert main(VERB) == 1
    assert capsys.readouterr().err == (
        f"error: Must be readonly mount of host container store: {tmp_path}/none\n"
    )
    monkeypatch.setattr(digest, "_HOST_STORAGE", str(store))
    expect(capsys, layout)
    # It is offered for any image.
    expect(capsys, layout, "localhost/os:1")


def test_no_such_image(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*VERB, "localhost/other"]) == 1
    assert "does not resolve to an image ID" in capsys.readouterr().err
