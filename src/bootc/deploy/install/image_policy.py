"""Whether the installed machine will accept updates, judged by the signature policy of its image.

The installer enforces the policy of the system that it runs on. The installed machine enforces
its own ``/etc/containers/policy.json``, which comes from the image. If that policy verifies no
signature of the image for updates, the machine refuses every update until somebody changes it.
"""

from __future__ import annotations

from bootc.boot.image_content import ObjectSource, file_size, open_content
from bootc.errors import Error
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.formats.sigpolicy import MAX_POLICY_BYTES
from bootc.formats.tree import Directory, Leaf
from bootc.oci.sigpolicy import judged

#: Below ``/etc``.
_POLICY = "containers/policy.json"
_PATH = f"/etc/{_POLICY} of the image"


def notice(
    etc: Directory, objects: ObjectSource, target: ImageReference, signature: Signature | None
) -> str | None:
    """Return a notice that the machine will refuse updates, or None if it will not.

    Args:
        etc: The ``/etc`` of the machine.
        objects: The content of its files.
        target: The image for updates.
        signature: The signature that it must have.

    Raises:
        OSError: the policy cannot be read.
    """
    if signature is None:
        return None
    try:
        _judge(etc, objects, target)
    except Error as exc:
        return f"notice: the installed machine will refuse updates: {exc}"
    return None


def _judge(etc: Directory, objects: ObjectSource, target: ImageReference) -> None:
    policy = etc.lookup(_POLICY)
    size = file_size(etc, _POLICY)
    if not isinstance(policy, Leaf) or size is None:
        raise Error(f"there is no file {_PATH}")
    if size > MAX_POLICY_BYTES:
        raise Error(f"{_PATH} has more than {MAX_POLICY_BYTES} bytes")
    with open_content(policy, objects) as file:
        judged(_PATH, file.read(MAX_POLICY_BYTES), target)
