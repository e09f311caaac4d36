"""Profiles: `make test` draws the same examples every time, so that one tree has one verdict; `make soak`
(SRM_TEST_PROFILE=soak) draws far more, and others each time. What the soak finds becomes an `@example`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("soak", parent=settings.get_profile("default"), max_examples=3000, derandomize=False)
settings.load_profile(os.environ.get("SRM_TEST_PROFILE", "default"))
