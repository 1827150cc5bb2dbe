"""Signers that sign, and signers that do not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bootc.build.signing import CommandSigner, KeySigner, NotSigned, belongs, check_signed
from bootc.errors import one_line
from bootc.formats.pe import PeError
from bootc.fs.process import ToolMissing
from support import pe
from support.commands import Commands

PROGRAM = pe.signable((b".linux", b"kernel" * 100))


@pytest.fixture
def unsigned(tmp_path: Path) -> str:
    (tmp_path / "unsigned").write_bytes(PROGRAM)
    return os.fspath(tmp_path / "unsigned")


@pytest.fixture
def signed(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "signed")


def test_a_command(tmp_path: Path, unsigned: str, signed: str) -> None:
    """The command gets its own arguments, the two paths, the time and its environment."""
    script = 'echo "$0 $1 $SOURCE_DATE_EPOCH $PIN" >"$2"'
    CommandSigner(("sh", "-c", script, "a b"), {"PIN": "12"}).sign(unsigned, signed, 99)
    assert Path(signed).read_text() == f"a b {unsigned} 99 12\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('echo half >"$1"; echo no token >&2; exit 3', "failed with exit code 3: no token"),
        ("true", "the signer sh has not written"),
        ('mkdir "$1"', "the signer sh has not written"),
        ('echo half >"$1"; kill -9 $$', "was killed by SIGKILL"),
        ('echo half >"$1"; exec sleep 9', "the signer sh has not ended within 0.2 seconds"),
    ],
)
def test_commands_that_fail(unsigned: str, signed: str, script: str, message: str) -> None:
    signer = CommandSigner(("sh", "-c", script), timeout_s=0.2 if "sleep" in script else 60)
    with pytest.raises(NotSigned, match=re.escape(message)) as caught:
        signer.sign(unsigned, signed, 0)
    assert "\n" not in one_line(caught.value)
    assert not os.path.isfile(signed)


def test_signers_that_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsigned: str
) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(ToolMissing, match="no-such-signer"):
        CommandSigner(("no-such-signer",)).require()
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(NotSigned, match="plain is not executable"):
        CommandSigner((f"{tmp_path}/plain",)).require()
    with pytest.raises(NotSigned, match="is a directory"):
        CommandSigner((os.fspath(tmp_path),)).require()


KEY = b"-----BEGIN PRIVATE KEY-----\n"
CERTIFICATE = b"Certificate of a bag\n-----BEGIN CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("key", "certificate", "message"),
    [
        (KEY, CERTIFICATE, None),
        (b"-----BEGIN EC PRIVATE KEY-----\n", CERTIFICATE, None),
        (KEY, b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + CERTIFICATE, None),
        (CERTIFICATE, KEY, "/key is not a key in PEM"),
        (KEY, b"\x30\x82", "/certificate is not a certificate in PEM"),
        (b"", CERTIFICATE, "/key is not a key in PEM"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", CERTIFICATE, "/key has a pass phrase"),
        (KEY + b"Proc-Type: 4,ENCRYPTED\n", CERTIFICATE, "/key has a pass phrase"),
        (KEY, None, "No such file"),
    ],
)
def test_files_of_a_key(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: bytes,
    certificate: bytes | None,
    message: str | None,
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("osslsigncode", "exit 1")
    (tmp_path / "key").write_bytes(key)
    if certificate is not None:
        (tmp_path / "certificate").write_bytes(certificate)
    signer = KeySigner(f"{tmp_path}/key", f"{tmp_path}/certificate")
    if message is None:
        signer.require()
        return
    with pytest.raises((NotSigned, OSError), match=message):
        signer.require()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PROGRAM, "it is not .*/unsigned with a signature: the program has no signature"),
        (pe.signed(PROGRAM[:-1] + b"x"), "differs at offset"),
    ],
)
def test_files_that_are_something_else(
    unsigned: str, signed: str, content: bytes, message: str
) -> None:
    Path(signed).write_bytes(content)
    with pytest.raises(NotSigned, match=message):
        check_signed(unsigned, signed, None)


def test_which_unsigned_program_a_signed_one_belongs_to(unsigned: str, signed: str) -> None:
    Path(signed).write_bytes(pe.signed(PROGRAM))
    assert belongs(unsigned, signed)
    for other in (PROGRAM, pe.signed(PROGRAM[:-1] + b"x"), b"no program"):
        Path(signed).write_bytes(other)
        assert not belongs(unsigned, signed)


def test_a_file_that_is_no_program(unsigned: str, signed: str) -> None:
    Path(signed).write_bytes(b"detached signature")
    with pytest.raises(PeError):
        check_signed(unsigned, signed, None)
    Path(signed).write_bytes(pe.signed(PROGRAM))
    check_signed(unsigned, signed, None)
