"""Checked libc calls."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from bootc.kernel import libc

SYS_FACCESSAT2 = 439


def test_result_is_returned() -> None:
    assert libc.call("getpid") == os.getpid()


def test_failure_raises_with_errno_and_text() -> None:
    with pytest.raises(NotADirectoryError) as caught:
        libc.call("chdir", "/dev/null")
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.strerror == os.strerror(errno.ENOTDIR)


def test_failed_system_call_raises() -> None:
    # One that asks for no rights, and has one number on every architecture.
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        libc.syscall(SYS_FACCESSAT2, -1, "x", 0, 0)


def test_unknown_system_call_raises() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        libc.syscall(9999)


def test_strings_are_encoded_and_may_be_null() -> None:
    buffer = ctypes.create_string_buffer(64)
    length = libc.call("readlink", "/proc/self/cwd", buffer, 64)
    assert buffer.raw[:length] == os.fsencode(os.getcwd())[:64]
    assert libc.syscall(SYS_FACCESSAT2, libc.AT_FDCWD, "/proc/self/cwd", os.R_OK, 0) == 0
    with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
        libc.call("chdir", None)


@pytest.mark.parametrize("text", ["a\0b", b"a\0b"])
def test_null_bytes_do_not_cut_a_string_short(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="embedded null byte"):
        libc.call("chdir", text)
