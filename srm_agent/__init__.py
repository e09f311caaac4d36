"""SRM agent: decides lot and stop of every copied signal, learns what fills cost, closes before an account is lost."""

__version__ = "0.1.0"
