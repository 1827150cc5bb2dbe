"""The counter in the TPM of this machine.

It holds the lowest security version that the initramfs boots
(:mod:`bootc.formats.security_counter`). It is not on the disk, and what a function changes is
durable when the function returns.
"""

from __future__ import annotations

from bootc.deploy.host.facts import Facts
from bootc.errors import Error, doing
from bootc.formats import security_counter
from bootc.formats.security_version import SecurityVersion
from bootc.kernel import tpm


class CannotCount(Error):
    """This machine cannot have a counter, or the booted image must not change it."""


def read_counter() -> int | None:
    """Return the value of the counter; None if there is no TPM or no counter.

    Raises:
        Error, OSError: as :func:`bootc.formats.security_counter.read`.
    """
    device = tpm.open_tpm()
    if device is None:
        return None
    with doing("Reading the security counter"), device:
        return security_counter.read(device.transmit)


def enable_counter(facts: Facts) -> int:
    """Define the counter unless there is one, let it rise, and return its value.

    It rises to the minimum of the booted image.

    Raises:
        CannotCount: there is no TPM, or the firmware did not verify the booted image.
        Error, OSError: as :func:`bootc.formats.security_counter.define`.
    """
    wanted = _checked(facts).raises_to
    with doing("Defining the security counter"), _require_tpm() as device:
        security_counter.define(device.transmit)
        value = security_counter.rise(device.transmit, wanted)
        assert value is not None, "it was defined"
        return value


def raise_counter(facts: Facts) -> int | None:
    """Let the counter rise to the minimum of the booted image; return its value.

    Without a TPM or without a counter nothing happens, and the result is None.

    Raises:
        CannotCount: the firmware did not verify the booted image.
        Error, OSError: as :func:`bootc.formats.security_counter.rise`.
    """
    if read_counter() is None:
        return None
    wanted = _checked(facts).raises_to
    with doing("Raising the security counter"), _require_tpm() as device:
        return security_counter.rise(device.transmit, wanted)


def remove_counter() -> None:
    """Remove the counter, if there is one.

    Raises:
        Error, OSError: as :func:`bootc.formats.security_counter.remove`.
    """
    device = tpm.open_tpm()
    if device is not None:
        with doing("Removing the security counter"), device:
            security_counter.remove(device.transmit)


def _require_tpm() -> tpm.Tpm:
    device = tpm.open_tpm()
    if device is None:
        raise CannotCount(
            "this machine has no TPM 2.0, so it can have no security counter",
            hint="enable it in the setup of the firmware",
        )
    return device


def _checked(facts: Facts) -> SecurityVersion:
    """Return what the booted command line states, if a signature covers it.

    Anybody could have written another command line, and a counter never goes down.
    """
    version = facts.version(facts.booted.image_id)
    if version is None or not facts.booted_sealed():
        raise CannotCount(
            "the booted deployment is not sealed, so nothing protects its security version",
            hint="boot a sealed image: bootc status --verbose shows what is missing",
        )
    if not facts.booted.secure_boot.enforced:
        raise CannotCount(
            "the firmware did not verify the booted image: Secure Boot is off or in setup mode",
            hint="turn Secure Boot on: bootc status --verbose shows its state",
        )
    return version
