"""What memlint knows of torch's attention modules: who returns the attention weights, and who asks for them."""

from __future__ import annotations

# torch.nn.MultiheadAttention.forward(query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
# average_attn_weights=True, is_causal=False) returns (output, weights).
ATTENTION = "torch.nn.MultiheadAttention"
ATTENTION_NAMES = frozenset({ATTENTION, "torch.nn.modules.activation.MultiheadAttention"})
INPUTS = 3
NEED_WEIGHTS = "need_weights"
NEED_WEIGHTS_POSITION = 4
# torch.nn.functional.multi_head_attention_forward: the same flag, further behind.
FUNCTIONAL_ATTENTION = frozenset({"torch.nn.functional.multi_head_attention_forward"})
FUNCTIONAL_NEED_WEIGHTS_POSITION = 15
# Arguments that only matter with the weights, or that mean something else without them (docs/fix-safety.md).
BOUND_TO_WEIGHTS = frozenset({"average_attn_weights", "is_causal"})

# Attributes of torch's layers that are a MultiheadAttention (torch.nn.modules.transformer).
ATTENTION_OF_LAYERS = {
    "torch.nn.TransformerEncoderLayer": frozenset({"self_attn"}),
    "torch.nn.TransformerDecoderLayer": frozenset({"self_attn", "multihead_attn"}),
    "torch.nn.modules.transformer.TransformerEncoderLayer": frozenset({"self_attn"}),
    "torch.nn.modules.transformer.TransformerDecoderLayer": frozenset({"self_attn", "multihead_attn"}),
}

# A file with one of these may read the weights behind the code's back.
HOOKING_WORDS = frozenset({"register_forward_hook", "register_module_forward_hook", "create_feature_extractor"})
TRIGGERS = frozenset(
    {"MultiheadAttention", "multi_head_attention_forward", "TransformerEncoderLayer", "TransformerDecoderLayer"}
)
