"""UniEmo's fusion model: from emotion, scene and object features to the embedding of one pseudo-token.

Sections 2.2 (mappers, emotional correlation coefficient) and 2.4 (emotion space) of *UniEmo: Unifying Emotional
Understanding and Generation with Learnable Expert Queries* (arXiv 2507.23372). The file is self-contained, so that it
can travel with a Hub repository as the module of a custom component.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn

EMOTIONS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
"""The eight emotions in EmoSet's order, which is the order of every axis of length eight here."""

FEATURES = ("emotion", "scene", "object")
"""The three features of an image, in the order of every axis of length three here."""

EMOTION_SPACES = ("bank", "low_rank", "gaussian")
"""The forms of the emotion space: see `UniEmoFusionModel.sample`."""

RETRIEVALS = ("aligned", "released")
"""The spaces in which attributes are retrieved: see `UniEmoFusionModel.retrieve`."""

BANK_NEIGHBOURS = 4
BANK_JITTER = 0.3  # the furthest a sample moves from a medoid towards its neighbour; at 0.5 it would belong to neither

Generators = torch.Generator | Sequence[torch.Generator] | None


class EmotionSample(NamedTuple):
    """The three features of one or several images, each (B, feature_dim)."""

    emotion_features: Tensor
    scene_features: Tensor
    object_features: Tensor


class UniEmoFusionModel(ModelMixin, ConfigMixin):
    """Mappers, attribute bases and emotion space: everything between the features of an image and the text encoder.

    A fresh model is usable, as one with fresh weights is: its mappers have PyTorch's initialisation, its emotion space
    is standard normal (from a fixed seed), and without attribute bases every coefficient is 1. Fill it with
    `set_attribute_bases`, `set_emotion_space` and `init_mappers`.

    Whatever the buffers' storage type (`pipe.to(torch.float16)` casts them), retrieval and sampling compute in
    float32; only the mappers run in the model's own type.

    Args:
        feature_dim: width F of the three features (the vision tower's width).
        condition_dims: width D of the token embeddings, one for each text encoder.
        attribute_dim: width A of the space where stage 1 aligned image features and attribute names.
        scenes: names of the scene attributes, in the order of the rows of `scene_base`.
        objects: names of the object attributes, in the order of the rows of `object_base`.
        retrieval: in which space `retrieve` compares, "aligned" (stage 1's) or "released" (the released code's, for
            converted checkpoints): the mapped feature, which lives among the token embeddings of the first text
            encoder, with text features of the same width. Both bases then hold one list of scenes and objects.
        emotion_space: which form `sample` draws from, "bank", "low_rank" or "gaussian". To change it later:
            `model.register_to_config(emotion_space="gaussian")`.
        bank_size: K, medoids an emotion; 0 for a model without a bank.
        rank: r, factors of the joint low-rank Gaussian; 0 for a model without one.

    Raises:
        ValueError: an unknown `emotion_space`, or one whose size is 0; an unknown `retrieval`, or the released one
            with conditions and attributes of different widths.
    """

    @register_to_config
    def __init__(
        self,
        feature_dim: int = 1024,
        condition_dims: Sequence[int] = (768,),
        attribute_dim: int = 768,
        scenes: Sequence[str] = (),
        objects: Sequence[str] = (),
        retrieval: str = "aligned",
        emotion_space: str = "bank",
        bank_size: int = 64,
        rank: int = 16,
    ) -> None:
        super().__init__()
        _check_retrieval(retrieval, condition_dims[0], attribute_dim)
        _check_emotion_space(emotion_space, bank_size, rank)
        self.register_to_config(condition_dims=list(condition_dims), scenes=list(scenes), objects=list(objects))
        self.mappers = nn.ModuleList(
            nn.ModuleDict({name: _mapper(feature_dim, width) for name in FEATURES}) for width in condition_dims
        )
        for name, size in (("scene", len(scenes)), ("object", len(objects))):
            self.register_buffer(f"{name}_base", torch.zeros(size, attribute_dim))
            self.register_buffer(f"{name}_projection", torch.zeros(attribute_dim, feature_dim))
            self.register_buffer(f"{name}_coefficients", torch.zeros(size, len(EMOTIONS)))
        for name, value in _standard_space(feature_dim, bank_size, rank).items():
            self.register_buffer(name, value)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        save_function: Callable | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        """As diffusers' own, but as safetensors whatever is asked for: nothing of ours is written as a pickle.

        The arguments are named because a pipeline passes on those that it finds in the signature.
        """
        super().save_pretrained(save_directory, is_main_process, save_function, True, variant, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """As diffusers' own, but of safetensors whatever is asked for: no pickle is read."""
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs | {"use_safetensors": True})
        except OSError as error:
            if "safetensors" in str(error):
                error.add_note("The fusion model is read from safetensors only, never from a pickle (.bin).")
            raise

    # ------------------------------------------------------------------------------------------------ condition

    def forward(
        self,
        emotion_features: Tensor,
        scene_features: Tensor,
        object_features: Tensor,
        emotion_weights: Tensor,
        scene_scale: float | Tensor = 1.0,
        object_scale: float | Tensor = 1.0,
    ) -> Tensor | tuple[Tensor, ...]:
        """M_emotion(e) + alpha_scene M_scene(s) + alpha_object M_object(o), the embedding of the pseudo-token.

        Differentiable in the features and the mappers; the coefficients alpha are constants.

        Args:
            emotion_features, scene_features, object_features: (B, F), any floating type.
            emotion_weights: (B, 8) or (8,), summing to 1: the label in training, the target in generation.
            scene_scale, object_scale: factors of the two attribute terms, a number or (B,).

        Returns:
            (B, D) in the mappers' type; with several text encoders a tuple of them, in their order.
        """
        alpha_scene, alpha_object = self.coefficients(scene_features, object_features, emotion_weights)
        dtype = self.mappers[0]["emotion"][0].weight.dtype  # as self.dtype, which walks through all modules
        features = [self._matching(f).to(dtype) for f in (emotion_features, scene_features, object_features)]
        scales = (1.0, _scaled(alpha_scene, scene_scale), _scaled(alpha_object, object_scale))
        conditions = tuple(_weighted_sum(mappers, features, scales) for mappers in self.mappers)
        return conditions if len(conditions) > 1 else conditions[0]

    @torch.no_grad()
    def coefficients(
        self, scene_features: Tensor, object_features: Tensor, emotion_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The emotional correlation coefficients: alpha = sum over emotions e of w_e P(e | nearest attribute).

        Args:
            scene_features, object_features: (B, F).
            emotion_weights: (B, 8) or (8,), summing to 1.

        Returns:
            alpha_scene, alpha_object, each (B,), float32, in [0, 1], without gradient. Where the base is empty alpha
            is 1: with no statistics there is no ground to suppress anything.
        """
        return self.coefficients_of(self.retrieve(scene_features, object_features), emotion_weights)

    @torch.no_grad()
    def coefficients_of(self, nearest: tuple[Tensor, Tensor], emotion_weights: Tensor) -> tuple[Tensor, Tensor]:
        """`coefficients` of what `retrieve` gave, the indices (B,) of scenes and objects."""
        weights = self._rows(emotion_weights, len(nearest[0]))
        tables = (self.scene_coefficients, self.object_coefficients)
        alphas = [
            (weights * table.float()[index]).sum(-1) if len(table) else torch.ones_like(weights[:, 0])
            for table, index in zip(tables, nearest, strict=True)
        ]
        return alphas[0], alphas[1]

    @torch.no_grad()
    def retrieve(self, scene_features: Tensor, object_features: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest attributes, by cosine in the space where stage 1 aligned features and attribute names.

        The released code compares the *mapped* feature, which lives in token-input space, with text features, and
        keeps scenes and objects in one list; here each feature is compared where it was trained to be comparable,
        unless the configuration's `retrieval` is "released".

        Args:
            scene_features, object_features: (B, F).

        Returns:
            scene_index, object_index, each (B,) int64 into the configuration's `scenes` and `objects`; -1 where the
            base is empty.
        """
        return (
            _nearest(self._comparable("scene", scene_features), self.scene_base),
            _nearest(self._comparable("object", object_features), self.object_base),
        )

    def _comparable(self, kind: str, features: Tensor) -> Tensor:
        """A scene or object feature in the space of its attribute base, (B, A), float32."""
        features = self._matching(features)
        if self.config.retrieval == "released":
            return self.mappers[0][kind](features.to(self.dtype)).float()
        with torch.autocast(features.device.type, enabled=False):
            return features.float() @ getattr(self, f"{kind}_projection").float().T

    # --------------------------------------------------------------------------------------------- emotion space

    @torch.no_grad()
    def sample(self, emotion_weights: Tensor, generator: Generators = None, variation: float = 1.0) -> EmotionSample:
        """Draws features of images that evoke the emotion.

        The form is the configuration's `emotion_space`:

        - "bank" (ours, the default): one of the emotion's medoids, drawn by `bank_weights`, moved by up to
          `BANK_JITTER` towards one of its nearest neighbours. The three features stay those of one real image.
        - "low_rank" (ours): one Gaussian over the three features together, r factors and a diagonal remainder.
        - "gaussian" (the released code's): an independent Gaussian for each number.

        A fusion is the weighted sum of one sample of each emotion, all made from the *same* random draw, so that it
        moves smoothly with the weights. Features are mixed and not mapped conditions: a fusion then is three features
        like any image's, to be retrieved and explained in the same way, and for one emotion both are the same.

        The generator alone decides. Each row takes its own turn at it, so that a batch drawn from one generator is
        the sequence of its single draws, and a list of generators gives each row what a single call gives, to the
        bit. None draws a fresh seed from the system; the global random state is neither read nor changed.

        Args:
            emotion_weights: (B, 8) or (8,), summing to 1. (8,) gives one row, or one for each generator of a list.
            generator: one for all rows, or a list of one a row. Draws are made on its device.
            variation: 0 (the mean, exactly `mean_features`) to 1 (the full variety), linear between.

        Returns:
            The features, each (B, F), float32, on the model's device.

        Raises:
            ValueError: `variation` outside 0 to 1; a list of generators that does not fit the batch; a form that this
                model's emotion space does not hold.
        """
        if not 0.0 <= variation <= 1.0:
            raise ValueError(f"variation must be between 0 (the mean) and 1 (full variety), but is {variation}")
        _check_emotion_space(self.config.emotion_space, self.config.bank_size, self.config.rank)
        forms = {"bank": self._draw_bank, "low_rank": self._draw_low_rank, "gaussian": self._draw_gaussian}
        draw = forms[self.config.emotion_space]
        several = isinstance(generator, Sequence)
        weights = self._rows(emotion_weights, len(generator) if several else None)
        generators = list(generator) if several else [generator or _fresh_generator()] * len(weights)
        mean = self.mean.float()
        # row by row, since a batched product may round differently from a single one
        with torch.autocast(mean.device.type, enabled=False):
            rows = [
                _mix(torch.lerp(mean, draw(g), float(variation)), w) for w, g in zip(weights, generators, strict=True)
            ]
        return EmotionSample(*torch.stack(rows).unbind(1))

    @torch.no_grad()
    def mean_features(self, emotion_weights: Tensor) -> EmotionSample:
        """The emotion's mean features, for a fusion the weighted sum of them.

        Args:
            emotion_weights: (B, 8) or (8,), summing to 1.

        Returns:
            The features, each (B, F), float32.
        """
        mean = self.mean.float()
        return EmotionSample(*torch.stack([_mix(mean, row) for row in self._rows(emotion_weights)]).unbind(1))

    def _draw_bank(self, generator: torch.Generator) -> Tensor:
        """One sample of each emotion, (8, 3, F), all by the same three uniform numbers."""
        which, neighbour, amount = self._random(torch.rand, 3, generator)
        cumulative = self.bank_weights.float().cumsum(-1)
        # the first medoid whose cumulative share exceeds the number: one of weight 0 can never be it
        chosen = (cumulative / cumulative[:, -1:] <= which).sum(-1)
        emotions = torch.arange(len(EMOTIONS), device=chosen.device)
        partners = self.bank_neighbours[emotions, chosen]
        partner = partners[:, int(neighbour * partners.shape[-1])]
        bank = self.bank
        return torch.lerp(bank[emotions, chosen].float(), bank[emotions, partner].float(), BANK_JITTER * amount)

    def _draw_low_rank(self, generator: torch.Generator) -> Tensor:
        """One sample of each emotion, (8, 3, F), all by the same factors' scores and the same remainder."""
        rank = self.low_rank_factors.shape[1]
        noise = self._random(torch.randn, rank + self.low_rank_diagonal.shape[-1], generator)
        deviation = noise[:rank] @ self.low_rank_factors.float() + noise[rank:] * self.low_rank_diagonal.float()
        return self.mean.float() + deviation.view_as(self.mean)

    def _draw_gaussian(self, generator: torch.Generator) -> Tensor:
        """One sample of each emotion, (8, 3, F), all by the same (3, F) normal numbers."""
        noise = self._random(torch.randn, self.mean[0].numel(), generator)
        return self.mean.float() + self.std.float() * noise.view_as(self.mean[0])

    def _random(self, draw: Callable[..., Tensor], size: int, generator: torch.Generator) -> Tensor:
        """Float32 numbers from the generator, made on its device and moved to the model's."""
        numbers = draw(size, generator=generator, device=generator.device, dtype=torch.float32)
        return numbers.to(self.mean.device)

    # ------------------------------------------------------------------------------------------------- filling it

    @torch.no_grad()
    def init_mappers(self, token_embeddings: Tensor | Sequence[Tensor]) -> None:
        """Rescales the mappers' last layers so that conditions start out spread like token embeddings.

        With PyTorch's initialisation the condition is some thirty times longer than a token embedding, so that the
        coefficients, the scales and prompt weights act on a saturated vector. Here the three terms, measured on
        features from the emotion space (so set that first), are centred and shrunk: their sum has the mean token
        embedding as its mean and deviates from it as far as the median token does. The factor comes out near 0.1 for
        features of unit variance. It never enlarges a layer, hence a second call changes nothing.

        Args:
            token_embeddings: the text encoder's table of input embeddings (V, D); one for each text encoder.

        Raises:
            ValueError: tables that do not fit `condition_dims`.
        """
        tables = [token_embeddings] if isinstance(token_embeddings, Tensor) else list(token_embeddings)
        widths = [table.shape[-1] for table in tables]
        if widths != list(self.config.condition_dims):
            raise ValueError(
                f"this fusion model is for token embeddings of widths {list(self.config.condition_dims)}, but found "
                f"{widths}: use the text encoders it was made for, or make one with condition_dims={widths}"
            )
        probes = self.sample(torch.eye(len(EMOTIONS)).repeat(8, 1), torch.Generator().manual_seed(0))
        for mappers, table in zip(self.mappers, tables, strict=True):
            table = table.detach().to(self.mean.device, torch.float32)
            centre = table.mean(0)
            # the three terms vary independently: each has its share of the variance
            spread = _spread(table) / math.sqrt(len(FEATURES))
            for name, features, target in zip(FEATURES, probes, (centre, 0 * centre, 0 * centre), strict=True):
                _match_spread(mappers[name], features, target, spread)

    @torch.no_grad()
    def set_attribute_bases(
        self,
        scenes: Sequence[str],
        objects: Sequence[str],
        scene_base: Tensor,
        object_base: Tensor,
        scene_projection: Tensor,
        object_projection: Tensor,
        scene_coefficients: Tensor,
        object_coefficients: Tensor,
    ) -> None:
        """Stores copies of the two attribute bases, for `retrieve` and `coefficients`.

        Args:
            scenes, objects: the names, S and O of them; they become the configuration's.
            scene_base, object_base: text features of the names, (S, A) and (O, A); rows are normalised here.
            scene_projection, object_projection: (A, F), the weights of the understanding model's projections.
            scene_coefficients, object_coefficients: (S, 8) and (O, 8), P(emotion | attribute) in [0, 1].

        Raises:
            ValueError: a shape that does not fit, numbers that are not finite, coefficients outside [0, 1].
        """
        width, features, emotions = self.config.attribute_dim, self.config.feature_dim, len(EMOTIONS)
        given = {
            "scene_base": (scene_base, (len(scenes), width)),
            "object_base": (object_base, (len(objects), width)),
            "scene_projection": (scene_projection, (width, features)),
            "object_projection": (object_projection, (width, features)),
            "scene_coefficients": (scene_coefficients, (len(scenes), emotions)),
            "object_coefficients": (object_coefficients, (len(objects), emotions)),
        }
        values = {name: _checked(name, value, shape) for name, (value, shape) in given.items()}
        for name in ("scene_coefficients", "object_coefficients"):
            if ((values[name] < 0) | (values[name] > 1)).any():
                low, high = values[name].min().item(), values[name].max().item()
                raise ValueError(f"{name} must be probabilities between 0 and 1, but reach from {low:g} to {high:g}")
        for name in ("scene_base", "object_base"):
            values[name] = F.normalize(values[name], dim=-1)
        self._store(values)
        self.register_to_config(scenes=list(scenes), objects=list(objects))

    @torch.no_grad()
    def set_emotion_space(
        self,
        mean: Tensor,
        std: Tensor,
        bank: Tensor | None = None,
        bank_weights: Tensor | None = None,
        low_rank_factors: Tensor | None = None,
        low_rank_diagonal: Tensor | None = None,
        emotion_space: str | None = None,
    ) -> None:
        """Replaces the emotion space. A form that is not given is dropped, so that nothing stale remains.

        Args:
            mean, std: (8, 3, F), of emotion, scene and object features.
            bank: (8, K, 3, F) medoids; an emotion with fewer than K fills up with rows of weight 0.
            bank_weights: (8, K), not negative, each row with a sum above 0.
            low_rank_factors: (8, r, 3F), over the concatenated features.
            low_rank_diagonal: (8, 3F), standard deviations of what the factors leave.
            emotion_space: the form to sample from, "bank", "low_rank" or "gaussian"; None keeps the configuration's.

        Raises:
            ValueError: shapes that do not fit, numbers that are not finite, a form to sample from that is not given.
        """
        emotions, width = len(EMOTIONS), self.config.feature_dim
        size = 0 if bank is None else bank.shape[1]
        rank = 0 if low_rank_factors is None else low_rank_factors.shape[1]
        form = emotion_space or self.config.emotion_space
        _check_emotion_space(form, size, rank)
        values = _standard_space(width, size, rank)
        given = {"mean": mean, "std": std, "bank": bank, "bank_weights": bank_weights}
        given |= {"low_rank_factors": low_rank_factors, "low_rank_diagonal": low_rank_diagonal}
        for name, value in given.items():
            if value is not None:
                values[name] = _checked(name, value, tuple(values[name].shape))
        for name in ("std", "bank_weights", "low_rank_diagonal"):
            if (values[name] < 0).any():
                raise ValueError(f"{name} must not be negative, but its least value is {values[name].min().item():g}")
        if size:
            if bank_weights is None or (values["bank_weights"].sum(-1) <= 0).any():
                raise ValueError(f"bank_weights must give each of the {emotions} emotions a sum above 0")
            values["bank_neighbours"] = _neighbours(values["bank"], values["bank_weights"], values["std"])
        self._store(values)
        self.register_to_config(emotion_space=form, bank_size=size, rank=rank)

    def _store(self, values: dict[str, Tensor]) -> None:
        """Sets buffers, each in the storage type and on the device of the one before."""
        for name, value in values.items():
            setattr(self, name, value.to(getattr(self, name), copy=True))

    def _rows(self, emotion_weights: Tensor, batch: int | None = None) -> Tensor:
        """Emotion weights as (B, 8) float32 on the model's device; one row serves a whole batch."""
        weights = emotion_weights.to(self.mean.device, torch.float32)
        weights = weights[None] if weights.ndim == 1 else weights
        if batch is not None and weights.shape == (1, len(EMOTIONS)):
            weights = weights.expand(batch, -1)
        if weights.ndim != 2 or weights.shape[1] != len(EMOTIONS) or batch not in (None, len(weights)):
            expected = f"({'B' if batch is None else batch}, {len(EMOTIONS)}) or ({len(EMOTIONS)},)"
            raise ValueError(f"emotion_weights must have shape {expected}, but have {tuple(emotion_weights.shape)}")
        return weights

    def _matching(self, features: Tensor) -> Tensor:
        """Features on the model's device, or an error that names both widths."""
        if features.ndim != 2 or features.shape[1] != self.config.feature_dim:
            raise ValueError(
                f"features must have shape (B, {self.config.feature_dim}), but have {tuple(features.shape)}: this "
                "fusion model belongs to an understanding model of another width, or a batch axis is missing"
            )
        return features.to(self.mean.device)


def _mapper(feature_dim: int, condition_dim: int) -> nn.Sequential:
    """Features to token-embedding space (section 2.2)."""
    return nn.Sequential(
        nn.Linear(feature_dim, feature_dim),
        nn.ReLU(),
        nn.Linear(feature_dim, condition_dim),
    )


def _standard_space(feature_dim: int, bank_size: int, rank: int) -> dict[str, Tensor]:
    """A standard normal emotion space in every form; its tensors tell the shapes of the buffers."""
    emotions, width = len(EMOTIONS), len(FEATURES) * feature_dim
    generator = torch.Generator("cpu").manual_seed(0)
    mean, std = torch.zeros(emotions, len(FEATURES), feature_dim), torch.ones(emotions, len(FEATURES), feature_dim)
    bank = torch.randn(emotions, bank_size, len(FEATURES), feature_dim, generator=generator, device="cpu")
    own = torch.arange(bank_size)[None, :, None].expand(emotions, -1, BANK_NEIGHBOURS)
    return {
        "mean": mean,
        "std": std,
        "bank": bank.to(mean.device),
        "bank_weights": torch.full((emotions, bank_size), 1 / max(bank_size, 1)),
        "bank_neighbours": own.contiguous(),
        "low_rank_factors": torch.zeros(emotions, rank, width),
        "low_rank_diagonal": torch.ones(emotions, width if rank else 0),
    }


def _check_retrieval(form: str, condition_dim: int, attribute_dim: int) -> None:
    if form not in RETRIEVALS:
        raise ValueError(f"retrieval must be one of {', '.join(RETRIEVALS)}, but is {form!r}")
    if form == "released" and condition_dim != attribute_dim:
        raise ValueError(
            f"the released retrieval compares conditions with attributes, but they have widths {condition_dim} and "
            f'{attribute_dim}: use retrieval="aligned"'
        )


def _check_emotion_space(form: str, bank_size: int, rank: int) -> None:
    if form not in EMOTION_SPACES:
        raise ValueError(f"emotion_space must be one of {', '.join(EMOTION_SPACES)}, but is {form!r}")
    if {"bank": bank_size, "low_rank": rank, "gaussian": 1}[form] < 1:
        raise ValueError(f'this emotion space holds no "{form}" form: fit one, or use emotion_space="gaussian"')


def _checked(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A float32 copy for arithmetic, or an error that names the tensor and both shapes."""
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, but has {tuple(value.shape)}")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} must be finite, but holds NaN or infinite numbers")
    return value.detach().float()


def _weighted_sum(mappers: nn.ModuleDict, features: Sequence[Tensor], scales: Sequence[float | Tensor]) -> Tensor:
    """The sum of scale * mapper(feature), added in float32 and returned in the mappers' type."""
    terms = [mappers[name](feature) for name, feature in zip(FEATURES, features, strict=True)]
    return sum(scale * term for scale, term in zip(scales, terms, strict=True)).to(terms[0].dtype)


def _nearest(features: Tensor, base: Tensor) -> Tensor:
    """The row of `base` with the largest cosine to each feature, (B,); -1 where `base` is empty."""
    if not len(base):
        return torch.full(features.shape[:1], -1, device=features.device)
    with torch.autocast(features.device.type, enabled=False):
        # the length of a feature does not change the order, and base rows have length 1
        return (F.normalize(features, dim=-1) @ base.float().T).argmax(-1)


def _neighbours(bank: Tensor, weights: Tensor, std: Tensor) -> Tensor:
    """Indices (8, K, BANK_NEIGHBOURS) of each medoid's nearest others of weight above 0.

    Distances are over the three features together, each divided by its own typical deviation, as in fitting. Where
    there are too few others, the nearest comes again; where there is none, the medoid itself.
    """
    scale = std.pow(2).mean(-1).sqrt()
    flat = (bank / scale.where(scale > 0, 1.0)[:, None, :, None]).flatten(2)
    distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    distance.masked_fill_((weights <= 0)[:, None, :], torch.inf)
    ordered, index = distance.sort(dim=-1, stable=True)
    own = torch.arange(bank.shape[1], device=bank.device)[:, None]
    nearest = torch.where(ordered[..., :1].isinf(), own, index[..., :1])
    index = torch.where(ordered.isinf(), nearest, index)
    missing = max(BANK_NEIGHBOURS - bank.shape[1], 0)
    return torch.cat([index[..., :BANK_NEIGHBOURS], nearest.expand(-1, -1, missing)], -1)


def _mix(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over emotions, (8, 3, F) and (8,) to (3, F)."""
    return (weights[:, None, None] * values).sum(0)


def _scaled(alpha: Tensor, scale: float | Tensor) -> Tensor:
    """Coefficients (B,) times a number or (B,), as a column (B, 1)."""
    return (alpha * torch.as_tensor(scale, device=alpha.device, dtype=alpha.dtype))[:, None]


def _spread(vectors: Tensor) -> Tensor:
    """The median distance from the mean."""
    return (vectors - vectors.mean(0)).norm(dim=-1).median()


def _match_spread(mapper: nn.Sequential, features: Tensor, centre: Tensor, spread: Tensor) -> None:
    """Shrinks and shifts the mapper's last layer: its outputs get this mean, and at most this spread."""
    last = mapper[-1]
    outputs = mapper(features.to(last.weight.dtype)).float() - last.bias.float()
    gain = (spread / _spread(outputs)).clamp(max=1.0)
    last.weight.mul_(gain)
    last.bias.copy_(centre - gain * outputs.mean(0))


def _fresh_generator() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator
