"""Exit codes that upstream's program has, too, or that ``differences.md`` explains."""

from __future__ import annotations

import pytest

from bootc.deploy.host import boot_state

WRONG = ["--no-such-option"]
#: A command line, and its exit code inside a container.
CALLS = [
    ([], 2),
    (["no-such-verb"], 2),
    (["upgrade", *WRONG], 2),
    (["switch"], 2),
    (["upgrade", "--check", "--apply"], 2),
    (["status", "--format", "xml"], 2),
    (["install"], 2),
    (["install", "to-disk"], 2),
    (["internals"], 2),
    (["internals", "print-json-schema"], 2),
    (["internals", "print-json-schema", "--of", "image"], 2),
    (["completion", "powershell"], 2),
    (["loader-entries", "set-options-for-source"], 2),
    (["help"], 0),
    (["help", "upgrade"], 0),
    (["install", "help"], 0),
    (["--help"], 0),
    (["-V"], 0),
    (["--version"], 0),
    (["completion", "bash"], 0),
    (["internals", "print-json-schema", "--of", "host"], 0),
    (["status"], 0),
    (["status", "--json"], 0),
    (["status", "--format-version", "1"], 0),
    (["status", "--format-version", "2"], 1),
    (["switch", "--transport", "bogus", "x"], 1),
    (["edit"], 1),
    (["loader-entries", "set-options-for-source", "--source", "x"], 1),
    (["state", "wipe-ostree"], 1),
    (["internals", "bootc-install-completion", "/sysroot", "default"], 1),
    (["switch", "--mutate-in-place", "x"], 1),
    *(
        (argv, 1)
        for argv in (
            ["upgrade"],
            ["upgrade", "--check"],
            ["switch", "x"],
            ["rollback"],
            ["delete-deployment", "a" * 128],
            ["composefs-finalize-staged"],
            ["config-diff"],
            ["internals", "fsck"],
            ["internals", "cleanup"],
            ["internals", "composefs-gc"],
        )
    ),
]


@pytest.mark.parametrize(
    ("argv", "expected"),
    CALLS,
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_exit_codes(bootc, argv: list[str], expected: int, monkeypatch) -> None:
    monkeypatch.setenv("container", "podman")
    if boot_state.booted_image(boot_state.read_mounts()) is not None:
        pytest.skip("this machine is one that the commands are for")
    code, out, err = bootc(*argv)
    assert code == expected
    assert bool(out) == (code == 0)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == (code != 0)
