"""S8 on real sockets and processes: three times the measured capacity, and what everybody else notices of it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.soak.flood import measure, percentile

SOAK = os.environ.get("SRM_TEST_PROFILE") == "soak"
SECONDS, QUIET_S = (60.0, 20.0) if SOAK else (12.0, 8.0)
TOO_BUSY = 0.4
"""Share of the time that the daemon waited for a processor, above which latencies say nothing about it."""


async def test_three_times_the_capacity_leaves_memory_closes_and_other_providers_as_they_were(tmp_path: Path) -> None:
    """Flooded by one provider and by fifty: under 50 MB more, closes within 100 ms, every 2xx found finished in the
    database, and the other provider's p99 within twice what it was.

    Time in which the daemon was ready to run and others had the processors (the kernel counts it) is not held
    against it: on a quiet machine the bars are those of the issue.
    """
    for report in await measure(tmp_path, SECONDS, quiet_s=QUIET_S):
        print(f"\n{report.table()}")
        assert report.offered_per_s >= 2.7 * report.capacity, "the client was the limit"
        assert report.acked > 0
        assert (report.lost, report.unfinished, report.missing_exits) == (0, 0, 0)
        assert report.grown_mb < 50
        assert set(report.statuses) <= {202, 429, 503}
        assert report.loaded.refused <= 0.02 * len(report.loaded.posts)
        if max(report.starved) > TOO_BUSY:
            assert not SOAK, "others have the processors: run the soak on a quiet machine"
            print("latencies not judged: others had the processors")
            continue
        quiet_s = percentile(report.unloaded.posts, 0.99)
        stretch = report.stretch()
        assert percentile(report.loaded.closes, 0.99) < 0.1 * stretch
        assert percentile(report.loaded.exits, 0.99) < (0.1 + percentile(report.unloaded.exits, 0.99)) * stretch
        # A p99 of twelve seconds is the second worst of two hundred: fifteen milliseconds are one commit more.
        assert percentile(report.loaded.posts, 0.99) < 2 * quiet_s * stretch + (0.0 if SOAK else 0.015)
