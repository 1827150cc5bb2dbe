"""What every test may ask for."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from bootc.formats import _speed
from support import require


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test logged be sent from a worker: names of files need not be text."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture
def kernel() -> str:
    """The compiled kernel's name; without one the test cannot run."""
    if _speed.EXTENSION != "built":
        require.lacking(f"the compiled extension is {_speed.EXTENSION} (make dev builds it)")
    if _speed.KERNEL is None:
        pytest.skip("the compiled extension has no kernel for this processor")
    return _speed.KERNEL


@pytest.fixture(params=["pure", "compiled"])
def hashing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test twice: with Python's own hashes, and with the compiled kernel."""
    if request.param == "compiled":
        request.getfixturevalue("kernel")
        monkeypatch.setattr(_speed, "leaves", _speed.leaves_compiled)
    else:
        monkeypatch.setattr(_speed, "leaves", _speed.leaves_pure)
