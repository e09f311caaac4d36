"""The world, wrong in known ways: a venue with prices, depth, latency and faults, behind real wire protocols."""
