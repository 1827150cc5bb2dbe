"""Recognizes a kernel image (``vmlinuz``), and reads its release.

On x86 the setup header has a pointer to the release, as ``uname -r`` prints it. Images for
other machines do not contain it.

Format: Linux, ``Documentation/arch/x86/boot.rst``, "The Real-Mode Kernel Header";
``Documentation/arch/arm64/booting.rst``; ``Documentation/arch/riscv/boot-image-header.rst``;
``arch/s390/boot/head.S``.
"""

from __future__ import annotations

#: The part of the file that is read, with room for the longest release.
HEAD_BYTES = 1 << 17

#: The beginning of an EFI program, of gzip data (arm64) and of an ELF file (ppc64).
_MAGICS = (b"MZ", b"\x1f\x8b", b"\x7fELF")
#: Images that are not EFI programs: arm64, riscv64, s390x.
_MAGICS_AT = ((0x38, b"ARM\x64"), (0x38, b"RSC\x05"), (0x10008, b"S390EP"))
_X86_MAGIC_AT = 0x202
_X86_MAGIC = b"HdrS"
_VERSION_POINTER = slice(0x20E, 0x210)
_SETUP_BYTES = 0x200
#: UTS_RELEASE has at most 64 characters, with its zero byte.
_MAX_RELEASE_BYTES = 65


def is_kernel(head: bytes) -> bool:
    """Tell whether a file can be a kernel image.

    Args:
        head: The first :data:`HEAD_BYTES` of the file, or all of it.
    """
    return head.startswith(_MAGICS) or any(head.startswith(m, at) for at, m in _MAGICS_AT)


def kernel_release(head: bytes) -> str | None:
    """Return the release that a kernel image states, or None.

    Args:
        head: The first :data:`HEAD_BYTES` of the file, or all of it.
    """
    if head[_X86_MAGIC_AT : _X86_MAGIC_AT + len(_X86_MAGIC)] != _X86_MAGIC:
        return None
    pointer = int.from_bytes(head[_VERSION_POINTER], "little")
    if not pointer:
        return None
    start = _SETUP_BYTES + pointer
    text = head[start : start + _MAX_RELEASE_BYTES].partition(b"\0")[0].partition(b" ")[0]
    release = text.decode("ascii", "replace")
    return release if release and release.isascii() and release.isprintable() else None
