"""A small CLIP tokenizer: byte-level BPE, so any text can be written, with each word of the world as one token."""

import json

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

from uniemo_pipelines.attributes import normalise

from ..miniemoset.attributes import BRIGHTNESSES, EMOTIONS, PALETTES
from ..miniemoset.captions import SENTENCES
from ..miniemoset.objects import OBJECTS
from ..miniemoset.scenes import SCENES

MAX_LENGTH = 32
SUFFIX = "</w>"


def lexicon() -> list[str]:
    """Every word of the captions, and the emotions' names, sorted."""
    sentences = [sentence.format(scene="", objects="") for sentence in SENTENCES]
    texts = [*map(normalise, SCENES + OBJECTS), *PALETTES, *BRIGHTNESSES, *EMOTIONS, *sentences, "colors light and ,"]
    return sorted({word for text in texts for word in text.split()})


def make_tokenizer() -> CLIPTokenizer:
    """Learn merges until each word of the lexicon is one token. Ids run as in CLIP's own vocabulary: bytes, bytes that
    end a word, merges, start of text, end of text."""
    learner = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix=SUFFIX, show_progress=False)
    learner.train_from_iterator(lexicon(), trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + SUFFIX for byte in alphabet), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=MAX_LENGTH
    )
