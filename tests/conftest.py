"""Workers that start in a moment, where a test is not about the start itself; examples that do not change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.warm_workers import warm_workers


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis tries the same examples in every run, however long one takes; in the long campaigns other ones."""
    slow = [HealthCheck.too_slow]
    settings.register_profile("steady", deadline=None, derandomize=True, database=None, suppress_health_check=slow)
    settings.register_profile("searching", deadline=None, suppress_health_check=slow)
    settings.load_profile("searching" if config.option.markexpr == "soak" else "steady")


@pytest.fixture(scope="session", autouse=True)
def _warm_workers(pytestconfig: pytest.Config) -> Iterator[None]:
    """Runs that a test launches itself are done by forks. The long campaigns, timings, commands and whole apps, and all
    runs where WORKBENCH_TEST_COLD is set, have workers that begin at the beginning."""
    long = pytestconfig.option.markexpr in ("soak", "bench")
    if long or sys.platform != "linux" or os.environ.get("WORKBENCH_TEST_COLD"):
        yield
        return
    with warm_workers():
        yield
