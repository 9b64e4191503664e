"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# Timings belong to benchmarks: the first example of a test may compile a kernel. Examples are the same in every
# run, so that a failure is there for the next person too; HYPOTHESIS_PROFILE=thorough looks for new ones.
_SHARED = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("steady", derandomize=True, **_SHARED)
settings.register_profile("thorough", max_examples=1_000, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
