"""Repositories in a temporary directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.repository.repository import Repository
from support.stored import Store
from support.verity import FakeVerity


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Dir]:
    with Dir.open(tmp_path) as parent:
        yield parent


@pytest.fixture
def insecure(parent: Dir) -> Iterator[Repository]:
    """A repository where the kernel knows no fs-verity."""
    kernel = FakeVerity(error=95)
    with Repository.create(parent, secure=False, verity=kernel) as repository:
        yield repository


@pytest.fixture
def secure(parent: Dir) -> Iterator[Repository]:
    """A repository that demands fs-verity, and a kernel that has it."""
    with Repository.create(parent, secure=True, verity=FakeVerity()) as repository:
        yield repository


@pytest.fixture(params=["insecure", "secure"])
def repository(request: pytest.FixtureRequest) -> Repository:
    """Either."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def store() -> Store:
    return Store()
