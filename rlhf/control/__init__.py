"""Agents that learn from compared clips: environments, episodes, a reward model of segments, any RL algorithm."""
