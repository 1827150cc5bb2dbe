"""Checked libc calls."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from bootc.kernel import libc


def test_result_is_returned() -> None:
    assert libc.call("getpid") == os.getpid()


def test_failure_raises_with_errno_and_text() -> None:
    with pytest.raises(NotADirectoryError) as caught:
        libc.call("chdir", "/dev/null")
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.strerror == os.strerror(errno.ENOTDIR)


def test_failed_system_call_raises() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        libc.syscall(libc.SYS_FSMOUNT, -1, 0, 0)


def test_unknown_system_call_raises() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        libc.syscall(9999)


def test_strings_are_encoded_and_may_be_null() -> None:
    buffer = ctypes.create_string_buffer(64)
    number = {"x86_64": 89, "aarch64": 78}[os.uname().machine]  # readlink, readlinkat
    if number == 89:
        length = libc.syscall(number, "/proc/self/cwd", buffer, 64)
    else:
        length = libc.syscall(number, libc.AT_FDCWD, "/proc/self/cwd", buffer, 64)
    assert buffer.raw[:length].startswith(b"/")
    with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
        libc.call("chdir", None)


@pytest.mark.parametrize("text", ["a\0b", b"a\0b"])
def test_null_bytes_do_not_cut_a_string_short(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="embedded null byte"):
        libc.call("chdir", text)
