"""Decision -> order -> fill: what was meant, what was sent, what the broker did, what it cost."""
