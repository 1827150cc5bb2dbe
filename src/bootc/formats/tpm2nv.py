"""Commands and replies of a TPM 2.0 for its non-volatile (NV) memory, as bytes.

Only the commands that a counter needs. A command is authorized by an empty password. The caller
moves the bytes (:data:`Transmit`).

Source: TCG, "Trusted Platform Module Library" 1.59, part 2 (structures) and part 3 (commands).

The initramfs imports this module.
"""

from __future__ import annotations

import struct

from bootc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    #: Sends one command to the TPM and returns its reply; raises OSError.
    Transmit = Callable[[bytes], bytes]

#: Larger replies of a TPM are malformed.
MAX_REPLY_BYTES = 4096

# Attributes of an index (TPMA_NV). The type of the index is in bits 4 to 7.
AUTHWRITE = 1 << 2
COUNTER = 1 << 4
TYPE_MASK = 0xF << 4
OWNERREAD = 1 << 17
AUTHREAD = 1 << 18
NO_DA = 1 << 25
WRITTEN = 1 << 29

_OWNER = 0x40000001
_PASSWORD = 0x40000009
_SHA256 = 0x000B
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_UNDEFINE_SPACE, _DEFINE_SPACE = 0x122, 0x12A
_INCREMENT, _READ, _READ_PUBLIC = 0x134, 0x14E, 0x169

_HEADER = struct.Struct(">HII")
#: One session: the password session, without nonce, attributes and password.
_EMPTY_PASSWORD = struct.pack(">IIHBH", 9, _PASSWORD, 0, 0, 0)
_PUBLIC = struct.Struct(">IHI")

# Response codes. Format one has the number of a handle or parameter in bits 6 and 8 to 11.
_FORMAT_ONE = 0x80
_FORMAT_ONE_CODE = 0xBF
_BAD_HANDLE, _BAD_AUTH, _AUTH_FAIL = 0x8B, 0xA2, 0x8E
_NO_SPACE = 0x14B


class TpmReplyError(Error):
    """A reply of the TPM is malformed."""


class TpmRefused(Error):
    """The TPM refused a command.

    Attributes:
        code: Its response code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the TPM refused a command with code {code:#05x}", hint=_hint(code))
        self.code = code

    @property
    def undefined(self) -> bool:
        """Return whether the index of the command does not exist."""
        return _plain(self.code) == _BAD_HANDLE


class NvPublic:
    """The public area of an index.

    Attributes:
        attributes: Its ``TPMA_NV``.
        policy: Its authorization policy, which its definition sets for ever.
        size: The size of its data in bytes.
    """

    __slots__ = ("attributes", "policy", "size")

    def __init__(self, attributes: int, policy: bytes, size: int) -> None:
        self.attributes = attributes
        self.policy = policy
        self.size = size


def read_public(transmit: Transmit, index: int) -> NvPublic:
    """Return the public area of an index.

    Raises:
        TpmRefused: it does not exist, or the TPM refused.
        TpmReplyError: the reply is malformed.
        OSError: the device failed.
    """
    body = _plain_command(transmit, _READ_PUBLIC, struct.pack(">I", index))
    area, _ = _sized(body)
    if len(area) < _PUBLIC.size:
        raise _malformed()
    found, _, attributes = _PUBLIC.unpack_from(area)
    policy, rest = _sized(area[_PUBLIC.size :])
    if found != index or len(rest) != 2:
        raise _malformed()
    return NvPublic(attributes, policy, int.from_bytes(rest, "big"))


def read_number(transmit: Transmit, index: int) -> int:
    """Return the value of an index with eight bytes, such as a counter.

    Raises:
        TpmRefused: it does not exist, or is not readable with an empty password.
        TpmReplyError: the reply is malformed.
        OSError: the device failed.
    """
    handles = struct.pack(">II", index, index)
    data, rest = _sized(_command(transmit, _READ, handles, struct.pack(">HH", 8, 0)))
    if len(data) != 8 or rest:
        raise _malformed()
    return int.from_bytes(data, "big")


def increment(transmit: Transmit, index: int) -> None:
    """Add one to a counter. The first time its value becomes one more than any before.

    Raises:
        TpmRefused, TpmReplyError, OSError: as :func:`read_number`.
    """
    _command(transmit, _INCREMENT, struct.pack(">II", index, index), b"")


def define(transmit: Transmit, index: int, public: NvPublic) -> None:
    """Define an index of the owner, which has an empty password.

    Raises:
        TpmRefused: it exists, there is no space, or the owner has a password.
        TpmReplyError, OSError: as :func:`read_number`.
    """
    area = _PUBLIC.pack(index, _SHA256, public.attributes)
    area += _with_size(public.policy) + struct.pack(">H", public.size)
    _command(transmit, _DEFINE_SPACE, struct.pack(">I", _OWNER), _with_size(b"") + _with_size(area))


def undefine(transmit: Transmit, index: int) -> None:
    """Remove an index of the owner.

    Raises:
        TpmRefused: it does not exist, or the owner has a password.
        TpmReplyError, OSError: as :func:`read_number`.
    """
    _command(transmit, _UNDEFINE_SPACE, struct.pack(">II", _OWNER, index), b"")


def _plain_command(transmit: Transmit, code: int, body: bytes) -> bytes:
    command = _HEADER.pack(_NO_SESSIONS, _HEADER.size + len(body), code) + body
    return _body(transmit(command), _NO_SESSIONS)


def _command(transmit: Transmit, code: int, handles: bytes, parameters: bytes) -> bytes:
    """Send a command with an empty password; return the parameters of the reply."""
    body = handles + _EMPTY_PASSWORD + parameters
    command = _HEADER.pack(_SESSIONS, _HEADER.size + len(body), code) + body
    reply = _body(transmit(command), _SESSIONS)
    size = int.from_bytes(reply[:4], "big")
    if len(reply) < 4 or len(reply) - 4 < size:
        raise _malformed()
    return reply[4 : 4 + size]


def _body(reply: bytes, tag: int) -> bytes:
    if len(reply) < _HEADER.size:
        raise _malformed()
    found, size, code = _HEADER.unpack_from(reply)
    if size != len(reply):
        raise _malformed()
    if code:
        raise TpmRefused(code)
    if found != tag:
        raise _malformed()
    return reply[_HEADER.size :]


def _sized(data: bytes) -> tuple[bytes, bytes]:
    """Split what begins with its size in two bytes; return it and the rest."""
    size = int.from_bytes(data[:2], "big")
    if len(data) < 2 or len(data) - 2 < size:
        raise _malformed()
    return data[2 : 2 + size], data[2 + size :]


def _with_size(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _plain(code: int) -> int:
    return code & _FORMAT_ONE_CODE if code & _FORMAT_ONE else code


def _hint(code: int) -> str | None:
    if _plain(code) in (_BAD_AUTH, _AUTH_FAIL):
        return "the owner of the TPM has a password: remove it with tpm2_changeauth"
    if code == _NO_SPACE:
        return "the TPM has no space left: remove an index with tpm2_nvundefine"
    return None


def _malformed() -> TpmReplyError:
    return TpmReplyError("the reply of the TPM is malformed")
