"""How Hypothesis searches: always the same way in CI, and for long with `--hypothesis-profile long`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: a machine under load is slow, and that is no failure of the code under test.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=5_000,
    stateful_step_count=200,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("ci" if os.environ.get("CI") else "default")
