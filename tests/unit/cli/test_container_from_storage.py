"""``compute-composefs-digest-from-storage`` before it asks skopeo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bootc.cli.verbs.container import digest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bootc: Run) -> Run:
    return partial(bootc, "container", "compute-composefs-digest-from-storage")


@pytest.mark.parametrize("text", [None, "", 'engine="podman"\n', 'imageid=""\n'])
def test_a_container_that_does_not_know_its_image(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    path = tmp_path / "containerenv"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(digest, "_CONTAINERENV", str(path).lstrip("/"))
    assert run() == (
        1,
        "",
        f"error: {path} does not say which image this container was made of "
        "(hint: name an image, or run the container with podman run --privileged)\n",
    )


def test_no_storage_of_the_host(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "containerenv"
    path.write_text('imageid="ab"\n')
    monkeypatch.setattr(digest, "_CONTAINERENV", str(path).lstrip("/"))
    monkeypatch.setattr(digest, "_HOST_STORAGE", str(tmp_path / "none"))
    assert run() == (
        1,
        "",
        f"error: Must be readonly mount of host container store: {tmp_path}/none\n",
    )


def test_names_that_no_image_has(run: Run) -> None:
    assert run("a\x1bb") == (1, "", "error: bad image name 'a\\x1bb'\n")
