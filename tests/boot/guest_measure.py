"""Sent into the machine: what the kernel says of every object of a repository, as JSON.

Independent of bootc on purpose. The argument is the repository's ``objects``: each path
below is mapped to the hex of its fs-verity digest, or to null where the file has none.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import sys

FS_IOC_MEASURE_VERITY = 0xC0046686
SHA512 = 2
OBJECTS = sys.argv[1]


def measure(path: str) -> str | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(struct.pack("<HH", 0, 64) + bytes(64))
        try:
            fcntl.ioctl(fd, FS_IOC_MEASURE_VERITY, buffer)
        except OSError as exc:
            if exc.errno == errno.ENODATA:
                return None
            raise
        algorithm, size = struct.unpack_from("<HH", buffer)
        assert algorithm == SHA512, algorithm
        return buffer[4 : 4 + size].hex()
    finally:
        os.close(fd)


found = {}
for directory in os.listdir(OBJECTS):
    for name in os.listdir(f"{OBJECTS}/{directory}"):
        found[f"{directory}/{name}"] = measure(f"{OBJECTS}/{directory}/{name}")
sys.stdout.write(json.dumps(found))
