"""Whatever is stored, tagged, collected and interrupted: what is reachable stays, and only that.

``tests/host/test_store_sequences.py`` does the same with images mounted meanwhile.
"""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test

from support.examples import of_machine
from support.sequences import StoreMachine
from support.stored import IN_MEMORY
from support.verity import FakeVerity


def test_sequences() -> None:
    run_state_machine_as_test(
        lambda: StoreMachine(IN_MEMORY, FakeVerity(error=95)), settings=of_machine(30)
    )
