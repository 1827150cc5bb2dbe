"""How many examples a state machine gets: few in ``make check``, many in ``make test``."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: The profile of ``make test``, and how many examples it and ``make check`` draw of a property.
THOROUGH = "thorough"
MANY, FEW = 400, 100
#: A state machine gets this part of its examples in ``make check``.
_MACHINE_PART = 10


def of_machine(many: int, *, steps: int = 20) -> settings:
    """Return settings for a state machine, whose examples take a second each.

    Args:
        many: How many examples it gets in a thorough run.
        steps: How many steps an example has at most.
    """
    is_thorough = settings.default.max_examples >= MANY
    return settings(
        max_examples=many if is_thorough else many // _MACHINE_PART,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
    )
