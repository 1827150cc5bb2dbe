"""What the tests of interrupted commands share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stored import IN_MEMORY


@pytest.fixture
def where() -> Iterator[Path]:
    """An empty directory in memory, for copies of machines whose power fails."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)
