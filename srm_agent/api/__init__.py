"""The doors: signed signals in, control by named operators, health and metrics; a thin shell over pure functions."""
