from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.lint.tmpfiles import var_tmpfiles
from support.roots import Root, base

CONTENT = "Found content in /var missing systemd tmpfiles.d entries:\n"
OTHERS = "Found non-directory/non-symlink files in /var:\n"
CONF = "usr/lib/tmpfiles.d/x.conf"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = base(tmp_path / "root")
    root.file("etc/passwd", f"me:x:{os.getuid()}:0::/:\nother:x:{os.getuid()}:0::/:\n")
    root.file("etc/group", f"us:x:{os.getgid()}:\n")
    root.file(CONF, "d /var/log 0755 - - -\n")
    return root


def directory(root: Root, path: str, mode: int = 0o755) -> None:
    (root.path / path).mkdir(parents=True)
    (root.path / path).chmod(mode)


def test_nothing(root: Root) -> None:
    assert root.found(var_tmpfiles) is None


def test_directories_and_links(root: Root) -> None:
    for path, mode in (("lib", 0o755), ("lib/private", 0o700), ("tmp", 0o1777), ("a b", 0o755)):
        directory(root, f"var/{path}", mode)
    root.link("var/mail", "spool/mail").link("var/lib/x", "/var/run/y z")
    assert root.found(var_tmpfiles) == (
        f"{CONTENT}  L /var/lib/x - - - - /run/y\\x20z\n  L /var/mail - - - - spool/mail\n"
        "  d /var/a\\x20b 0755 me us - -\n  d /var/lib 0755 me us - -\n"
        "  d /var/lib/private 0700 me us - -\n  ...and 1 more\n"
    )


def test_numbers_without_a_name(root: Root) -> None:
    root.file("etc/passwd").file("etc/group")
    directory(root, "var/x")
    assert root.found(var_tmpfiles) == (
        f"{CONTENT}  d /var/x 0755 {os.getuid()} {os.getgid()} - -\n"
    )


def test_other_files(root: Root) -> None:
    root.file("var/log/x", "1").file("var/b c")
    os.mkfifo(root.path / "var/pipe")
    assert root.found(var_tmpfiles) == f"{OTHERS}  'var/b c'\n  var/log/x\n  var/pipe\n"


@pytest.mark.parametrize(
    "line",
    [
        "d /var/roothome",
        "d /var/roothome/ 0700 - - -",
        'C+ "/var/roothome"',
        "d /root 0700 root root -",
        "d /var/alias -",
        "z /var/./roothome -",
    ],
)
def test_lines_that_make_it(root: Root, line: str) -> None:
    directory(root, "var/roothome")
    root.link("root", "var/roothome").link("var/alias", "roothome")
    root.file("usr/lib/tmpfiles.d/y.conf", f"{line}\nL /var/alias - - - - roothome\n")
    assert root.found(var_tmpfiles) is None


def test_a_link_that_a_line_makes_is_not_taken_for_what_it_leads_to(root: Root) -> None:
    root.link("var/mail", "spool/mail").file(CONF, "d /var/log\nL /var/mail - - - - spool/mail")
    assert root.found(var_tmpfiles) is None


def test_var_run_is_run(root: Root) -> None:
    root.link("var/run", "../run")
    assert root.found(var_tmpfiles) == f"{CONTENT}  L /run - - - - ../run\n"
    root.file("usr/lib/tmpfiles.d/y.conf", "L /var/run - - - - ../run\n")
    assert root.found(var_tmpfiles) is None
    root.remove("var/run").directory("var/run/x")
    assert root.found(var_tmpfiles) is None


def test_etc_wins(root: Root) -> None:
    directory(root, "var/x")
    root.file("usr/lib/tmpfiles.d/y.conf", "d /var/x\n")
    assert root.found(var_tmpfiles) is None
    root.file("etc/tmpfiles.d/y.conf", "# nothing\n")
    assert root.found(var_tmpfiles) == f"{CONTENT}  d /var/x 0755 me us - -\n"
    root.file("etc/tmpfiles.d/z.conf", "d /var/x\n")
    assert root.found(var_tmpfiles) is None


def test_a_file_that_is_masked(root: Root) -> None:
    directory(root, "var/x")
    root.file("usr/lib/tmpfiles.d/y.conf", "d /var/x\n")
    # In a build /dev/null is a device; a directory is refused the same way.
    root.link("etc/tmpfiles.d/y.conf", "/dev")
    assert root.found(var_tmpfiles) == f"{CONTENT}  d /var/x 0755 me us - -\n"


def test_files_that_count_for_nothing(root: Root) -> None:
    directory(root, "var/x")
    root.file("usr/lib/tmpfiles.d/README", "d /var/x\n").file("run/tmpfiles.d/a.conf", "d /var/x\n")
    assert root.found(var_tmpfiles) == f"{CONTENT}  d /var/x 0755 me us - -\n"
