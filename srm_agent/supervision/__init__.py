"""Keeps the process honest: what the service manager is told, when the loop counts as well, and how a life begins."""
