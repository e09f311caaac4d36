"""Equity -> stop: watches what an account is worth and closes everything before it is lost. Its own lane."""
