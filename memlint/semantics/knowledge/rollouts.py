"""How replay and rollout buffers of reinforcement learning are named, as data."""

from __future__ import annotations

# A variable, an attribute or a class with one of these words in its name holds transitions.
BUFFER_WORDS = frozenset(
    """buffer buffers buf memory memories mem replay rollout rollouts storage trajectory trajectories transitions
    transition experience experiences episode""".split()
)
# Imported classes with such a name store what they are given until it is overwritten.
BUFFER_CLASSES = frozenset(
    """ReplayBuffer ReplayMemory PrioritizedReplayBuffer PrioritizedReplay PrioritizedReplayMemory ExperienceReplay
    ReplayPool RolloutBuffer RolloutMemory EpisodeBuffer EpisodicMemory TrajectoryBuffer SequentialMemory""".split()
)
# What policy gradients are computed from (REINFORCE, A2C), by its name.
ON_POLICY_WORDS = frozenset("log logp logps logprob logprobs prob probs entropy entropies value values".split())
STORING_METHODS = frozenset("push add store append insert remember put store_transition add_experience".split())
# Methods that draw a batch of old transitions.
DRAWING_METHODS = frozenset(
    {"sample", "sample_batch", "sample_buffer", "sample_memory", "sample_transitions", "get_batch"}
)
# What is called so in a function that trains is a network.
NETWORK_WORDS = frozenset({"policy", "actor", "critic", "value", "net", "network", "model"})
