"""The judges: one check an invariant (reliability.md 3.1). They look at the venue and the database, never at the agent.

`judge.Judge` joins them; `doors.Seen` notes what passes between the agent and the world.
"""
