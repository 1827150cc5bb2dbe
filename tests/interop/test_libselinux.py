"""Debian's policy, looked up by us and by libselinux.

Policy and tools come from ``tools/selinux-policy``. The two agree wherever the policy is
sorted as libselinux sorts it: ``semodule`` writes it so, but for ``file_contexts.homedirs``,
whose patterns come last here while libselinux puts paths without wildcards behind them.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from bootc.formats.filecontexts import FileContexts, FileType, Rule, parse_file_contexts
from bootc.formats.tree import CharDevice, Directory, Inline, Leaf, Stat, Symlink
from bootc.fs.dir import Dir
from bootc.oci.selabel import find_policy, label_tree
from support import require

pytestmark = pytest.mark.interop

REPOSITORY = Path(__file__).parents[2]
POLICY = REPOSITORY / "build/selinux-policy"
FILES = "etc/selinux/default/contexts/files"
#: What matchpathcon calls the types.
TYPES = {
    FileType.REGULAR: "file",
    FileType.DIRECTORY: "dir",
    FileType.SYMLINK: "lnk_file",
    FileType.CHAR_DEVICE: "chr_file",
    FileType.BLOCK_DEVICE: "blk_file",
    FileType.FIFO: "pipe",
    FileType.SOCKET: "sock_file",
}
Question = tuple[str, FileType]


@pytest.fixture(scope="module")
def policy_tree() -> Directory:
    """A tree that holds the policy."""
    done = subprocess.run([REPOSITORY / "tools/selinux-policy"], capture_output=True, check=False)
    if done.returncode != 0:
        require.lacking(f"tools/selinux-policy failed: {done.stderr.decode()}")
    with Dir.open(POLICY / FILES) as directory:
        files = Directory(
            Stat(),
            {
                name.encode(): Leaf(Stat(), Inline(directory.read_bytes(name)))
                for name in directory.names()
            },
        )
    assert b"file_contexts.homedirs" in files.entries
    for name in reversed(Path(FILES).parts[2:]):
        files = Directory(Stat(), {name.encode(): files})
    files.entries[b"config"] = Leaf(Stat(), Inline(b"SELINUXTYPE=default\n"))
    return Directory(Stat(), {b"etc": Directory(Stat(), {b"selinux": files})})


def read(content: object) -> bytes:
    assert isinstance(content, Inline)
    return content.data


@pytest.fixture(scope="module")
def policy(policy_tree: Directory) -> FileContexts:
    found = find_policy(policy_tree, read)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def rules() -> list[Rule]:
    names = ("file_contexts", "file_contexts.homedirs")
    return [
        rule
        for name in names
        for rule in parse_file_contexts((POLICY / FILES / name).read_bytes(), name)
    ]


def theirs(questions: list[Question]) -> dict[Question, str]:
    libraries = {str(path.parent) for path in POLICY.rglob("libselinux.so.*")}
    answers: dict[Question, str] = {}
    for file_type, name in TYPES.items():
        paths = sorted({path for path, asked in questions if asked is file_type})
        if not paths:
            continue
        done = subprocess.run(
            [
                *(POLICY / "usr/sbin/matchpathcon", "-m", name),
                *("-f", POLICY / FILES / "file_contexts", *paths),
            ],
            env={"LD_LIBRARY_PATH": ":".join(libraries)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        for path, line in zip(paths, lines, strict=True):
            told, _, label = line.partition("\t")
            assert told == path
            answers[path, file_type] = label
    return answers


def ours(policy: FileContexts, questions: list[Question]) -> dict[Question, str]:
    answers = {}
    for path, file_type in questions:
        known = b""
        for name in path.encode().split(b"/")[1:]:
            known += b"/" + name
            known = policy.aliases.get(known, known)
        label = policy.lookup(known, file_type)
        answers[path, file_type] = "<<none>>" if label is None else label.decode()
    return answers


def files_below(top: str) -> list[str]:
    """Return every path below a directory, but those where other tests write meanwhile."""
    found: list[str] = []
    for directory, directories, names in os.walk(top):
        if directory == "/dev":
            directories[:] = sorted({*directories} - {"shm", "pts"})
        found += (os.path.join(directory, name) for name in (*directories, *names))
    return sorted(found)


def test_files_of_this_machine(policy: FileContexts) -> None:
    questions: list[Question] = []
    for top in ("/usr", "/etc", "/var/lib", "/dev", "/opt"):
        found = files_below(top)
        for path in found[:: max(len(found) // 800, 1)]:
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                continue  # a loop device's partition, which another process has detached
            file_type = {stat.S_IFDIR: FileType.DIRECTORY, stat.S_IFLNK: FileType.SYMLINK}.get(
                stat.S_IFMT(mode), FileType.REGULAR
            )
            # matchpathcon resolves symlinks on the way, and has no use for odd names.
            if os.path.realpath(os.path.dirname(path)) == os.path.dirname(path) and path.isascii():
                questions.append((path, file_type))
    assert len(questions) > 1000
    assert ours(policy, questions) == theirs(questions)


def example_of(rule: Rule) -> str | None:
    """Return a path the rule's pattern may match, if that is easy to say."""
    text = rule.pattern.decode()
    for pattern, example in (
        (r"(/.*)?", "/some.thing"),
        (r"\.", "."),
        (".*", "x"),
        ("[^/]+", "user"),
        (".+", "y.so"),
        ("[0-9]", "7"),
        ("?", ""),
    ):
        text = text.replace(pattern, example)
    text = re.sub(r"\(([^()|]*)(\|[^()]*)?\)", r"\1", text)
    return text if text.startswith("/") and not re.search(r"[\\()\[\]*+|^${}]", text) else None


def test_every_rule_is_asked_for(policy: FileContexts, rules: list[Rule]) -> None:
    questions = [
        (path, rule.file_type or FileType.REGULAR)
        for rule in rules
        if (path := example_of(rule)) is not None
        # What is here a symlink would be resolved.
        and os.path.realpath(path) == path
    ]
    assert len(questions) > 4000
    expected, found = theirs(questions), ours(policy, questions)
    assert expected.keys() == found.keys()
    different = {path for path, kind in found if found[path, kind] != expected[path, kind]}
    # A path without wildcards, in a home directory that a wildcard labels.
    assert all(path.startswith(("/root/", "/home/")) for path in different), different
    assert len(different) <= 5
    assert len(set(found.values())) > 1000


def test_a_tree_is_labelled(policy_tree: Directory) -> None:
    root = Directory(Stat(0o755), dict(policy_tree.entries))
    device, link = Leaf(Stat(), CharDevice(259)), Leaf(Stat(), Symlink(b"x"))
    root.entries |= {
        b"dev": Directory(Stat(), {b"null": device}),
        b"usr": Directory(Stat(), {b"bin": Directory(Stat(), {b"x": device, b"sh": link})}),
        b"bin": link,
        b"sbin": Directory(Stat(), {b"fsck": Leaf(Stat(), Inline(b""))}),
        b"run": Directory(Stat(), {b"lock": Directory(), b"file": link}),
    }
    policy = find_policy(root, read)
    assert policy is not None
    labelled = label_tree(root, policy)
    assert {
        path.decode(): node.stat.xattrs.get(b"security.selinux", b"-")
        .decode()
        .removeprefix("system_u:object_r:")
        .removesuffix(":s0")
        for path, node in labelled.walk()
        if not path.startswith(b"/etc/")
    } == {
        **{"/": "root_t", "/etc": "etc_t"},
        **{"/dev": "device_t", "/dev/null": "null_device_t"},
        **{"/usr": "usr_t", "/usr/bin": "bin_t", "/usr/bin/x": "bin_t", "/usr/bin/sh": "bin_t"},
        # By aliases: /bin and /sbin are below /usr, /run/lock is /var/lock.
        **{"/bin": "bin_t", "/sbin": "bin_t", "/sbin/fsck": "fsadm_exec_t"},
        **{"/run": "var_run_t", "/run/lock": "var_lock_t", "/run/file": "-"},
    }
