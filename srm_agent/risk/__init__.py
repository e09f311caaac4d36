"""A signal becomes a decision for one follower: pure, explainable, recomputable."""
