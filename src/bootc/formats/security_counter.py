"""The counter in a TPM that holds the lowest security version that the machine boots.

A counter of a TPM only rises, one by one. A new one starts above every counter that the TPM ever
had, so that nobody lowers it by removing it and defining it again. Therefore its *base*, the value
at which bootc began to count, is a part of its definition, and the security version is the
difference. The base is in the authorization policy of the index, behind a text that tells whose
index it is. No policy has such a digest, so the index can only be used with its password, which is
empty.

The functions are conversations with a TPM. The caller moves the bytes. ADR 19 has the reasons.

The initramfs imports this module.
"""

from __future__ import annotations

from bootc.errors import Error
from bootc.formats import tpm2nv
from bootc.formats.tpm2nv import NvPublic, TpmRefused, TpmReplyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bootc.formats.tpm2nv import Transmit

#: The handle of the counter, in the range for the owner of the TPM.
INDEX = 0x0180B007
#: A counter rises one by one, and each step takes the TPM up to a tenth of a second.
MAX_RISE = 1000

_MARK = b"bootc security counter 1"
_POLICY_SIZE = 32
_NUMBER_SIZE = 8
#: The base of a counter that is only defined to learn where the TPM starts to count.
_PROBE = (1 << 64) - 1
_ATTRIBUTES = tpm2nv.AUTHREAD | tpm2nv.OWNERREAD | tpm2nv.AUTHWRITE | tpm2nv.NO_DA | tpm2nv.COUNTER
_ATTEMPTS = 4


class CounterUnusable(Error):
    """The index is not a counter of bootc, or its definition was interrupted."""


class CounterUnreadable(Error):
    """The machine has a counter, and its value cannot be read."""


class RiseTooLarge(Error):
    """The counter is too far below the wanted value."""


def read(transmit: Transmit) -> int | None:
    """Return the security version below which nothing boots, or None if there is no counter.

    Raises:
        CounterUnusable: there is an index that does not count.
        CounterUnreadable: there is a counter, and its value cannot be read.
        TpmRefused, TpmReplyError: the TPM does not tell whether there is a counter.
        OSError: the device failed.
    """
    try:
        public = tpm2nv.read_public(transmit, INDEX)
    except TpmRefused as exc:
        if exc.undefined:
            return None
        raise
    base = _base(public)
    if base == _PROBE or not public.attributes & tpm2nv.WRITTEN:
        raise _unfinished()
    try:
        value = tpm2nv.read_number(transmit, INDEX)
    except (TpmRefused, TpmReplyError, OSError) as exc:
        raise CounterUnreadable(f"the security counter of the TPM cannot be read: {exc}") from exc
    if value < base:
        raise _unfinished()
    return value - base


def define(transmit: Transmit) -> None:
    """Define the counter with the value 0, unless there is one.

    A counter whose definition was interrupted counts nothing, and is replaced.

    Raises:
        CounterUnusable: the index belongs to something else, or another program defines counters.
        CounterUnreadable: there is a counter, and its value cannot be read.
        TpmRefused: the TPM has no space, or its owner has a password.
        TpmReplyError, OSError: as :func:`read`.
    """
    try:
        if read(transmit) is not None:
            return
    except CounterUnusable:
        remove(transmit)
    base = _PROBE
    for _ in range(_ATTEMPTS):
        policy = _MARK + base.to_bytes(_NUMBER_SIZE, "big")
        tpm2nv.define(transmit, INDEX, NvPublic(_ATTRIBUTES, policy, _NUMBER_SIZE))
        tpm2nv.increment(transmit, INDEX)
        value = tpm2nv.read_number(transmit, INDEX)
        if value == base:
            return
        tpm2nv.undefine(transmit, INDEX)
        # The next one starts one above this one.
        base = value + 1
    raise CounterUnusable(
        "the TPM does not tell where a new counter starts",
        hint="try again while no other program uses the TPM",
    )


def rise(transmit: Transmit, wanted: int) -> int | None:
    """Let the counter rise to a value, and return its value; None if there is no counter.

    A counter that has the value already, or a higher one, stays as it is.

    Raises:
        RiseTooLarge: it is more than :data:`MAX_RISE` below.
        CounterUnusable, CounterUnreadable, TpmRefused, TpmReplyError, OSError: as :func:`read`.
    """
    value = read(transmit)
    if value is None or value >= wanted:
        return value
    if wanted - value > MAX_RISE:
        raise RiseTooLarge(
            f"the security counter is {value}, and cannot rise to {wanted}: "
            f"it rises one by one, by at most {MAX_RISE} at once",
            hint="use small numbers as security versions: 1, 2, 3",
        )
    for _ in range(wanted - value):
        tpm2nv.increment(transmit, INDEX)
    return read(transmit)


def remove(transmit: Transmit) -> None:
    """Remove the counter. A missing one is no error.

    Raises:
        CounterUnusable: the index belongs to something else.
        TpmRefused: the owner of the TPM has a password.
        TpmReplyError, OSError: as :func:`read`.
    """
    try:
        _base(tpm2nv.read_public(transmit, INDEX))
    except TpmRefused as exc:
        if exc.undefined:
            return
        raise
    tpm2nv.undefine(transmit, INDEX)


def _base(public: NvPublic) -> int:
    """Return the base of a counter.

    Raises:
        CounterUnusable: it is not a counter of bootc.
    """
    is_counter = public.attributes & tpm2nv.TYPE_MASK == tpm2nv.COUNTER
    mark, base = public.policy[: len(_MARK)], public.policy[len(_MARK) :]
    sizes = (public.size, len(public.policy))
    if not is_counter or mark != _MARK or sizes != (_NUMBER_SIZE, _POLICY_SIZE):
        raise CounterUnusable(
            f"the index {INDEX:#010x} of the TPM is not a counter of bootc",
            hint=f"if nothing else needs it: tpm2_nvundefine {INDEX:#010x}",
        )
    return int.from_bytes(base, "big")


def _unfinished() -> CounterUnusable:
    return CounterUnusable(
        "the definition of the security counter was interrupted, so it counts nothing",
        hint="define it again: bootc security-version enable-counter",
    )
