"""Which command lines the initramfs refuses, because the counter in the TPM is higher."""

from __future__ import annotations

import errno

import pytest

from bootc.errors import one_line
from bootc.formats import cmdline
from bootc.formats.security_counter import INDEX, CounterUnreadable
from bootc.initramfs import setup_root
from bootc.initramfs.setup_root import SetupError
from bootc.kernel import tpm
from support.faketpm import FakeTpm

HEX = "77" * 64
STRICT, OPTIONAL = f"composefs={HEX}", f"composefs=?{HEX}"
READ, READ_PUBLIC, FAILURE = 0x14E, 0x169, 0x101


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> FakeTpm:
    made = FakeTpm()
    monkeypatch.setattr(tpm, "open_tpm", lambda **options: made)
    return made


def check(text: str) -> None:
    setup_root.check_security_version(text, cmdline.composefs_images(text))


@pytest.mark.parametrize(
    ("counter", "text", "version"),
    [
        (3, STRICT, 0),
        (3, f"{STRICT} bootc.security-version=2", 2),
        (3, f"{STRICT} bootc.security-version=2 bootc.minimum-security-version=9", 2),
        (3, f"{STRICT} bootc.security-version=2 bootc.security-version=5", 2),
        (3, f"{STRICT} bootc.security-version=x", 0),
        (3, f"{OPTIONAL} bootc.security-version=2", 2),
        (3, f"{OPTIONAL} bootc.minimum-security-version=0", 0),
        (1, STRICT, 0),
        (3, f"{STRICT} bootc.security-version=3", None),
        (3, f"{STRICT} bootc.security-version=4 bootc.security-version=9", None),
        (3, f"{OPTIONAL} bootc.security-version=3", None),
        (3, OPTIONAL, None),
        (0, STRICT, None),
        (None, STRICT, None),
        (None, f"{STRICT} bootc.security-version=2", None),
    ],
)
def test_what_is_refused(
    chip: FakeTpm,
    capsys: pytest.CaptureFixture[str],
    counter: int | None,
    text: str,
    version: int | None,
) -> None:
    if counter is not None:
        chip.with_counter(counter)
    if version is None:
        check(text)
    else:
        with pytest.raises(SetupError) as caught:
            check(text)
        assert one_line(caught.value) == (
            f"the security version of this image is {version}, and the counter in the TPM requires "
            f"{counter} (hint: boot a newer entry of the boot menu; if there is none, install the "
            "system again, or remove the counter: clear the TPM in the setup of the firmware)"
        )
    assert capsys.readouterr() == ("", "")


def test_a_machine_without_sealed_images_does_not_use_the_tpm(chip: FakeTpm) -> None:
    check(OPTIONAL)
    assert chip.commands == []


@pytest.mark.parametrize("announced", [True, False])
def test_a_machine_without_tpm_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], announced: bool
) -> None:
    monkeypatch.setattr(tpm, "open_tpm", lambda **options: None)
    monkeypatch.setattr(tpm, "is_announced", lambda: announced)
    check(STRICT)
    warning = "bootc: warning: no security version is required: the TPM has no driver\n"
    assert capsys.readouterr().err == (warning if announced else "")


def test_a_tpm_that_does_not_tell_refuses_nothing(
    chip: FakeTpm, capsys: pytest.CaptureFixture[str]
) -> None:
    chip.broken = OSError(errno.ETIMEDOUT, "the TPM does not answer")
    check(STRICT)
    warning = "bootc: warning: no security version is required: "
    assert capsys.readouterr().err == f"{warning}the TPM does not answer\n"
    chip.broken, chip.refuse = None, {READ_PUBLIC: FAILURE}
    check(STRICT)
    assert capsys.readouterr().err == f"{warning}the TPM refused a command with code 0x101\n"
    chip.refuse = {}
    chip.with_counter(3)
    chip.indexes[INDEX].attributes &= ~(1 << 29)
    check(STRICT)
    assert capsys.readouterr().err == (
        f"{warning}the definition of the security counter was interrupted, so it counts nothing "
        "(hint: define it again: bootc security-version enable-counter)\n"
    )


def test_a_counter_that_cannot_be_read_refuses_the_boot(chip: FakeTpm) -> None:
    chip.with_counter(0).refuse = {READ: FAILURE}
    with pytest.raises(CounterUnreadable):
        check(STRICT)


def test_the_boot_is_refused_before_anything_is_opened(
    chip: FakeTpm, capsys: pytest.CaptureFixture[str]
) -> None:
    chip.with_counter(3)
    argv = ["--config", "/nonexistent", "--sysroot", "/nonexistent", "--cmdline", STRICT]
    assert setup_root.main(argv) == 1
    said = capsys.readouterr().err
    assert said.startswith("bootc: the security version of this image is 0, and the counter in the")
    assert said.endswith(setup_root.RECOVERY)
