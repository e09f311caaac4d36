"""The whole daemon in virtual time: one seed decides prices, signals, faults, crashes and restarts."""
