"""``bootc internals cfs`` as a test runs it: one repository, outputs as values."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.repository.repository import Repository


class Cfs:
    """Runs verbs on a repository, which need not exist yet."""

    def __init__(
        self,
        repo: Path,
        capsys: pytest.CaptureFixture[bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.repo = repo
        self._capsys = capsys

    def raw(self, *words: object, group: tuple[str, ...] = ()) -> tuple[int, bytes, str]:
        """Run a verb; return the exit code, standard output and standard error."""
        arguments = ["internals", "cfs", "--repo", str(self.repo), *group, *map(str, words)]
        code = cli.main(arguments)
        out, err = self._capsys.readouterr()
        return code, out, err.decode()

    def __call__(self, *words: object, code: int = 0, group: tuple[str, ...] = ()) -> str:
        """Run a verb that ends with ``code``, and return what it prints."""
        found, out, err = self.raw(*words, group=group)
        assert found == code, err
        return out.decode()

    def error(self, *words: object, code: int = 1, group: tuple[str, ...] = ()) -> str:
        """Run a verb that prints nothing but an error, and return that."""
        found, out, err = self.raw(*words, group=group)
        assert (found, out) == (code, b"")
        return err.splitlines()[-1].removeprefix("error: ")

    @contextlib.contextmanager
    def repository(self) -> Iterator[Repository]:
        """Open the repository to look into it, or to put something into it."""
        with (
            Dir.open(self.repo.parent) as parent,
            Repository.open(
                parent, name=self.repo.name, require_verity=False, writable=True
            ) as repository,
        ):
            yield repository

    def path_of(self, digest: Digest) -> Path:
        """Return where an object lies."""
        return self.repo / "objects" / digest.object_path

    def objects(self) -> dict[str, tuple[int, int]]:
        """Return what tells whether an object was written again, by its name."""
        found = {}
        for path in (self.repo / "objects").glob("*/*"):
            info = path.stat()
            found[path.parent.name + path.name] = (info.st_ino, info.st_mtime_ns)
        return found

    def damage(self, digest: Digest) -> None:
        """Replace an object by zeros of its size."""
        path = self.path_of(digest)
        size = path.stat().st_size
        path.unlink()
        path.write_bytes(bytes(size))


@contextlib.contextmanager
def stdin(path: Path) -> Iterator[None]:
    """Make a file the standard input of this process."""
    before = os.dup(0)
    try:
        with open(path, "rb") as file:
            os.dup2(file.fileno(), 0)
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
