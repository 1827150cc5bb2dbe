"""Sends commands to the TPM through the resource manager of the kernel.

A command is one write and its reply one read (Documentation/security/tpm and
``drivers/char/tpm/tpm-dev-common.c`` of Linux). The device is opened without blocking, so that a
TPM that does not answer cannot stop a boot.

The initramfs imports this module.
"""

from __future__ import annotations

import errno
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

DEVICE = "/dev/tpmrm0"
ACPI_TABLE = "/sys/firmware/acpi/tables/TPM2"
#: How long a command may take. Those for the NV memory take a fraction of a second.
DEADLINE_S = 20.0
_MAX_REPLY_BYTES = 4096
_HEADER_SIZE = 10
_POLL_S = 0.05


class Tpm:
    """An open TPM.

    Args:
        fd: Its descriptor. The object owns it.
        deadline_s: How long a command may take, in seconds.
    """

    def __init__(self, fd: int, *, deadline_s: float = DEADLINE_S) -> None:
        self._fd = fd
        self._deadline_s = deadline_s

    def __enter__(self) -> Tpm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def transmit(self, command: bytes) -> bytes:
        """Send a command and return the reply, whose size is the one that its header states.

        Raises:
            OSError: the device failed, ETIMEDOUT if it did not answer in time, EPROTO if the reply
                is too large or ends early.
        """
        until = time.monotonic() + self._deadline_s
        os.write(self._fd, command)
        reply = b""
        while len(reply) < self._size(reply):
            self._wait(until)
            try:
                part = os.read(self._fd, _MAX_REPLY_BYTES)
            except BlockingIOError:
                continue
            if not part:
                raise OSError(errno.EPROTO, "the TPM ended its reply early")
            reply += part
        return reply

    def _wait(self, until: float) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        left_ms = int((until - time.monotonic()) * 1000)
        if left_ms <= 0 or not poll.poll(left_ms):
            raise OSError(errno.ETIMEDOUT, "the TPM does not answer")

    @staticmethod
    def _size(reply: bytes) -> int:
        if len(reply) < _HEADER_SIZE:
            return _HEADER_SIZE
        size = int.from_bytes(reply[2:6], "big")
        if not _HEADER_SIZE <= size <= _MAX_REPLY_BYTES:
            raise OSError(errno.EPROTO, "the size of the TPM's reply is wrong")
        return size


def open_tpm(path: str = DEVICE, *, wait_s: float = 0, table: str = ACPI_TABLE) -> Tpm | None:
    """Open the TPM, or return None if the machine has none.

    Args:
        path: The device.
        wait_s: How long to wait for the device, in seconds, if the firmware announces a TPM. Early
            in a boot its driver may not be ready.
        table: What the firmware announces it with.

    Raises:
        OSError: it exists and cannot be opened.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            return Tpm(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
                raise
        if time.monotonic() >= until or not is_announced(table):
            return None
        time.sleep(_POLL_S)


def is_announced(table: str = ACPI_TABLE) -> bool:
    """Tell whether the firmware says that there is a TPM. Not every firmware does."""
    return os.path.exists(table)
