"""fs-verity ioctls: enable and measure (kernel documentation, filesystems/fsverity).

Algorithms are the kernel's numbers and digests are bytes; :mod:`bootc.formats.digest` has
the types.
"""

from __future__ import annotations

import fcntl
import os
import struct

FS_VERITY_HASH_ALG_SHA256 = 1
FS_VERITY_HASH_ALG_SHA512 = 2

FS_IOC_ENABLE_VERITY = 0x40806685
FS_IOC_MEASURE_VERITY = 0xC0046686

#: The file systems that list their features in sysfs.
_SHOWING = ("ext4", "f2fs")
_MAX_DIGEST = 64
# version, hash_algorithm, block_size, salt_size, salt_ptr, sig_size, reserved, sig_ptr, reserved
_ENABLE_ARG = struct.Struct("=IIIIQIIQ88x")
_DIGEST = struct.Struct("=HH")


def is_in_kernel(*, sysfs: str = "/sys") -> bool | None:
    """Tell whether the running kernel has fs-verity; None if no loaded file system shows it.

    The kernel has one switch for all file systems, and these show its state.
    """
    for name in _SHOWING:
        features = f"{sysfs}/fs/{name}/features"
        if os.path.isdir(features):
            return os.path.exists(f"{features}/verity")
    return None


def enable(fd: int, algorithm: int, *, block_size: int = 4096) -> None:
    """Build the Merkle tree of a file and make it read-only permanently.

    ``fd`` must be open for reading only, and no process may have the file open for writing.

    Raises:
        OSError: EEXIST if it is enabled already, ETXTBSY if a process can write to the file,
            EOPNOTSUPP or ENOTTY if the file system has no fs-verity, EROFS, ENOSPC, and so on.
    """
    fcntl.ioctl(fd, FS_IOC_ENABLE_VERITY, _ENABLE_ARG.pack(1, algorithm, block_size, 0, 0, 0, 0, 0))


def measure(fd: int) -> tuple[int, bytes]:
    """Return a file's algorithm number and digest, as the kernel enforces them.

    Raises:
        OSError: ENODATA if the file has no fs-verity, EOPNOTSUPP or ENOTTY if the file system
            has no fs-verity.
    """
    request = _DIGEST.pack(0, _MAX_DIGEST) + bytes(_MAX_DIGEST)
    answer = fcntl.ioctl(fd, FS_IOC_MEASURE_VERITY, request)
    algorithm, size = _DIGEST.unpack_from(answer)
    return algorithm, answer[_DIGEST.size : _DIGEST.size + size]
