"""Outputs with one number for each token and each entry of a vocabulary: the largest tensors of a language model."""

from __future__ import annotations

# Endings of classes of transformers, peft and trl whose output holds such logits (their modeling files: `lm_head`,
# `cls.predictions`). In `ForPreTraining` it depends on the model.
LANGUAGE_MODELS = (
    "ForCausalLM",
    "LMHeadModel",
    "WithLMHead",
    "ForConditionalGeneration",
    "ForMaskedLM",
    "ForSeq2SeqLM",
    "ForImageTextToText",
    "ForVision2Seq",
    "ForSpeechSeq2Seq",
    "DoubleHeadsModel",
    "ForCausalLMWithValueHead",
    "ForSeq2SeqLMWithValueHead",
)
# What the layer before them is called.
HEADS = frozenset({"lm_head", "lm_heads", "language_model_head", "output_projection", "unembed", "embed_out"})
LINEAR_LAYERS = frozenset({"torch.nn.Linear"})
EMBEDDINGS = frozenset({"torch.nn.Embedding"})
# With one of these in its forward, a model that samples may be given the last token alone.
CARRIED_WORDS = frozenset(
    """cache kv_cache caches use_cache past past_key_values past_kv state states hidden hiddens memory mems
    last_logits_only num_logits_to_keep logits_to_keep""".split()
)
# Sizes of vocabularies, by their words: `vocab_size`, `ntokens`, `tokenizer.vocab_size`, `len(vocab)`.
SIZE_WORDS = frozenset({"vocab", "vocabulary", "ntokens", "ntoken", "vocabs", "nvocab"})
# What such outputs are called.
LOGITS_WORDS = frozenset({"logits", "logit"})
# A file that has few classes to tell apart calls its outputs logits too.
FEW_CLASSES = frozenset(
    """num_labels num_classes n_classes nclasses num_class n_class class_names label2id id2label
    AutoModelForSequenceClassification AutoModelForTokenClassification""".split()
)
# Where these stand, what a policy gives is a number for each action.
ACTIONS = frozenset("action_space action_dim act_dim num_actions n_actions action_shape act_shape".split())
# Names that stand where the vocabulary is made of the characters of a text.
ALPHABETS = frozenset({"stoi", "itos", "chars", "char_to_idx", "idx_to_char", "char2idx", "idx2char", "char2int"})
# Names that only a language model's training script has.
VOCABULARY_WORDS = frozenset({"vocab_size", "n_vocab", "block_size", "padded_vocab_size", "context_length", "ctx_len"})
# What a model over tokens is called with, and what its rows of numbers are compared by.
TOKEN_INPUTS = frozenset({"input_ids", "token_ids", "tokens", "input_tokens"})
CROSS_ENTROPY = frozenset({"cross_entropy", "CrossEntropyLoss", "nll_loss"})
