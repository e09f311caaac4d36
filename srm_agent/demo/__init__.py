"""SRM at work in two minutes: the real daemon against the simulated venue, on a screen and in a report."""
