from __future__ import annotations

import os

import pytest

from bootc.deploy.install.selinux import SelinuxState, selinux_state
from bootc.formats.tree import Directory, Inline, Leaf, Stat

WITHOUT = Directory()
WITH = Directory(
    entries={
        b"etc": Directory(
            entries={b"selinux": Directory(entries={b"config": Leaf(Stat(), Inline(b""))})}
        )
    }
)


@pytest.mark.parametrize(
    ("root", "disable", "host", "state"),
    [
        (WITHOUT, False, True, SelinuxState.DISABLED),
        (WITHOUT, True, True, SelinuxState.DISABLED),
        (WITH, True, True, SelinuxState.FORCE_TARGET_DISABLED),
        (WITH, False, True, SelinuxState.ENABLED),
        (WITH, False, False, SelinuxState.HOST_DISABLED),
    ],
)
def test_the_state_of_image_and_host(
    monkeypatch: pytest.MonkeyPatch,
    root: Directory,
    disable: bool,
    host: bool,
    state: SelinuxState,
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: host)
    assert selinux_state(root, disable=disable) is state
