"""A TPM 2.0 with non-volatile memory and nothing else, at the protocol of its device.

``tests/interop/test_swtpm.py`` compares it with swtpm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from bootc.formats.security_counter import INDEX

_HEADER = struct.Struct(">HII")
_AUTH = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
_REPLY_AUTH = struct.pack(">HBH", 0, 1, 0)
_WRITTEN = 1 << 29
_OWNER = 0x40000001

#: Response codes, as swtpm gives them.
NO_INDEX = {0x169: 0x18B, 0x14E: 0x18B, 0x134: 0x18B, 0x122: 0x28B}
DEFINED = 0x14C
UNINITIALIZED = 0x14A
BAD_AUTH = 0x9A2


class Died(BaseException):
    """The machine went down before the TPM got a command."""


@dataclass
class Index:
    """A counter."""

    attributes: int
    policy: bytes
    value: int = 0
    size: int = 8


@dataclass
class FakeTpm:
    """What a TPM keeps.

    Attributes:
        indexes: The indexes that are defined.
        highest: The highest value that any counter ever had.
        commands: The codes of all commands, in their order.
        refuse: Response codes by the code of the command.
        dies_at: The number of the command, from 0, before which the machine goes down.
        broken: What transmitting raises.
    """

    indexes: dict[int, Index] = field(default_factory=dict)
    highest: int = 0
    commands: list[int] = field(default_factory=list)
    refuse: dict[int, int] = field(default_factory=dict)
    dies_at: int | None = None
    broken: OSError | None = None

    def __enter__(self) -> FakeTpm:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def with_counter(self, value: int, base: int = 5) -> FakeTpm:
        """Define the counter of bootc with a value."""
        policy = b"bootc security counter 1" + base.to_bytes(8, "big")
        self.indexes[INDEX] = Index(0x22060014, policy, base + value)
        return self

    def transmit(self, command: bytes) -> bytes:
        """Carry out a command."""
        if self.broken is not None:
            raise OSError(*self.broken.args)
        if self.dies_at == len(self.commands):
            raise Died
        tag, size, code = _HEADER.unpack_from(command)
        assert size == len(command)
        self.commands.append(code)
        if code in self.refuse:
            return _HEADER.pack(0x8001, 10, self.refuse[code])
        answer = self._answer(code, command[10:])
        if isinstance(answer, int):
            return _HEADER.pack(0x8001, 10, answer)
        if tag == 0x8001:
            return _HEADER.pack(tag, 10 + len(answer), 0) + answer
        answer = struct.pack(">I", len(answer)) + answer + _REPLY_AUTH
        return _HEADER.pack(tag, 10 + len(answer), 0) + answer

    def _answer(self, code: int, body: bytes) -> bytes | int:
        if code == 0x12A:
            return self._define(body)
        handle = int.from_bytes(body[0 if code == 0x169 else 4 :][:4], "big")
        index = self.indexes.get(handle)
        if index is None:
            return NO_INDEX[code]
        if code == 0x169:
            area = struct.pack(">IHI", handle, 0xB, index.attributes)
            area += struct.pack(">H", len(index.policy)) + index.policy
            area += struct.pack(">H", index.size)
            return struct.pack(">H", len(area)) + area + struct.pack(">H", 2) + b"nm"
        assert body[8 : 8 + len(_AUTH)] == _AUTH
        if code == 0x122:
            self.highest = max(self.highest, index.value)
            del self.indexes[handle]
        elif code == 0x134:
            now = index.value if index.attributes & _WRITTEN else self._highest()
            index.value, index.attributes = now + 1, index.attributes | _WRITTEN
        elif code == 0x14E:
            assert body[8 + len(_AUTH) :] == struct.pack(">HH", 8, 0)
            if not index.attributes & _WRITTEN:
                return UNINITIALIZED
            return struct.pack(">HQ", 8, index.value)
        return b""

    def _define(self, body: bytes) -> bytes | int:
        owner, auth, rest = body[:4], body[4 : 4 + len(_AUTH)], body[4 + len(_AUTH) :]
        assert (owner, auth) == (struct.pack(">I", _OWNER), _AUTH)
        password_size, area_size, handle, algorithm, attributes, policy_size = struct.unpack_from(
            ">HHIHIH", rest
        )
        policy = rest[16 : 16 + policy_size]
        (size,) = struct.unpack(">H", rest[16 + policy_size :])
        assert (password_size, area_size, algorithm) == (0, len(rest) - 4, 0xB)
        if handle in self.indexes:
            return DEFINED
        self.indexes[handle] = Index(attributes, policy, size=size)
        return b""

    def _highest(self) -> int:
        written = [i.value for i in self.indexes.values() if i.attributes & _WRITTEN]
        return max([self.highest, *written])
