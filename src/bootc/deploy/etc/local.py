"""Reading the inputs of a merge of ``/etc`` from a running system.

The booted image's own ``/etc`` comes from the repository, the local one from the state
directory of the booted deployment. The administrator's decisions are beside the local one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bootc.deploy.etc.apply import CurrentEtc, contents, image_etc, read_etc
from bootc.deploy.etc.decisions import read_decisions
from bootc.deploy.etc.merge import Choice, ConflictPolicy, Merge, merge_etc
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.session import HostAccess
from bootc.deploy.host.statedir import StateDir
from bootc.formats.digest import Digest
from bootc.formats.origin import Origin
from bootc.formats.tree import Directory
from bootc.fs.tree_write import OpenContent

#: The key of a staged deployment's origin that says how finalizing resolves conflicts.
_POLICY = ("bootc", "etc-conflict")


@dataclass(frozen=True, slots=True)
class LocalEtc:
    """The ``/etc`` of a running system, and the one of its image.

    Attributes:
        pristine: ``/etc`` of the booted image.
        current: The local ``/etc``.
        decisions: Which side wins, by path relative to ``/etc``.
        open_content: Opens the files of a merge.
    """

    pristine: Directory
    current: CurrentEtc
    decisions: Mapping[bytes, Choice]
    open_content: OpenContent

    def merge(self, new: Directory, policy: ConflictPolicy = ConflictPolicy.FAIL) -> Merge:
        """Merge the local changes into the ``/etc`` of another image."""
        return merge_etc(
            self.pristine, self.current.tree, new, policy=policy, decisions=self.decisions
        )


@contextmanager
def read_local_etc(system: HostAccess) -> Iterator[LocalEtc]:
    """Read the inputs of a merge; files can be opened until the end of the block.

    Raises:
        EtcBusy: other processes keep changing ``/etc``.
        MalformedDecisions: the decisions are malformed.
        Error: the booted image is damaged.
        OSError: a file cannot be read.
    """
    booted = system.booted.image_id
    objects, images = system.repository.objects, system.repository.images
    pristine = image_etc(objects, images.first_present((booted, *system.booted.also)))
    with (
        StateDir.open(system.physical, booted) as state,
        read_etc(state.dir, system.repository.algorithm) as current,
    ):
        yield LocalEtc(pristine, current, read_decisions(state), contents(objects, current))


def with_policy(origin: Origin, policy: ConflictPolicy) -> Origin:
    """Return a deployment's origin with the policy for conflicts when it is finalized."""
    kept = tuple(extra for extra in origin.extra if extra[:2] != _POLICY)
    if policy is not ConflictPolicy.FAIL:
        kept += ((*_POLICY, policy.value),)
    return dataclasses.replace(origin, extra=kept)


def policy_of(facts: Facts, deployment: Digest) -> ConflictPolicy:
    """Return how the conflicts of a staged deployment are resolved."""
    unset = ConflictPolicy.FAIL
    origin = facts.origin(deployment)
    # If the key is there several times, the last one counts, as for any key of an origin.
    for section, key, value in () if origin is None else reversed(origin.extra):
        if (section, key) == _POLICY:
            return next((policy for policy in ConflictPolicy if policy.value == value), unset)
    return unset
