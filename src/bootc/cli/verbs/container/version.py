"""The options by which a build states the security version of an image."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Option
from bootc.errors import UsageError

if TYPE_CHECKING:
    from bootc.formats.security_version import SecurityVersion


def given_version(args: argparse.Namespace) -> SecurityVersion | None:
    """Return the security version that the options state, or None if they state none.

    Raises:
        UsageError: the minimum is given without a security version, or is above it.
    """
    from bootc.formats.security_version import SecurityVersion

    version, minimum = args.security_version, args.minimum_security_version
    if version is None:
        if minimum is not None:
            raise UsageError("--minimum-security-version needs --security-version")
        return None
    if minimum is not None and minimum > version:
        raise UsageError(
            f"--minimum-security-version {minimum} is above --security-version {version}"
        )
    return SecurityVersion(version, minimum or 0)


def _number(text: str) -> int:
    from bootc.formats.security_version import MAX, parse_number

    number = parse_number(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number from 0 to {MAX}")
    return number


VERSION_OPTIONS = (
    Option(
        ("--security-version",),
        "The security version of the image: raise it when you fix a hole (default: 0).",
        metavar="N",
        parse=_number,
    ),
    Option(
        ("--minimum-security-version",),
        "The lowest security version that machines go back to from this image (default: 0).",
        metavar="N",
        parse=_number,
    ),
)
