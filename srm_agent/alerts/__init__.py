"""Alerts that arrive: folded when they storm, kept in a file, posted to the first sink that takes them."""
