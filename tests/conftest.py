"""Profiles: `make test` runs the default, `make soak` (SRM_TEST_PROFILE=soak) far more examples of each property."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", parent=settings.get_profile("default"), max_examples=3000)
settings.load_profile(os.environ.get("SRM_TEST_PROFILE", "default"))
