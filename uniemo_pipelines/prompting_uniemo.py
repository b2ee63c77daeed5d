"""Emotions in words: weights from names, tokens in prompts, and the pseudo-tokens on a text encoder.

Nothing here knows where a condition comes from: `PseudoTokens` writes the vectors that it is given.
"""

import difflib
import json
import math
import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .fusion_uniemo import EMOTIONS

EMOTION_TOKENS: tuple[str, ...] = tuple(f"<{name}>" for name in EMOTIONS)
SLOT_TOKEN = "<emotion>"
ALL_TOKENS: tuple[str, ...] = (SLOT_TOKEN, *EMOTION_TOKENS)

# The tokenizer lower-cases before it looks for added tokens, so <Awe> is <awe> here as well.
_TOKEN = re.compile("|".join(ALL_TOKENS), re.IGNORECASE)
_ANGLED = re.compile(r"<[a-z]+>", re.IGNORECASE)


def emotion_weights(emotion: str | Mapping[str, float]) -> torch.Tensor:
    """Weights over `EMOTIONS` from a name ("awe") or from weights by name ({"amusement": .6, "fear": .4}).

    Returns:
        Float32 tensor (8,), not negative, summing to 1.

    Raises:
        TypeError: neither a name nor a mapping from names to numbers.
        ValueError: an unknown name, a weight that is negative or not finite, or weights that sum to zero.
    """
    if isinstance(emotion, str):
        emotion = {emotion: 1.0}
    if not isinstance(emotion, Mapping):
        raise TypeError(f"Expected an emotion's name or a dict of weights, found {type(emotion).__name__}.")
    weights = [0.0] * len(EMOTIONS)
    for name, weight in emotion.items():
        weights[_index_of(name)] += checked_number(f"weight of '{name}'", weight)
    total = sum(weights)
    if not 0 < total < math.inf:
        raise ValueError(f"Expected emotion weights with a positive sum, found {dict(emotion)}; give one above zero.")
    return torch.tensor([weight / total for weight in weights])


def _index_of(name: str) -> int:
    if not isinstance(name, str):
        raise TypeError(f"Expected an emotion's name as a string, found {name!r}.")
    key = name.strip().lower()
    if key in EMOTIONS:
        return EMOTIONS.index(key)
    near = difflib.get_close_matches(key, EMOTIONS, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"Expected one of {', '.join(EMOTIONS)}, found '{name}'.{hint}")


def checked_number(name: str, value: Any) -> float:
    """A finite number of at least 0, or an error that names it.

    Raises:
        TypeError: no number.
        ValueError: it is negative or not finite.
    """
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"Expected a number as {name}, found {value!r}.")
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"Expected a finite {name} of at least 0, found {value!r}.")
    return number


def tokens_in(prompt: str) -> list[str]:
    """The slot and emotion tokens that occur in a prompt, each once, in the order of `ALL_TOKENS`."""
    found = {match.lower() for match in _TOKEN.findall(prompt)}
    return [token for token in ALL_TOKENS if token in found]


def token_weights(token: str) -> torch.Tensor:
    """One-hot weights (8,) of an emotion token such as "<awe>"."""
    return emotion_weights(token.strip("<>"))


def without_tokens(prompt: str) -> str:
    """The prompt with every slot and emotion token dropped: what an emotion scale of 0 stands for."""
    if not _TOKEN.search(prompt):
        return prompt
    return " ".join(_TOKEN.sub(" ", prompt).split())


def with_slot(prompt: str) -> str:
    """The prompt with the slot put in front; a blank prompt becomes the slot alone."""
    return f"{SLOT_TOKEN} {prompt}" if prompt.strip() else SLOT_TOKEN


def misspelt_tokens(prompt: str) -> dict[str, str]:
    """Tokens such as "<amusment>" that are none of ours but close to one, each with the token that is near."""
    angled = {match.lower() for match in _ANGLED.findall(prompt)} - set(ALL_TOKENS)
    near = {token: difflib.get_close_matches(token, ALL_TOKENS, n=1, cutoff=0.8) for token in angled}
    return {token: matches[0] for token, matches in sorted(near.items()) if matches}


class _Encoding:
    """What one thread is encoding: the rows that it asked for, the masks on their way between our two hooks, and where
    any of the tokens stood in the last text."""

    def __init__(self) -> None:
        self.rows: dict[str, torch.Tensor] = {}
        self.masks: dict[str, torch.Tensor] = {}
        self.places: torch.Tensor | None = None


class _PerThread(threading.local):
    """One `_Encoding` a thread. It is held, not merged: compiled code follows writes to a plain object only."""

    def __init__(self) -> None:
        self.encoding = _Encoding()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_PerThread":
        return _PerThread()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _PerThread, ()


class _HookedEmbedding(nn.Embedding):
    """An embedding with our hook: compiled code does not look for new hooks, but it does look at a module's class."""


class PseudoTokens:
    """The nine tokens on one tokenizer and text encoder, their input embeddings given per sample.

    The tokens are added to the tokenizer only. A forward pre-hook on the text encoder swaps their ids for a harmless
    one, so that no id lies outside the embedding table and none is above that of the end-of-text token (configurations
    with `eos_token_id == 2` pool at the highest id); a forward hook on the token embedding then writes the rows,
    differentiably. The table is neither resized nor written.

        with pseudo_tokens.conditions({"<awe>": condition}):    # (D,) for all samples or (B, D)
            embeds = text_encoder(input_ids)[0]

    Outside a context a token means its row in `defaults`. `remove()` restores tokenizer and text encoder.

    Args:
        tokenizer: a fast CLIP tokenizer.
        text_encoder: the `CLIPTextModel` (or a sibling whose first argument is `input_ids`).
        defaults: rows (D,) by token, used outside a context.

    Attributes:
        lock: held while one thread tokenizes and encodes, for tokenizers change their own state as they work.

    Raises:
        ValueError: the tokenizer already has such a token with a row in the table (a textual inversion).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        defaults: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.defaults: dict[str, torch.Tensor] = dict(defaults or {})
        self.ids: dict[str, int] = {}
        self.lock = threading.RLock()
        self._per_thread = _PerThread()
        self._users: weakref.WeakKeyDictionary[Any, dict[str, torch.Tensor]] = weakref.WeakKeyDictionary()
        self._refuse_textual_inversions()
        self._harmless_id = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
        self._add_tokens()
        self._swap_handle = text_encoder.register_forward_pre_hook(self._swap_ids, with_kwargs=True)
        self._hook_embedding()

    @classmethod
    def shared(cls, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> "PseudoTokens":
        """The installation on this text encoder, made if there is none: pipelines that share one share the tokens.

        Its `tokenizer` is the one that knows the tokens, perhaps another than the given one, with the same vocabulary.

        Raises:
            ValueError: the text encoder has its tokens from a tokenizer of another vocabulary; as the constructor.
        """
        installed = getattr(text_encoder, "_uniemo_pseudo_tokens", None)
        other = installed is not None and installed.tokenizer is not tokenizer
        if other and _words(installed.tokenizer) != _words(tokenizer):
            raise ValueError(
                "Expected a text encoder with one tokenizer, found the emotion tokens on it by a tokenizer of another "
                "vocabulary; share the tokenizer as well, or copy the text encoder."
            )
        if installed is None:
            installed = text_encoder._uniemo_pseudo_tokens = cls(tokenizer, text_encoder)
        return installed

    @property
    def width(self) -> int:
        """Width D of the token embeddings."""
        return self.text_encoder.get_input_embeddings().embedding_dim

    def attach(self, user: Any, defaults: Mapping[str, torch.Tensor]) -> None:
        """Count `user` in, and let its defaults hold outside contexts."""
        if self._users.pop(user, None) is None:
            # One that is collected counts as released; at the end of the program nothing has to be tidied.
            weakref.finalize(user, self._settle).atexit = False
        self._users[user] = dict(defaults)
        self.defaults = dict(defaults)

    def knows(self, user: Any) -> bool:
        """Whether `user` is attached; a copy of one is not."""
        return user in self._users

    def meanings(self, user: Any) -> dict[str, torch.Tensor]:
        """What the tokens mean to `user` outside contexts, whoever attached last."""
        return self._users[user]

    def release(self, user: Any) -> None:
        """Count `user` out: the defaults of the one that came before hold again; with the last, remove everything."""
        self._users.pop(user, None)
        self._settle()

    def _settle(self) -> None:
        remaining = list(self._users.values())
        if remaining:
            self.defaults = remaining[-1]
        elif self.ids:
            self.remove()

    @contextmanager
    def conditions(self, rows: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Within the context, and in this thread, each token in `rows` means its row: (D,) for all, or (B, D).

        Raises:
            ValueError: a token that is none of `ALL_TOKENS`, or a row of another width than the embedding's.
        """
        for token, row in rows.items():
            if token not in ALL_TOKENS:
                raise ValueError(f"Expected one of {', '.join(ALL_TOKENS)}, found '{token}'.")
            if row.ndim not in (1, 2) or row.shape[-1] != self.width:
                raise ValueError(
                    f"Expected a condition of shape ({self.width},) or (batch, {self.width}) for {token}, "
                    f"found {tuple(row.shape)}; the adapter belongs to another text encoder."
                )
        encoding = self._per_thread.encoding
        outer, encoding.rows = encoding.rows, {**encoding.rows, **rows}
        try:
            yield
        finally:
            encoding.rows = outer

    @property
    def rows(self) -> dict[str, torch.Tensor]:
        """What surrounding `conditions` contexts give in this thread, by token."""
        return self._per_thread.encoding.rows

    @property
    def places(self) -> torch.Tensor:
        """(B, tokens) bool: where any of our tokens stood in what this thread encoded last."""
        return self._per_thread.encoding.places

    def refresh(self) -> None:
        """Mend what others changed: tokens dropped or renumbered, an embedding module replaced."""
        self._add_tokens()
        if self.text_encoder.get_input_embeddings() is not self._embedding:
            self._unhook_embedding()
            self._hook_embedding()

    def remove(self) -> None:
        """Take the hooks off and give the tokenizer back as it was, but for tokens that others added since."""
        self._swap_handle.remove()
        self._unhook_embedding()
        if getattr(self.text_encoder, "_uniemo_pseudo_tokens", None) is self:
            del self.text_encoder._uniemo_pseudo_tokens
        self._take_tokens_off()
        self.ids = {}

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Within the context tokenizer and text encoder are without our tokens, to be saved as the base's own."""
        extended, embedding = self.tokenizer.backend_tokenizer, self.text_encoder.get_input_embeddings()
        weight, rows = embedding.weight, embedding.num_embeddings
        self._take_tokens_off()
        try:
            yield
        finally:
            self.tokenizer._tokenizer = extended
            embedding.weight = weight
            embedding.num_embeddings = self.text_encoder.config.vocab_size = rows

    def __getstate__(self) -> dict[str, Any]:
        # Neither weak users nor a lock can be pickled; a copied text encoder starts without users.
        return {name: value for name, value in vars(self).items() if name not in ("_users", "lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _users=weakref.WeakKeyDictionary(), lock=threading.RLock())

    # -- tokenizer

    def _refuse_textual_inversions(self) -> None:
        rows = self.text_encoder.get_input_embeddings().num_embeddings
        vocabulary = self.tokenizer.get_vocab()
        taken = [token for token in ALL_TOKENS if vocabulary.get(token, rows) < rows]
        if taken:
            raise ValueError(
                f"Expected a tokenizer without {', '.join(taken)}, found them with rows in the embedding table "
                "(textual inversions); call unload_textual_inversion() for them first."
            )

    def _add_tokens(self) -> None:
        """Extend a copy, and keep the original aside: putting it back restores every byte, padding state included."""
        backend = self.tokenizer.backend_tokenizer
        missing = [token for token in ALL_TOKENS if backend.token_to_id(token) is None]
        if missing or not self.ids:
            self._original, self._added_tokens = backend, missing
            self._rows_before = self.text_encoder.get_input_embeddings().num_embeddings
            self._extended = _copied(self.tokenizer)
            self.tokenizer.add_tokens(missing)
            self._added_at_install = set(_added(self._extended))
        backend = self.tokenizer.backend_tokenizer
        self.ids = {token: backend.token_to_id(token) for token in ALL_TOKENS}

    def _take_tokens_off(self) -> None:
        """The original again, or where others have added tokens since, what is there without ours."""
        backend = self.tokenizer.backend_tokenizer
        if backend is self._extended and set(_added(backend)) == self._added_at_install:
            self.tokenizer._tokenizer = self._original
        else:
            self._drop_tokens()

    def _drop_tokens(self) -> None:
        """Remove our tokens from among later ones, and the rows that a table resized since has for them."""
        ours = [self.tokenizer.backend_tokenizer.token_to_id(token) for token in self._added_tokens]
        ours = sorted(index for index in ours if index is not None)
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        kept = [entry for entry in state["added_tokens"] if entry["id"] not in ours]
        for entry in kept:
            entry["id"] -= sum(index < entry["id"] for index in ours)
        _set_backend(self.tokenizer, Tokenizer.from_str(json.dumps(state | {"added_tokens": kept})))
        embedding = self.text_encoder.get_input_embeddings()
        if ours and self._rows_before <= ours[0] < embedding.num_embeddings:
            keep = [row for row in range(embedding.num_embeddings) if row not in ours]
            embedding.weight = nn.Parameter(embedding.weight.data[keep], embedding.weight.requires_grad)
            embedding.num_embeddings = self.text_encoder.config.vocab_size = len(keep)

    # -- hooks

    def _hook_embedding(self) -> None:
        self._embedding = self.text_encoder.get_input_embeddings()
        self._embedding_handle = self._embedding.register_forward_hook(self._write_rows)
        if type(self._embedding) is nn.Embedding:
            self._embedding.__class__ = _HookedEmbedding

    def _unhook_embedding(self) -> None:
        self._embedding_handle.remove()
        if type(self._embedding) is _HookedEmbedding:
            self._embedding.__class__ = nn.Embedding

    def _swap_ids(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        input_ids = args[0] if args else kwargs.get("input_ids")
        if input_ids is None:
            return None
        ids = self.ids
        if not torch.compiler.is_compiling():
            # Reading values would break a compiled graph, where masks that are all false simply change nothing.
            found = set(input_ids.unique().tolist())
            ids = {token: index for token, index in ids.items() if index in found}
            self._check_rows(ids, batch_size=input_ids.view(-1, input_ids.shape[-1]).shape[0])
        masks = {token: input_ids == index for token, index in ids.items()}
        self._per_thread.encoding.masks = masks
        self._per_thread.encoding.places = sum(masks.values(), torch.zeros_like(input_ids, dtype=torch.bool))
        for mask in masks.values():
            input_ids = input_ids.masked_fill(mask, self._harmless_id)
        return ((input_ids, *args[1:]), kwargs) if args else (args, {**kwargs, "input_ids": input_ids})

    def _check_rows(self, tokens: Iterable[str], batch_size: int) -> None:
        for token in tokens:
            row = self._row(token)
            if row is None:
                raise ValueError(f"Expected a condition for {token}, found none; name an emotion to fill it.")
            if row.ndim == 2 and row.shape[0] not in (1, batch_size):
                raise ValueError(f"Expected 1 or {batch_size} conditions for {token}, found {row.shape[0]}.")

    def _row(self, token: str) -> torch.Tensor | None:
        return self._per_thread.encoding.rows.get(token, self.defaults.get(token))

    def _write_rows(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        encoding = self._per_thread.encoding
        masks, encoding.masks = encoding.masks, {}
        for token, mask in masks.items():
            row = self._row(token)
            if row is not None:
                row = row.to(output) if row.ndim == 1 else row.to(output).unsqueeze(1)
                output = torch.where(mask.view(output.shape[:-1]).to(output.device).unsqueeze(-1), row, output)
        return output if masks else None


def _words(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {word: index for word, index in tokenizer.get_vocab().items() if word not in ALL_TOKENS}


def _added(backend: Tokenizer) -> dict[int, Any]:
    return backend.get_added_tokens_decoder()


def _copied(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Give the tokenizer a copy of its backend to work with, and return that copy."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    _set_backend(tokenizer, copy)
    return copy


def _set_backend(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> None:
    tokenizer._tokenizer = backend
    # CLIPTokenizer wraps its backend's decode at construction; a new backend needs the same.
    wrap = getattr(tokenizer, "_wrap_decode_method_backend_tokenizer", None)
    if wrap is not None:
        wrap()
