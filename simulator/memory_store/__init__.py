"""The store in dictionaries: the same ports and answers as `srm_agent.store`, fast enough for the seeded simulation."""
