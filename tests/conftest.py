"""What every test may ask for, and what makes it the same test on every machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import hypothesis
import pytest

from bootc.formats import _speed
from support import require
from support.examples import FEW, MANY, THOROUGH

# The same examples for everybody, and no limits that a slow machine exceeds. Hypothesis does
# so by itself only where it finds the variables of a CI. `--hypothesis-profile=default` draws
# other examples each time.
for profile, examples in (("repeatable", FEW), (THOROUGH, MANY)):
    hypothesis.settings.register_profile(
        profile,
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("repeatable")

# What a calling make, a git hook or a person's shell leaves in the environment, and what changes
# the output of programs that tests start.
LEFT_BY_OTHERS = {
    *("MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "MAKELEVEL", "MAKEOVERRIDES"),
    *("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX"),
    *("POSIXLY_CORRECT", "CDPATH", "GREP_OPTIONS", "TAR_OPTIONS", "XZ_OPT", "GZIP"),
    *("DESTDIR", "RUST_LOG", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"),
}


def pytest_configure() -> None:
    """Undo what a user may have set and what changes results."""
    os.umask(0o022)
    for name in LEFT_BY_OTHERS & set(os.environ):
        del os.environ[name]
    # A shell without job control starts programs in the background with these ignored.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            interrupts = number is signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupts else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what only root can arrange; ``make test`` runs that as root."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: make test runs it as root")


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
        require.lacking(
            f"the compiled extension is {_speed.EXTENSION} (make dev builds it with a C compiler)"
        )
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
