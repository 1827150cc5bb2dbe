"""Initramfs archives by hand, in the kernel's own format (buffer-format.rst)."""

from __future__ import annotations

from collections.abc import Iterable


def archive(*members: tuple[str, bytes]) -> bytes:
    """Return a cpio archive of files with these names and contents."""
    data = b"".join(member(name, content) for name, content in members)
    return data + member("TRAILER!!!", b"")


def named(names: Iterable[str]) -> bytes:
    """Return a cpio archive of small files with these names."""
    return archive(*((name, b"x") for name in names))


def member(name: str, content: bytes) -> bytes:
    """Return one member."""
    mode, links = (0o100644, 1) if content else (0, 1)
    numbers = (0, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers)
    return _aligned(header + name.encode() + b"\0") + _aligned(content)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
