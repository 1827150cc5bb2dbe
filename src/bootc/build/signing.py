"""Signs EFI programs for Secure Boot, and checks signed ones.

A signer is a command that gets two arguments: the file to sign, and the file to write. Signing with
a key and a certificate on the disk is such a command, too: osslsigncode. It is used instead of
sbsign because it takes the time of the signature as an argument: with an RSA key the same program
then gets the same signature. sbsign always writes the present time into it.

Whatever signed a program, :func:`check_signed` compares it with the unsigned one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from bootc.errors import Error, doing
from bootc.events import Message, Sink
from bootc.formats.pesignature import NotTheSameProgram, check_only_signed
from bootc.formats.shellquote import shell_quoted
from bootc.fs import process
from bootc.fs.dir import open_regular
from bootc.printable import printable

OSSLSIGNCODE = "osslsigncode"
_SBVERIFY = "sbverify"
#: A person may have to touch a token.
SIGNER_TIMEOUT_S = 600.0
_KEY_DIFFERS = b"consistency of a private key"


class NotSigned(Error):
    """A program was not signed, or not as it must be."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A command that signs.

    Attributes:
        argv: The command. It also gets ``unsigned`` and ``signed``.
        before: What stands before the path of the unsigned file, and before that of the signed one.
        environment: Its environment, besides the clean one that all programs get.
        timeout_s: How long it may run.
        certificate: The certificate that signatures must verify with; None if it is unknown.
    """

    argv: tuple[str, ...]
    before: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = SIGNER_TIMEOUT_S
    certificate: str | None = None

    def require(self) -> None:
        """Ensure that the command is installed.

        Raises:
            ToolMissing: it is not.
        """
        process.find_tool(self.argv[0])

    def sign(self, unsigned: str, signed: str) -> None:
        """Sign a program. If this fails, there is no signed file.

        Raises:
            NotSigned: the command failed, took too long, or wrote no file.
            ToolMissing: the command is not installed.
        """
        argv = (*self.argv, *self.before[0], unsigned, *self.before[1], signed)
        name = shell_quoted(self.argv[0])
        try:
            with process.spawn(argv, env=self.environment) as child:
                child.wait(self.timeout_s)
            if not os.path.isfile(signed):
                raise NotSigned(f"the signer {name} has written no file {shell_quoted(signed)}")
        except BaseException as exc:
            with contextlib.suppress(OSError):
                os.unlink(signed)
            if isinstance(exc, TimeoutError):
                raise NotSigned(
                    f"the signer {name} has not ended within {self.timeout_s:g} seconds"
                ) from None
            if isinstance(exc, process.CommandFailed):
                raise self._failure(exc) from None
            raise

    def _failure(self, failed: process.CommandFailed) -> NotSigned:
        if self.argv[0] == OSSLSIGNCODE and _KEY_DIFFERS in failed.stderr:
            return NotSigned(
                f"the key does not belong to the certificate {printable(self.certificate or '')}",
                hint="give the certificate of the key with --cert",
            )
        return NotSigned(f"signing failed: {failed.message}")


def key_signer(key: str, certificate: str, *, epoch: int) -> Signer:
    """Return the signer for a key and a certificate in PEM.

    Args:
        key: The path of the key.
        certificate: The path of the certificate.
        epoch: The time of signatures, in seconds since 1970.

    Raises:
        OSError: one of the files cannot be read.
    """
    for what, path in (("key", key), ("certificate", certificate)):
        with doing(f"Reading the {what}"):
            os.close(open_regular(os.path.realpath(path)))
    argv = (
        *(OSSLSIGNCODE, "sign", "-h", "sha256", "-time", str(epoch)),
        *("-certs", os.path.abspath(certificate), "-key", os.path.abspath(key)),
    )
    return Signer(argv, (("-in",), ("-out",)), certificate=certificate)


def check_signed(unsigned: str, signed: str, certificate: str | None, sink: Sink) -> None:
    """Ensure that a signed program is the unsigned one with a signature.

    Args:
        unsigned: The path of the unsigned program.
        signed: The path of the signed program.
        certificate: The path of the certificate that its signature must verify with, if the caller
            knows it. That needs sbverify; without it a message says so.
        sink: Receives the message.

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
                f"this is not {shell_quoted(unsigned)} with a signature: {exc.message}",
                hint="sign that file again",
            ) from None
    if certificate is None:
        return
    try:
        process.run([_SBVERIFY, "--cert", certificate, signed])
    except process.ToolMissing:
        sink(Message("sbverify is not installed: signatures are not compared with the certificate"))
    except process.CommandFailed:
        raise NotSigned(
            f"the signature of {shell_quoted(signed)} does not verify with the certificate "
            f"{shell_quoted(certificate)}"
        ) from None
