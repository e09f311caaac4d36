"""Plugs between the agent's ports and real brokers; none knows another."""
