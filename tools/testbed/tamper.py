"""Changes to a disk image behind the file system's back.

This is what the tests of integrity are about: bytes change although nobody wrote
to a file, which fs-verity would not allow on a running machine. Everything happens
offline, on a raw GPT image with an ext4 partition and an ESP, through ``sfdisk``,
``debugfs`` and ``mtools``; nothing is mounted. Work on a copy (:func:`testbed.disks.copy`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Discoverable Partitions Specification: root partition for x86-64.
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_SECTOR_BYTES = 512


class TamperError(Exception):
    """The image does not hold what was to be changed."""


@dataclass(frozen=True, slots=True)
class Ext4:
    """An ext4 file system inside a raw disk image."""

    image: Path
    offset_bytes: int
    block_size_bytes: int

    def debugfs(self, *requests: str, write: bool = False) -> str:
        """Run debugfs requests in order and return what they print.

        Raises:
            TamperError: debugfs complained.
        """
        mode = ["-w"] if write else []
        result = subprocess.run(
            ["debugfs", *mode, "-f", "-", f"{self.image}?offset={self.offset_bytes}"],
            input="\n".join(requests) + "\n",
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": _path(), "DEBUGFS_PAGER": "cat", "LANG": "C.UTF-8"},
        )
        complaints = [
            line for line in result.stderr.splitlines() if not line.startswith("debugfs 1.")
        ]
        if result.returncode != 0 or complaints:
            raise TamperError("; ".join(complaints) or f"debugfs: {result.returncode}")
        answers = [line for line in result.stdout.splitlines() if not line.startswith("debugfs: ")]
        return "\n".join(answers)

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory, "content")
            self.debugfs(f'dump "{path}" {target}')
            return target.read_bytes()

    def resolve(self, path: str) -> str:
        """Follow the symbolic link at the end of a path, if it is one."""
        match = re.search(r'Fast link dest: "(.*)"', self.debugfs(f'stat "{path}"'))
        target = match[1] if match else self._slow_link(path)
        if target is None:
            return path
        parts: list[str] = []
        for part in PurePosixPath(path).parent.joinpath(target).parts:
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        return str(PurePosixPath(*parts))

    def _slow_link(self, path: str) -> str | None:
        """The target of a link too long for its inode."""
        if "Type: symlink" not in self.debugfs(f'stat "{path}"'):
            return None
        return self.read(path).rstrip(b"\0").decode()

    def flip_byte(self, path: str, position: int) -> None:
        """Invert all bits of one byte of a file's content, on the medium only.

        Raises:
            TamperError: There is no data at the position.
        """
        block, within = divmod(position, self.block_size_bytes)
        answer = self.debugfs(f'bmap "{path}" {block}').strip()
        if not answer.isdigit() or int(answer) == 0:
            raise TamperError(f"{path}: no data at {position} ({answer})")
        where = self.offset_bytes + int(answer) * self.block_size_bytes + within
        with self.image.open("r+b") as file:
            file.seek(where)
            byte = file.read(1)
            file.seek(where)
            file.write(bytes([byte[0] ^ 0xFF]))

    def replace(self, path: str, content: bytes) -> None:
        """Put a new file with this content, without fs-verity, in a file's place."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            parent = PurePosixPath(path).parent
            self.debugfs(
                f'rm "{path}"', f'cd "{parent}"', f'write {file.name} "{PurePosixPath(path).name}"',
                write=True,
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fat:
    """A FAT file system inside a raw disk image."""

    image: Path
    offset_bytes: int

    def files(self) -> list[str]:
        """Return the paths of all files."""
        lines = self._mtool("mdir", "-b", "-/", "::").decode().splitlines()
        return [line.removeprefix("::/") for line in lines if line and not line.endswith("/")]

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        return self._mtool("mtype", f"::/{path}")

    def write(self, path: str, content: bytes) -> None:
        """Write a file, in the place of one that is there, with its directories."""
        parents = [str(parent) for parent in reversed(PurePosixPath(path).parents)][1:]
        for parent in parents:
            # It complains of what is there, and has no option for that.
            self._mtool("mmd", "-D", "s", f"::/{parent}", check=False)
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self._mtool("mcopy", "-o", file.name, f"::/{path}")

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._mtool("mdel", f"::/{path}")

    def _mtool(self, tool: str, *arguments: str, check: bool = True) -> bytes:
        """Run one of the mtools and return what it prints.

        Raises:
            TamperError: It failed, and ``check`` is set.
        """
        result = subprocess.run(
            [tool, "-i", f"{self.image}@@{self.offset_bytes}", *arguments],
            check=False,
            capture_output=True,
            env={**os.environ, "MTOOLS_SKIP_CHECK": "1"},
        )
        if check and result.returncode != 0:
            raise TamperError(f"{tool}: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout


def root_filesystem(image: Path) -> Ext4:
    """Find the ext4 root file system of a disk image by its partition type.

    Raises:
        TamperError: There is none.
    """
    offset = _partition_offset(image, ROOT_TYPE)
    return Ext4(image, offset, _block_size(image, offset))


def esp(image: Path) -> Fat:
    """Find the EFI system partition of a disk image by its partition type.

    Raises:
        TamperError: There is none.
    """
    return Fat(image, _partition_offset(image, ESP_TYPE))


def _partition_offset(image: Path, kind: str) -> int:
    table = json.loads(
        subprocess.run(
            ["sfdisk", "--json", str(image)],
            capture_output=True,
            check=True,
            env={**os.environ, "PATH": _path()},
        ).stdout
    )["partitiontable"]
    for partition in table.get("partitions", ()):
        if partition["type"].upper() == kind:
            offset: int = partition["start"] * table.get("sectorsize", _SECTOR_BYTES)
            return offset
    raise TamperError(f"{image}: no partition of the type {kind}")


def _block_size(image: Path, offset: int) -> int:
    """Read the superblock's block size: s_log_block_size, at 24 of the 1024th byte on."""
    with image.open("rb") as file:
        file.seek(offset + 1024)
        superblock = file.read(1024)
    if superblock[56:58] != b"\x53\xef":
        raise TamperError(f"{image}: no ext4 at {offset}")
    return 1024 << int.from_bytes(superblock[24:28], "little")


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
