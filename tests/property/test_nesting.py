"""Documents of others may nest as deeply as they like: they are refused, and never a traceback.

Near the depth that can just be parsed, whatever else recurses may fail, as ``repr`` for a
message does. So values of every depth around it stand in every place.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from bootc.boot.kargs import parse_kargs_d
from bootc.deploy.etc.decisions import read_decisions
from bootc.deploy.host import notes
from bootc.deploy.host.boot_state import parse_staged
from bootc.deploy.host.statedir import StateDir
from bootc.deploy.install.config import parse_config, read_config
from bootc.errors import Error, one_line
from bootc.formats.digest import Algorithm
from bootc.formats.ocispec import ImageConfig, Index, Manifest
from bootc.fs.dir import Dir
from bootc.fs.process import CommandFailed, run_json
from bootc.initramfs import setup_root
from bootc.oci import skopeo
from bootc.oci.stored import artifact_of
from bootc.repository.metadata import DEFAULT_EROFS_FORMAT, Metadata
from support.sysroot import image_id

DIGEST = "sha256:" + "11" * 32
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 5}
CONFIG = {**DESCRIPTOR, "mediaType": "application/vnd.oci.image.config.v1+json"}
METADATA = json.loads(Metadata.new(Algorithm.SHA512, DEFAULT_EROFS_FORMAT).to_bytes())


def _reply(data: bytes) -> object:
    return skopeo._parse_reply(data, None)


#: A whole document of each kind, and what parses it.
JSON: dict[str, tuple[dict[str, object], Callable[[bytes], object]]] = {
    "manifest": (
        {"schemaVersion": 2, "config": CONFIG, "layers": [DESCRIPTOR], "annotations": {"a": "b"}},
        Manifest.parse,
    ),
    "index": ({"schemaVersion": 2, "manifests": [DESCRIPTOR]}, Index.parse),
    "config": (
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}},
        ImageConfig.parse,
    ),
    "artifact": ({"config": DESCRIPTOR, "layers": [DESCRIPTOR]}, artifact_of),
    "metadata": (METADATA, lambda data: Metadata.parse(data, "meta.json")),
    "marker": ({"depl_id": "11" * 64, "finalization_locked": False}, parse_staged),
    "reply": ({"success": False, "value": 1, "pipeid": 1, "error": "x"}, _reply),
    "good reply": ({"success": True, "value": 1, "pipeid": 1, "error": "x"}, _reply),
}
TOML: dict[str, tuple[str, Callable[[bytes], object]]] = {
    "kargs.d": ("kargs = {}", lambda data: parse_kargs_d("10.toml", data, "x86_64")),
    "install": ("[install]\nkargs = {}", lambda data: parse_config(data, "10.toml")),
    "install, below": ("[install]\nfilesystem = {}", lambda data: parse_config(data, "10.toml")),
}


def limit(parse: Callable[[str], object], opening: str = "[", closing: str = "]") -> int:
    """Return the depth from which on a parser refuses, called from here."""
    low, high = 1, 5000
    while low < high:
        depth = (low + high) // 2
        try:
            parse(nested(depth, opening, closing))
        except RecursionError:
            high = depth
        else:
            low = depth + 1
    return low


def depths(parse: Callable[[str], object]) -> list[int]:
    """Return depths around that limit, and one far beyond."""
    found = limit(parse)
    # Whoever parses a document has a few calls more on the stack than whoever measures.
    return [*range(max(found - 30, 1), found + 3), 100_000]


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def places(value: object, text: str) -> list[str]:
    """Return a JSON document with a text in the place of each of its values, one at a time."""
    if not isinstance(value, dict):
        return [text]
    found = [text]
    for key, inside in value.items():
        for changed in places(inside, text):
            rest = {k: v for k, v in value.items() if k != key}
            members = [
                f"{json.dumps(key)}:{changed}",
                *(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in rest.items()),
            ]
            found.append("{" + ",".join(members) + "}")
    return found


@pytest.mark.parametrize("kind", JSON)
def test_json(kind: str) -> None:
    document, parse = JSON[kind]
    for depth in depths(json.loads):
        for text in (nested(depth), nested(depth, '{"a":', "1}"), "[" * depth):
            for changed in places(document, text):
                with suppress(Error):
                    parse(changed.encode())


@pytest.mark.parametrize("kind", TOML)
def test_toml(kind: str) -> None:
    form, parse = TOML[kind]
    for depth in depths(lambda text: tomllib.loads(f"x = {text}")):
        for value in (nested(depth), "[" * depth):
            for text in (form.format(value), f"x = {value}"):
                with suppress(Error):
                    parse(text.encode())
        with suppress(Error):
            parse(f"{'a.' * min(depth, 5000)}a = 1".encode())


def test_the_step_in_the_initramfs(tmp_path: Path) -> None:
    path = tmp_path / "setup-root-conf.toml"
    for depth in depths(lambda text: tomllib.loads(f"x = {text}")):
        for text in (f"etc = {nested(depth)}", f"[etc]\nmount = {nested(depth)}"):
            path.write_text(text)
            with pytest.raises(Error) as caught:
                setup_root.read_config(str(path))
            assert str(path) in one_line(caught.value)


def test_notes() -> None:
    for depth in depths(json.loads):
        value = nested(min(depth, 30_000))
        for key, parse in (
            ("imageDigest", notes.parse_cached_update),
            ("reason", notes.parse_failure),
            ("failures", notes.parse_cleanup_failures),
            ("manifest", notes.parse_imginfo),
        ):
            for text in (value, f'{{"{key}":{value}}}', f'{{"version":{value}}}'):
                with suppress(Error):
                    parse(text.encode())


def test_decisions(tmp_path: Path) -> None:
    for depth in depths(json.loads):
        value = nested(min(depth, 30_000))
        for text in (value, f'{{"decisions":{value}}}', f'{{"version":{value}}}'):
            (tmp_path / "etc-decisions.json").write_text(text)
            with StateDir(Dir.open(tmp_path), image_id("aa")) as state, suppress(Error):
                read_decisions(state)


def test_programs(tmp_path: Path) -> None:
    for depth in (900, 5000, 100_000):
        (tmp_path / "json").write_text(nested(depth))
        with suppress(CommandFailed):
            run_json(["cat", str(tmp_path / "json")])


def test_configurations_are_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "etc/bootc/install").mkdir(parents=True)
    for path, read in (
        (tmp_path / "conf", lambda: setup_root.read_config(str(tmp_path / "conf"))),
        (tmp_path / "etc/bootc/install/1.toml", lambda: read_config("x86_64", root=str(tmp_path))),
    ):
        with open(path, "wb") as file:
            file.truncate(1 << 40)
        with pytest.raises((Error, OSError), match="larger than"):
            read()
