"""Schema steps, run by `srm_agent.store.migrate`; each may be run again."""
