"""The security counter in swtpm, whose TPM is the reference implementation of the TCG."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bootc.formats import security_counter, tpm2nv
from bootc.formats.security_counter import INDEX, CounterUnusable
from bootc.formats.tpm2nv import NvPublic, TpmRefused
from support import swtpm
from support.faketpm import BAD_AUTH, Died, FakeTpm

if TYPE_CHECKING:
    from bootc.formats.tpm2nv import Transmit

pytestmark = pytest.mark.interop

#: What is read after so many commands of a definition.
_AFTER = (None, None, *["unfinished"] * 3, None, "unfinished", 0, 0)
_ORDINARY = tpm2nv.AUTHREAD | tpm2nv.AUTHWRITE | tpm2nv.NO_DA


def life_of_a_counter(transmit: Transmit) -> list[object]:
    """Use the counter in every way; return what was said."""
    said: list[object] = [security_counter.read(transmit)]

    def refused(code: int) -> None:
        said.append(hex(code))

    for call in (tpm2nv.read_public, tpm2nv.read_number, tpm2nv.increment, tpm2nv.undefine):
        with pytest.raises(TpmRefused) as caught:
            call(transmit, INDEX)
        refused(caught.value.code)
        said.append(caught.value.undefined)
    security_counter.define(transmit)
    said += [security_counter.read(transmit), tpm2nv.read_number(transmit, INDEX)]
    said.append(hex(tpm2nv.read_public(transmit, INDEX).attributes))
    said += [security_counter.rise(transmit, value) for value in (3, 3, 1)]
    with pytest.raises(TpmRefused) as caught:
        tpm2nv.define(transmit, INDEX, NvPublic(_ORDINARY, b"", 8))
    refused(caught.value.code)
    security_counter.define(transmit)
    said.append(security_counter.read(transmit))
    # A new counter starts above all that were there.
    security_counter.remove(transmit)
    said.append(security_counter.read(transmit))
    security_counter.define(transmit)
    said += [security_counter.read(transmit), tpm2nv.read_number(transmit, INDEX)]
    security_counter.remove(transmit)
    # A counter that never counted has no value.
    tpm2nv.define(transmit, INDEX, NvPublic(_ORDINARY | tpm2nv.COUNTER, b"", 8))
    with pytest.raises(TpmRefused) as caught:
        tpm2nv.read_number(transmit, INDEX)
    refused(caught.value.code)
    with pytest.raises(CounterUnusable, match="0x0180b007 of the TPM is not a counter of bootc"):
        security_counter.read(transmit)
    with pytest.raises(CounterUnusable):
        security_counter.define(transmit)
    tpm2nv.undefine(transmit, INDEX)
    return said


def test_the_fake_and_swtpm_say_the_same(tmp_path: Path) -> None:
    with swtpm.started(tmp_path) as real:
        said = life_of_a_counter(real.transmit)
    assert said == life_of_a_counter(FakeTpm().transmit)
    assert said == [
        None,
        *("0x18b", True, "0x18b", True, "0x18b", True, "0x28b", True),
        *(0, 2, "0x22060014", 3, 3, 3, "0x14c", 3),
        *(None, 0, 7, "0x14a"),
    ]


def test_the_counter_outlives_the_boot(tmp_path: Path) -> None:
    with swtpm.started(tmp_path) as real:
        security_counter.define(real.transmit)
        assert security_counter.rise(real.transmit, 2) == 2
    with swtpm.started(tmp_path) as real:
        assert security_counter.read(real.transmit) == 2
        assert security_counter.rise(real.transmit, 3) == 3


@pytest.mark.parametrize("steps", range(len(_AFTER)))
def test_a_definition_that_is_interrupted_requires_nothing(tmp_path: Path, steps: int) -> None:
    left = steps

    def until_power_cut(command: bytes) -> bytes:
        nonlocal left
        if not left:
            raise Died
        left -= 1
        return real.transmit(command)

    with swtpm.started(tmp_path) as real:
        with contextlib.suppress(Died):
            security_counter.define(until_power_cut)
        found: int | str | None
        try:
            found = security_counter.read(real.transmit)
        except CounterUnusable:
            found = "unfinished"
        assert found == _AFTER[steps]
        security_counter.define(real.transmit)
        assert security_counter.read(real.transmit) == 0


def test_an_owner_with_a_password(tmp_path: Path) -> None:
    # TPM2_HierarchyChangeAuth of the owner, with the password "x".
    change = bytes.fromhex("80020000001e00000129400000010000000940000009000000000000017800")[:30]
    with swtpm.started(tmp_path) as real:
        assert real.transmit(change)[6:10] == bytes(4)
        with pytest.raises(TpmRefused) as caught:
            security_counter.define(real.transmit)
    assert caught.value.code == BAD_AUTH
    assert (
        caught.value.hint == "the owner of the TPM has a password: remove it with tpm2_changeauth"
    )
