"""Fills and closed trades become forecasts and scores. Plain floats, deterministic, no clock."""
