"""Quotes become context: what a decision may know about a symbol. Pure; time arrives with the data."""
