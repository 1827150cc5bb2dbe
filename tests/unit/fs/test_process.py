"""Programs run in a clean environment and fail in one readable line."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.fs import process
from bootc.fs.process import CommandFailed, ToolMissing, find_tool, run, run_json, spawn


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_run_returns_what_was_written() -> None:
    done = run(sh("cat; echo err >&2"), input=b"in")
    assert (done.stdout, done.stderr, done.returncode) == (b"in", b"err\n", 0)


def test_standard_input_is_empty_unless_given() -> None:
    assert run(["cat"]).stdout == b""


def test_accepted_exit_codes_are_no_failure() -> None:
    assert run(sh("exit 2"), ok=(0, 2)).returncode == 2


def test_a_failure_is_one_line_with_the_last_words() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(sh("for i in 1 2 3 4; do echo  line $i >&2; done; echo >&2; exit 3"))
    assert one_line(caught.value) == (
        "sh -c 'for i in 1 2 3 4; do echo  line $i >&2; done; echo >&2; exit 3' "
        "failed with exit code 3: line 2; line 3; line 4"
    )
    assert caught.value.returncode == 3
    assert caught.value.stderr.startswith(b"line 1\n")


def test_last_words_that_are_not_utf8_are_shown() -> None:
    with pytest.raises(CommandFailed, match=re.escape(r"failed with exit code 1: \xff")):
        run(sh(r"printf '\377' >&2; exit 1"))


def test_a_killed_program_names_the_signal() -> None:
    with pytest.raises(CommandFailed, match=r"was killed by SIGKILL$"):
        run(sh("kill -9 $$"))


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bootc.fs.process._SYSTEM_PATH", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing) as caught:
        run(["mkfs.ext4", "/dev/null"])
    assert one_line(caught.value) == (
        "the program mkfs.ext4 is not installed (hint: on Debian it is in the package e2fsprogs)"
    )
    with pytest.raises(ToolMissing) as caught:
        run(["no-such-tool"])
    assert caught.value.hint is None


def test_system_directories_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_tool("sh") in ("/usr/bin/sh", "/bin/sh")
    assert b"/usr/sbin" in run(sh("echo $PATH")).stdout


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "xx_XX")
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("https_proxy", "http://proxy")
    done = run(python("import os; print(dict(os.environ))"), env={"MINE": "2"})
    environment = done.stdout.decode()
    assert "'LANG': 'C.UTF-8'" in environment
    assert "'https_proxy': 'http://proxy'" in environment
    assert "'MINE': '2'" in environment
    assert "SECRET" not in environment
    assert "xx_XX" not in environment


def test_no_descriptor_is_inherited_unless_named(tmp_path: Path) -> None:
    with open(tmp_path / "f", "w") as file:
        os.set_inheritable(file.fileno(), True)
        script = f"test -e /proc/self/fd/{file.fileno()}"
        assert run(sh(script), ok=(1,)).returncode == 1
        run(sh(script), pass_fds=(file.fileno(),))


def test_the_directory_to_run_in(tmp_path: Path) -> None:
    assert run(["pwd"], cwd=str(tmp_path)).stdout.decode().strip() == str(tmp_path)


def test_run_json() -> None:
    assert run_json(["echo", '{"a": [1]}']) == {"a": [1]}
    with pytest.raises(CommandFailed, match="echo nope failed: its output is not JSON"):
        run_json(["echo", "nope"])


def test_a_child_talks_over_its_standard_input() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = spawn(sh("read line; echo got $line >&0"), stdin=theirs.fileno())
        with child:
            ours.sendall(b"this\n")
            assert ours.recv(99) == b"got this\n"
            child.wait(timeout_s=10)
            assert child.poll() == 0


def test_a_child_gets_the_descriptors_named() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader:
        with open(write_end, "wb"):
            child = spawn(python(f"import os; os.write({write_end}, b'hi')"), pass_fds=(write_end,))
        with child:
            assert reader.read() == b"hi"


def test_a_child_that_fails_tells_why() -> None:
    with spawn(sh("echo no such registry >&2; exit 4")) as child:
        with pytest.raises(CommandFailed, match="exit code 4: no such registry"):
            child.wait(timeout_s=10)
        assert child.failure().returncode == 4


def test_a_child_that_writes_much_does_not_block() -> None:
    with spawn(sh("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1")) as child:
        with pytest.raises(CommandFailed):
            child.wait(timeout_s=10)
        assert child.stderr() == b"x" * 8192


def test_a_child_is_stopped_at_the_end() -> None:
    with spawn(["sleep", "60"]) as child:
        with pytest.raises(TimeoutError, match="sleep 60 still runs"):
            child.wait(timeout_s=0.01)
        assert "sleep 60 failed" in str(child.failure())
    assert child.poll() is not None


def test_a_stubborn_child_is_killed() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader:
        with open(write_end, "wb"):
            script = (
                "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                f"os.write({write_end}, b'ready'); signal.pause()"
            )
            child = spawn(python(script), pass_fds=(write_end,))
        assert reader.read(5) == b"ready"
        child.stop(timeout_s=0.05)
        child.stop()
    assert child.poll() == -9


def test_a_missing_tool_cannot_be_spawned() -> None:
    with pytest.raises(ToolMissing):
        spawn(["no-such-tool"])


def test_what_a_program_writes_last_is_no_command_for_a_terminal() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(sh(r"printf '50%%\r100%%\r\nfailed\t\033[31m\302\205\377\n' >&2; exit 1"))
    last = r"50%; 100%; failed \x1b[31m\u0085\xff"
    assert str(caught.value).endswith(f"failed with exit code 1: {last}")


def test_standard_error_without_end_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(sh("head -c 50000000 /dev/zero >&2; echo done"))
    assert (done.stdout, len(done.stderr)) == (b"done\n", 8192)


def test_output_is_read_up_to_a_limit() -> None:
    assert run(sh("printf 12345"), limit=5).stdout == b"12345"
    with pytest.raises(CommandFailed, match="failed: it wrote more than 4 bytes"):
        run(sh("printf 12345"), limit=4)
    with pytest.raises(CommandFailed, match=r"^cat /dev/zero failed: it wrote more than 67108864"):
        run(["cat", "/dev/zero"])
    with pytest.raises(CommandFailed, match="exit code 3: no"):
        run(sh("echo no >&2; exit 3"), limit=4)


def test_both_directions_at_once() -> None:
    data = os.urandom(3_000_000)
    assert run(["cat"], input=data).stdout == data


def test_a_program_need_not_read_its_input() -> None:
    assert run(["true"], input=b"x" * 1_000_000).returncode == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [(rb'{"a": "\377"}', {"a": "\udcff"}), (rb'["\r\033"]', ["\r\x1b"])],
)
def test_json_of_tools_that_do_not_escape(text: bytes, value: object) -> None:
    assert run_json(["printf", os.fsdecode(text)]) == value


@pytest.mark.parametrize("text", ["[" * 20_000, '{"a":' * 20_000, "1" * 5000])
def test_json_beyond_all_limits(text: str) -> None:
    with pytest.raises(CommandFailed, match="its output is not JSON"):
        run_json(["printf", text])


def test_the_last_words_of_a_child_are_heard() -> None:
    for _ in range(20):
        failure = pytest.raises(CommandFailed, match="exit code 3: last words")
        with spawn(sh("echo last words >&2; exit 3")) as child, failure:
            child.wait(timeout_s=10)


def test_a_child_that_leaves_somebody_behind_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_LAST_WORDS_TIMEOUT_S", 0.1)
    failure = pytest.raises(CommandFailed, match=r"exit code 3$")
    with spawn(sh("sleep 3 & exit 3")) as child, failure:
        child.wait(timeout_s=10)
