"""Signs EFI programs for Secure Boot, and checks signed ones.

The user names a command (:class:`CommandSigner`), or a key and a certificate (:class:`KeySigner`).
With a key osslsigncode signs, because it takes the time of the signature as an argument. With an
RSA key, the same program then gets the same signature. sbsign always writes the present time into
the signature.

For every signer, :func:`check_signed` compares the signed program with the unsigned one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bootc.errors import Error, doing
from bootc.events import Notice, Sink
from bootc.formats.pe import PeError
from bootc.formats.pesignature import NotTheSameProgram, check_only_signed
from bootc.formats.shellquote import shell_quoted
from bootc.fs import process
from bootc.fs.dir import open_regular
from bootc.printable import printable

_OSSLSIGNCODE = "osslsigncode"
_SBVERIFY = "sbverify"
#: A person may have to touch a token.
SIGNER_TIMEOUT_S = 600.0
_KEY_DIFFERS = b"consistency of a private key"
#: How files in PEM begin (RFC 7468, RFC 1421), and that of a key that needs a pass phrase.
_KEY_WORDS = (b"PRIVATE KEY-----",)
_CERTIFICATE_WORDS = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN TRUSTED CERTIFICATE-----")
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_MAX_PEM_BYTES = 1 << 20


class NotSigned(Error):
    """A program was not signed, or not as it must be."""


class Signer(Protocol):
    """Signs programs."""

    @property
    def certificate(self) -> str | None:
        """The path of the certificate that signatures must verify with; None if it is unknown."""

    def require(self) -> None:
        """Ensure that the signer can run.

        Raises:
            ToolMissing: its program is not installed.
            OSError: a file that it needs cannot be read.
        """

    def sign(self, unsigned: str, signed: str, epoch: int) -> None:
        """Sign a program. If this fails, there is no signed file.

        Args:
            unsigned: The path of the program.
            signed: The path of the file to write.
            epoch: The time of the signature, in seconds since 1970.

        Raises:
            NotSigned: the signer failed, took too long, or wrote no file.
            ToolMissing: its program is not installed.
        """


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """A command that the user names. It gets the two paths as its last arguments.

    Attributes:
        argv: The command.
        environment: Its environment. ``SOURCE_DATE_EPOCH`` is added.
        certificate: As in :class:`Signer`.
        timeout_s: How long it may run.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    certificate: str | None = None
    timeout_s: float = SIGNER_TIMEOUT_S

    def require(self) -> None:
        """Find the program."""
        program = self.argv[0]
        if "/" in program and os.path.exists(program) and not os.access(program, os.X_OK):
            raise NotSigned(
                f"the signer {shell_quoted(program)} is not executable",
                hint=f"chmod +x {shell_quoted(program)}",
            )
        if "/" in program and os.path.isdir(program):
            raise NotSigned(f"the signer {shell_quoted(program)} is a directory")
        process.find_tool(program)

    def sign(self, unsigned: str, signed: str, epoch: int) -> None:
        """Run the command."""
        environment = {**self.environment, "SOURCE_DATE_EPOCH": str(epoch)}
        try:
            _run((*self.argv, unsigned, signed), signed, environment, self.timeout_s)
        except process.CommandFailed as exc:
            raise NotSigned(f"the signer failed: {exc.message}") from None


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A key and a certificate, both files in PEM.

    Attributes:
        key: The path of the key.
        certificate: The path of the certificate.
    """

    key: str
    certificate: str

    def require(self) -> None:
        """Find osslsigncode, and look into both files."""
        process.find_tool(_OSSLSIGNCODE)
        for what, path, words in (
            ("key", self.key, _KEY_WORDS),
            ("certificate", self.certificate, _CERTIFICATE_WORDS),
        ):
            with doing(f"Reading the {what}"), open(_regular(path), "rb") as file:
                data = file.read(_MAX_PEM_BYTES)
            if not any(word in data for word in words):
                raise NotSigned(
                    f"{shell_quoted(path)} is not a {what} in PEM",
                    hint="give the key with --key and its certificate with --cert",
                )
            # A file may hold a key beside the certificate; it is not the one that signs.
            if what == "key" and any(word in data for word in _ENCRYPTED):
                raise NotSigned(
                    f"the key {shell_quoted(path)} has a pass phrase",
                    hint="give a command that signs with it: --signer",
                )

    def sign(self, unsigned: str, signed: str, epoch: int) -> None:
        """Run osslsigncode."""
        argv = (
            *(_OSSLSIGNCODE, "sign", "-h", "sha256", "-time", str(epoch)),
            *("-certs", self.certificate, "-key", self.key, "-in", unsigned, "-out", signed),
        )
        try:
            _run(argv, signed, {}, SIGNER_TIMEOUT_S)
        except process.CommandFailed as exc:
            if _KEY_DIFFERS in exc.stderr:
                raise NotSigned(
                    f"the key {shell_quoted(self.key)} does not belong to the certificate "
                    f"{shell_quoted(self.certificate)}",
                    hint="give the certificate of the key with --cert",
                ) from None
            raise NotSigned(
                f"{_OSSLSIGNCODE} cannot sign with the key {shell_quoted(self.key)}: "
                f"{_first_line(exc.stderr)}"
            ) from None


def _regular(path: str) -> int:
    return open_regular(os.path.realpath(path))


def _run(
    argv: tuple[str, ...], signed: str, environment: Mapping[str, str], timeout_s: float
) -> None:
    """Run a command that writes a file. If it fails, remove the file."""
    try:
        try:
            with process.spawn(argv, env=environment) as child:
                child.wait(timeout_s)
        except TimeoutError:
            raise NotSigned(
                f"the signer {shell_quoted(argv[0])} has not ended within {timeout_s:g} seconds"
            ) from None
        if not os.path.isfile(signed):
            raise NotSigned(
                f"the signer {shell_quoted(argv[0])} has not written {shell_quoted(signed)}"
            )
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(signed)
        raise


def _first_line(stderr: bytes) -> str:
    lines = (line.strip() for line in stderr.decode("utf-8", "replace").split("\n"))
    return next((printable(line, 300) for line in lines if line), "no message")


def usable_certificate(certificate: str | None, sink: Sink) -> str | None:
    """Return the certificate for :func:`check_signed`; None if no program can verify with it.

    Args:
        certificate: The path of the certificate, or None.
        sink: Receives a notice if sbverify is not installed.

    Raises:
        OSError: the certificate cannot be read.
    """
    if certificate is None:
        return None
    with doing("Reading the certificate"):
        os.close(open_regular(os.path.realpath(certificate)))
    try:
        process.find_tool(_SBVERIFY)
    except process.ToolMissing as exc:
        sink(Notice(f"{exc.message}: signatures are not compared with the certificate"))
        return None
    return certificate


def check_signed(unsigned: str, signed: str, certificate: str | None) -> None:
    """Ensure that a signed program is the unsigned one with a signature.

    Args:
        unsigned: The path of the unsigned program.
        signed: The path of the signed program.
        certificate: The path of the certificate that its signature must verify with; None to
            verify nothing.

    Raises:
        NotSigned: it is another program, has no signature, or the signature does not verify.
        PeError: a file is no EFI program.
        OSError: a file cannot be read.
    """
    with (
        doing(f"Checking {shell_quoted(signed)}"),
        open(open_regular(unsigned), "rb") as before,
        open(open_regular(signed), "rb") as after,
    ):
        try:
            check_only_signed(before, after)
        except NotTheSameProgram as exc:
            raise NotSigned(
                f"it is not {shell_quoted(unsigned)} with a signature: {exc.message}",
                hint=f"the signer must add a signature to {os.path.basename(unsigned)} and change "
                "nothing else; sign that file again",
            ) from None
    if certificate is not None and not verifies(signed, certificate):
        raise NotSigned(
            f"the signature of {shell_quoted(os.path.basename(signed))} does not verify with the "
            f"certificate {shell_quoted(certificate)}",
            hint="name the certificate of the signer's key, a file in PEM",
        )


def belongs(unsigned: str, signed: str) -> bool:
    """Tell whether a signed program is the unsigned one with a signature.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        check_signed(unsigned, signed, None)
    except (NotSigned, PeError):
        return False
    return True


def verifies(signed: str, certificate: str) -> bool:
    """Tell whether the signature of a program verifies with a certificate. This needs sbverify."""
    try:
        process.run([_SBVERIFY, "--cert", certificate, signed])
    except process.CommandFailed:
        return False
    return True
