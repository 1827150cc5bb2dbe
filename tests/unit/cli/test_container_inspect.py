"""``bootc container inspect``: the bytes that builds cut with jq, and lines for people."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from support.roots import KVER, Root, base, bootable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bootc: Run) -> Run:
    return partial(bootc, "container", "inspect")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = bootable(tmp_path / "root")
    root.file("usr/lib/bootc/kargs.d/10-a.toml", 'kargs = ["console=ttyS0", "quiet"]')
    return root.file("usr/lib/bootc/kargs.d/20-b.toml", 'kargs = ["lsm=\\"a b\\""]')


def test_a_kernel(run: Run, root: Root) -> None:
    assert run("--rootfs", root.path) == (
        0,
        f'Kernel: {KVER}\n  Type: vmlinuz\n Kargs: console=ttyS0 quiet lsm="a b"\n',
        "",
    )


def test_json(run: Run, root: Root) -> None:
    text = (
        '{\n  "kargs": [\n    "console=ttyS0",\n    "quiet",\n    "lsm=\\"a b\\""\n  ],\n'
        f'  "kernel": {{\n    "version": "{KVER}",\n    "unified": false\n  }}\n}}\n'
    )
    assert run("--rootfs", root.path, "--json") == (0, text, "")
    assert run("--rootfs", root.path, "--format", "json") == (0, text, "")
    code, out, _ = run("--rootfs", root.path, "--format=yaml")
    assert (code, yaml.safe_load(out)) == (0, json.loads(text))


def test_a_unified_kernel_image_goes_first(run: Run, root: Root) -> None:
    root.file("boot/EFI/Linux/fedora-6.12.0.efi")
    _, out, _ = run("--rootfs", root.path)
    assert out.startswith("Kernel: fedora-6.12.0\n  Type: UKI\n Kargs: ")
    _, out, _ = run("--rootfs", root.path, "--json")
    assert json.loads(out)["kernel"] == {"version": "fedora-6.12.0", "unified": True}


def test_nothing(run: Run, tmp_path: Path) -> None:
    root = base(tmp_path / "root").path
    assert run("--rootfs", root) == (0, "Kernel: <none>\n Kargs: <none>\n", "")
    assert run("--rootfs", root, "--json") == (0, '{\n  "kargs": [],\n  "kernel": null\n}\n', "")


def test_names_for_no_terminal(run: Run, tmp_path: Path) -> None:
    root = base(tmp_path / "root").file(f"usr/lib/modules/6{os.fsdecode(bytes([27, 255]))}/vmlinuz")
    _, out, _ = run("--rootfs", root.path)
    assert out.startswith("Kernel: $'6\\x1b\\\\xff'\n")
    _, out, _ = run("--rootfs", root.path, "--json")
    assert out.replace("\n", "").isprintable()
    assert json.loads(out)["kernel"]["version"] == "6\x1b\\xff"


def test_refusals(run: Run, root: Root) -> None:
    code, _, err = run("--rootfs", root.path, "--json", "--format=yaml")
    assert (code, err) == (2, "error: --json and --format exclude each other\n")
    assert run("--format=xml")[0] == 2
    root.file("usr/lib/bootc/kargs.d/30-c.toml", "=")
    code, out, err = run("--rootfs", root.path)
    assert (code, out) == (1, "")
    assert err.startswith("error: usr/lib/bootc/kargs.d/30-c.toml is not TOML: ")
    root.file("usr/lib/modules/6.1/vmlinuz")
    code, out, err = run("--rootfs", root.path)
    assert (code, out) == (1, "")
    assert err.startswith("error: Found multiple subdirectories in usr/lib/modules (hint: keep ")
