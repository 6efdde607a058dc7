"""What methods of models do, by their names."""

# A method with one of these words in its name runs layers and leaves grad mode to its caller (CLIP: `encode_image`;
# diffusers: `AutoencoderKL.decode`; fairseq: `extract_features`; NeRFs: `render_rays`).
METHODS_THAT_RUN = frozenset(
    """forward encode encoder decode decoder extract render reconstruct embed embedding project features feature
    step loss losses logits""".split()
)
# One with one of these only looks at the model, moves, saves, builds or changes it, or switches grad off itself
# (transformers: `generate`).
METHODS_THAT_LOOK = frozenset(
    """parameters parameter params buffers modules module children state dict load save export summary print info set
    config init initialize reset train eval fit compile hook register add remove zero freeze unfreeze requires resize
    update optimizer optimizers configure device dtype cuda cpu half float double bfloat16 size shape dim apply share
    generate weight weights name names log watch quantize fuse prepare reduce reduction""".split()
)
# So does one with one of these, if nothing else in its name says that it runs layers: `get_vocab`, `get_features`.
# Or it is a whole evaluation, whose grad mode is its own matter: `validation` (BasicSR), but not `validation_step`.
METHODS_THAT_MAY_LOOK = frozenset(
    "get to from type is has make create build evaluate evaluation validate validation test".split()
)
# Their `encode`, `predict` and the like run without grad (sentence-transformers, ultralytics, FlagEmbedding, COMET).
CLASSES_WITHOUT_GRAD = frozenset(
    """SentenceTransformer CrossEncoder SparseEncoder YOLO FlagModel BGEM3FlagModel FlagReranker KeyBERT WhisperModel
    EasyNMT EncoderClassifier EncoderDecoderASR SpeakerRecognition""".split()
)
# What these do is known wherever they stand: CLIP, open_clip, fairseq, timm, diffusers' and NeRFs' renderers.
METHODS_KNOWN_TO_RUN = frozenset(
    """encode_image encode_text extract_features forward_features forward_head get_image_features get_text_features
    render_rays""".split()
)
