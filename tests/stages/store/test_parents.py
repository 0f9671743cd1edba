"""Roles of a run's parents."""

from stages.store.specs.parents import checkpoint_roles


def test_a_tenth_checkpoint_comes_after_the_second() -> None:
    named = ["checkpoint", *(f"checkpoint-{number}" for number in range(2, 13))]
    assert checkpoint_roles(["dataset", "reference", *sorted(named)]) == named
