"""The understanding half of UniEmo (arXiv 2507.23372): a CLIP vision tower with scene and object expert queries.

One self-contained file, configuration and model together, because a Hub repository that carries the code fetches only
the one module that its configuration names.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, LoadStateDictConfig
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, is_peft_available, requires_backends
from transformers.utils.output_capturing import capture_outputs

if is_peft_available():  # asked, or transformers would not run this file from a repository where peft is missing
    from peft import LoraConfig
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

EMOTIONS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
"""The eight emotions in EmoSet's order; the first four are positive."""

VIT_L_14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "projection_dim": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
REPOSITORY_MODULE = "modeling_uniemo"
"""This file's name in a repository that carries the code."""

CONTRASTIVE_FORMS = ("multi_positive", "released")
TRAINED_WHOLE = (
    "scene_queries",
    "object_queries",
    "scene_interaction",
    "object_interaction",
    "scene_projection",
    "object_projection",
    "classifier",
)
"""What a LoRA adapter of the backbone carries whole beside it."""


class UniEmoConfig(PreTrainedConfig):
    """Configuration of [`UniEmoUnderstandingModel`].

    Args:
        vision_config: the CLIP vision tower; the paper's ViT-L/14 at 224 px unless given.
        num_scene_queries, num_object_queries: number of expert queries of each kind.
        stage_boundaries: the layers after which the two interactive blocks run, 0 < a < b < num_hidden_layers. None
            cuts n layers at n // 3 and 2 * n // 3: three equal stages, or the later ones longer by one layer.
        projection_dim: width of the space in which features meet text features; the width of CLIP's text features.
        classifier_hidden, classifier_dropout: of the emotion head. `classifier_hidden` must be the width
            of the generator's text encoder, for the emotional condition loss applies the last layer to a condition.
        scenes, objects: the vocabularies; their order gives the label indexes. Set by `set_vocabulary`.
        contrastive: "multi_positive" (default) or "released", see the loss functions of these names.
        emotion_loss_weight, scene_loss_weight, object_loss_weight: of the stage-1 loss.
        logit_scale_init_value: both log temperatures at the start, CLIP's own 1/0.07. The released code fixes the
            scene's at the pretrained CLIP's 100; here both are trained, and so is the projection that they scale.
        query_initializer_range: standard deviation of the queries at the start; 1 in the released code.
        initializer_factor: on the standard deviation of our other weights; 1 is PyTorch's own, (3 * fan_in) ** -0.5.

    Raises:
        ValueError: stages that do not fit the backbone, no queries, an unknown contrastive form.
    """

    model_type = "uniemo"
    _auto_class = "AutoConfig"
    sub_configs_defaults = {"vision_config": CLIPVisionConfig}

    vision_config: dict | CLIPVisionConfig | None = None
    num_scene_queries: int = 32
    num_object_queries: int = 32
    stage_boundaries: list[int] | tuple[int, ...] | None = None
    projection_dim: int = 768
    classifier_hidden: int = 768
    classifier_dropout: float = 0.5
    scenes: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    contrastive: str = "multi_positive"
    emotion_loss_weight: float = 0.9
    scene_loss_weight: float = 0.05
    object_loss_weight: float = 0.05
    logit_scale_init_value: float = 2.6592
    query_initializer_range: float = 1.0
    initializer_factor: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None:
            self.vision_config = CLIPVisionConfig(**VIT_L_14)
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = dict(enumerate(EMOTIONS))
            self.label2id = {emotion: index for index, emotion in enumerate(EMOTIONS)}
        super().__post_init__(**kwargs)
        # All entries, for saving adds the one of the class that is saved only.
        self.auto_map = {"AutoConfig": f"{REPOSITORY_MODULE}.UniEmoConfig"}
        for auto_class in ("AutoModel", "AutoModelForImageClassification"):
            self.auto_map[auto_class] = f"{REPOSITORY_MODULE}.UniEmoUnderstandingModel"
        self._check()

    @property
    def hidden_size(self) -> int:
        """Width of the backbone, and of all three features."""
        return self.vision_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers of the backbone."""
        return self.vision_config.num_hidden_layers

    @property
    def stages(self) -> tuple[range, range, range]:
        """Indexes of the backbone's layers in each of the three stages."""
        layers = self.num_hidden_layers
        first, second = self.stage_boundaries or (layers // 3, 2 * layers // 3)
        return range(first), range(first, second), range(second, layers)

    def _check(self) -> None:
        layers, cut = self.num_hidden_layers, self.stage_boundaries
        if layers < 3:
            raise ValueError(f"Expected a vision tower of at least 3 layers; found {layers}: take a deeper one.")
        if cut is not None and (len(cut) != 2 or not 0 < cut[0] < cut[1] < layers):
            raise ValueError(
                f"stage_boundaries must be two layer numbers a < b from 1 to {layers - 1}, for the vision tower has "
                f"{layers} layers; found {list(cut)}. Leave it None for three equal stages."
            )
        for kind in ("num_scene_queries", "num_object_queries"):
            if getattr(self, kind) < 1:
                raise ValueError(f"{kind} must be at least 1; found {getattr(self, kind)}.")
        if self.contrastive not in CONTRASTIVE_FORMS:
            raise ValueError(f"contrastive must be one of {CONTRASTIVE_FORMS}; found {self.contrastive!r}.")


@dataclass
class UniEmoOutput(ModelOutput):
    """Output of [`UniEmoUnderstandingModel`]; B images, W the backbone's width.

    Attributes:
        loss: () the weighted sum of those losses below whose labels were given.
        logits: (B, 8) of the emotions.
        emotion_features, scene_features, object_features: (B, W).
        emotion_loss, scene_loss, object_loss: () each where its labels were given.
        hidden_states: with `output_hidden_states`, the input of the first layer and the output of each,
            (B, 1 + patches + queries of the stage, W); queries stand last, scenes before objects.
        attentions: with `output_attentions`, the backbone's, (B, heads, tokens, tokens) a layer; the eager attention
            implementation alone can give them, with any other the tuple is empty.
        scene_attentions, object_attentions: with `output_attentions`, how the queries attend to CLS (first) and
            patches in their interactive block, (B, heads, queries, 1 + patches), with any attention implementation.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    emotion_features: torch.Tensor | None = None
    scene_features: torch.Tensor | None = None
    object_features: torch.Tensor | None = None
    emotion_loss: torch.Tensor | None = None
    scene_loss: torch.Tensor | None = None
    object_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    scene_attentions: torch.Tensor | None = None
    object_attentions: torch.Tensor | None = None


def cosine_logits(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
    """Cosines (B, T) of image features (B, P) and text features (T, P), in float32 under any dtype and autocast.

    A temperature of 100 would turn the rounding of half precision into visible errors of the loss.
    """
    with torch.autocast(image_features.device.type, enabled=False):
        return F.normalize(image_features.float(), dim=-1) @ F.normalize(text_features.float(), dim=-1).T


def released_contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric InfoNCE between each image and its own text, as in the released code.

    Two images of the same name are negatives of each other here. Images that are not valid are left out of the
    targets of both directions and stay among the candidates.

    Args:
        image_features: (B, P), need not be normalised.
        text_features: (B, P), the text of each image; of one without a label, "scene" or "object".
        logit_scale: () log temperature.
        valid: (B,) bool, which images have a label.

    Returns:
        () float32; 0 when no image is valid.
    """
    logits = logit_scale.float().exp() * cosine_logits(image_features, text_features)
    own = torch.arange(len(logits), device=logits.device)
    to_text = F.cross_entropy(logits, own, reduction="none")
    to_image = F.cross_entropy(logits.T, own, reduction="none")
    return ((to_text + to_image) * valid).sum() / (2 * valid.sum().clamp(min=1))


def multi_positive_contrastive_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    positives: torch.Tensor,
    candidates: torch.Tensor,
) -> torch.Tensor:
    """Symmetric InfoNCE between images and distinct texts; images may have several texts, and texts several images.

    In each direction the loss of a row is the mean of -log p over its positives (the outer form of Khosla et al. 2020,
    "Supervised Contrastive Learning"), and the loss is the mean over rows that have any. Where every image has a name
    of its own and at most one has none, it equals the released form.

    Args:
        image_features: (B, P), need not be normalised.
        text_features: (T, P), each text once.
        logit_scale: () log temperature.
        positives: (B, T) bool. An image without any is no target but stays a candidate.
        candidates: (T,) bool, the texts that an image chooses from.

    Returns:
        () float32; 0 when nothing is positive.
    """
    logits = logit_scale.float().exp() * cosine_logits(image_features, text_features)
    # The smallest number rather than -inf, which gives NaN gradients where no text is a candidate.
    to_text = logits.masked_fill(~candidates, torch.finfo(logits.dtype).min).log_softmax(dim=1)
    to_image = logits.log_softmax(dim=0)
    return -(_mean_over_positives(to_text, positives) + _mean_over_positives(to_image.T, positives.T)) / 2


def _mean_over_positives(log_probabilities: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    count = positives.sum(dim=1)
    rows = log_probabilities.masked_fill(~positives, 0).sum(dim=1) / count.clamp(min=1)
    return rows.sum() / (count > 0).sum().clamp(min=1)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, in the form that transformers' attention functions share; (B, heads, tokens, width)."""
    weights = attention_weights(query, key, scaling).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


def attention_weights(query: torch.Tensor, key: torch.Tensor, scaling: float) -> torch.Tensor:
    """Softmax over the keys, in float32."""
    return (query @ key.transpose(-1, -2) * scaling).softmax(dim=-1, dtype=torch.float32)


def split_heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, tokens, W) to (B, heads, tokens, W / heads)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    scaling: float,
    config: PreTrainedConfig,
) -> torch.Tensor:
    """What projected queries (B, Q, W) read from projected tokens (B, N, W) by the configured attention, (B, Q, W)."""
    attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager_attention)
    parts = (split_heads(tokens, heads) for tokens in (query, key, value))
    update, _ = attention(module, *parts, None, scaling=scaling, dropout=module.dropout if module.training else 0.0)
    return update.flatten(2)


class CrossAttention(nn.Module):
    """Queries attend to visual tokens; no bias on queries, keys and values, as in the released code.

    It has as many heads as the backbone's own attention, which is width/64 in every CLIP of OpenAI's.
    """

    is_causal = False

    def __init__(self, config: UniEmoConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.heads = config.vision_config.num_attention_heads
        self.dropout = config.vision_config.attention_dropout
        self.scaling = (width // self.heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, queries: torch.Tensor, visual: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Updates (B, Q, W) of the queries, and on request their attention maps (B, heads, Q, visual tokens)."""
        query, key, value = self.q_proj(queries), self.k_proj(visual), self.v_proj(visual)
        update = attend(self, query, key, value, self.heads, self.scaling, self.config)
        # Fused attention gives no maps, so they are computed from q and k, and only for whom asks.
        maps = None
        if output_attentions:
            maps = attention_weights(split_heads(query, self.heads), split_heads(key, self.heads), self.scaling)
        return self.out_proj(update), maps


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's activation, as a scaled SiLU.

    Equal to transformers' own up to rounding, but one fused function instead of three, and training keeps one tensor
    less of the MLP's width for each layer.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Any shape to the same."""
        return F.silu(1.702 * features) / 1.702


def make_activation(config: CLIPVisionConfig) -> nn.Module:
    """The tower's activation, which the interactive blocks share."""
    return QuickGELU() if config.hidden_act == "quick_gelu" else ACT2FN[config.hidden_act]


class InteractiveBlock(GradientCheckpointingLayer):
    """Expert queries read the visual tokens: cross-attention and an MLP, pre-norm with residuals."""

    def __init__(self, config: UniEmoConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.vision_config.layer_norm_eps
        self.visual_norm = nn.LayerNorm(width, eps=eps)
        self.query_norm = nn.LayerNorm(width, eps=eps)
        self.attention = CrossAttention(config)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, 4 * width)
        self.activation = make_activation(config.vision_config)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(
        self, queries: torch.Tensor, visual: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Queries (B, Q, W) updated by the visual tokens (B, N, W), and on request the maps (B, heads, Q, N)."""
        update, maps = self.attention(self.query_norm(queries), self.visual_norm(visual), output_attentions)
        queries = queries + update
        return queries + self.fc2(self.activation(self.fc1(self.mlp_norm(queries)))), maps


class LastLayer(CLIPEncoderLayer):
    """The backbone's last layer. Of its output only the class token is read, which needs all keys and values only.

    A layer of its own, so that hooks, checkpointing and offloading reach it as any other.
    """

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: None, whole: bool = True, **kwargs: Any
    ) -> torch.Tensor:
        """(B, tokens, W) to the same, or with `whole` false to the class token alone, (B, 1, W)."""
        if whole:
            return super().forward(hidden_states, attention_mask, **kwargs)
        attention, tokens = self.self_attn, self.layer_norm1(hidden_states)
        projected = attention.q_proj(tokens[:, :1]), attention.k_proj(tokens), attention.v_proj(tokens)
        update = attend(attention, *projected, attention.num_heads, attention.scale, attention.config)
        class_token = hidden_states[:, :1] + attention.out_proj(update)
        return class_token + self.mlp(self.layer_norm2(class_token))


class UniEmoUnderstandingModel(PreTrainedModel):
    """Which emotion an image evokes, and the scene and object features that explain it.

    The hierarchical understanding chain: the backbone's first stage runs with the scene queries beside the visual
    tokens, the second with scene and object queries, the third with all; after each of the first two stages an
    interactive block updates that stage's queries from the visual tokens, and their mean is the feature.
    """

    config: UniEmoConfig
    config_class = UniEmoConfig
    _auto_class = "AutoModelForImageClassification"  # saved with its code, for whoever has no package of ours
    base_model_prefix = "uniemo"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["CLIPVisionEmbeddings", "CLIPEncoderLayer", "LastLayer", "InteractiveBlock"]
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": CLIPEncoderLayer, "attentions": CLIPAttention}

    def __init__(self, config: UniEmoConfig) -> None:
        super().__init__(config)
        width, projection = config.hidden_size, config.projection_dim
        self.vision_model = CLIPVisionModel._from_config(config.vision_config)
        # Not a new layer, which would miss the tower's own initialisation.
        self.vision_model.encoder.layers[-1].__class__ = LastLayer
        for layer in self.vision_model.encoder.layers:
            layer.mlp.activation_fn = make_activation(config.vision_config)
        self.scene_queries = nn.Embedding(config.num_scene_queries, width)
        self.object_queries = nn.Embedding(config.num_object_queries, width)
        self.scene_interaction = InteractiveBlock(config)
        self.object_interaction = InteractiveBlock(config)
        self.classifier = nn.Sequential(
            nn.Linear(width, config.classifier_hidden),
            nn.ReLU(),
            nn.Dropout(config.classifier_dropout),
            nn.Linear(config.classifier_hidden, config.num_labels),
        )
        self.scene_projection = nn.Linear(width, projection, bias=False)
        self.object_projection = nn.Linear(width, projection, bias=False)
        for kind, names in (("scene", config.scenes), ("object", config.objects)):
            setattr(self, f"{kind}_logit_scale", nn.Parameter(torch.tensor(config.logit_scale_init_value)))
            self.register_buffer(f"{kind}_text_features", torch.zeros(len(names), projection))
            self.register_buffer(f"missing_{kind}_text", torch.zeros(projection))
        # Set where the batch is spread over processes: (B, ...) to all processes' rows, so that the contrastive losses
        # see the candidates and targets of the whole batch.
        self.gather_rows: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The tower initialises itself; what arrives here is ours.
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_factor * (3 * module.in_features) ** -0.5)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.query_initializer_range)
        elif isinstance(module, UniEmoUnderstandingModel):
            for kind in ("scene", "object"):
                init.constant_(getattr(module, f"{kind}_logit_scale"), self.config.logit_scale_init_value)
                init.zeros_(getattr(module, f"{kind}_text_features"))
                init.zeros_(getattr(module, f"missing_{kind}_text"))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """As transformers' own, but of safetensors whatever is asked for: no pickle is read."""
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs | {"use_safetensors": True})
        except OSError as error:
            if "safetensors" in str(error):
                error.add_note("The understanding model is read from safetensors only, never from a pickle (.bin).")
            raise

    @classmethod
    def from_clip(
        cls, clip: str | os.PathLike | CLIPModel | CLIPVisionModel | CLIPVisionModelWithProjection, **config: Any
    ) -> "UniEmoUnderstandingModel":
        """A model on a stock CLIP's vision tower, everything else at its start.

        Args:
            clip: name or folder of a CLIP (the whole, or its vision model), or such a model, which stays as it is.
            **config: fields of [`UniEmoConfig`]; `projection_dim` is CLIP's own unless given.

        Raises:
            ValueError: the name or folder is not a CLIP.
            TypeError: an object that is not a CLIP, or a keyword that the configuration does not have.
        """
        if isinstance(clip, (str, os.PathLike)):
            found = AutoConfig.from_pretrained(clip).model_type
            if found not in ("clip", "clip_vision_model"):
                raise ValueError(f"Expected a CLIP model at {str(clip)!r}; found one of type {found!r}.")
            clip = AutoModel.from_pretrained(clip)
        if not isinstance(clip, (CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection)):
            raise TypeError(f"Expected a CLIP model, or the name or folder of one; found {type(clip).__name__}.")
        if unknown := set(config) - {known.name for known in fields(UniEmoConfig)}:
            own = ", ".join(UniEmoConfig.__annotations__)
            raise TypeError(f"UniEmoConfig has no field {', '.join(sorted(unknown))}; it has {own}.")
        tower = getattr(clip, "vision_model", clip)
        # A dictionary, so that no configuration object is shared; without the path where CLIP happened to be.
        vision_config = {key: value for key, value in tower.config.to_dict().items() if key != "_name_or_path"}
        config = {"projection_dim": clip.config.projection_dim, **config}
        model = cls(UniEmoConfig(vision_config=vision_config, **config)).to(tower.device, tower.dtype)
        model.vision_model.load_state_dict(tower.state_dict())
        return model

    @staticmethod
    def lora_config(rank: int = 16, **options: Any) -> "LoraConfig":
        """A PEFT configuration for `add_adapter`: LoRA on the tower's attention and MLP, everything of ours whole.

        Queries, interactive blocks, projections and head are trained and saved beside the LoRA weights; the two
        temperatures stay as they are, for PEFT trains modules and not bare parameters.

        Args:
            rank: of the LoRA matrices. At ViT-L/14 an adapter of rank 16 has 69 MB in half precision.
            **options: fields of PEFT's LoraConfig; `lora_alpha` is the rank unless given.

        Raises:
            ImportError: PEFT is not installed.
        """
        requires_backends(UniEmoUnderstandingModel, "peft")
        # A pattern, for bare names such as "q_proj" would hit the interactive blocks as well.
        linears = r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"
        options = {"lora_alpha": rank, "target_modules": linears, "modules_to_save": list(TRAINED_WHOLE), **options}
        return LoraConfig(r=rank, **options)

    def load_adapter(self, *args: Any, load_config: LoadStateDictConfig | None = None, **kwargs: Any) -> Any:
        """As transformers' own; but an adapter that does not fit is refused, where transformers may only warn.

        Raises:
            ValueError: tensors that are missing, unknown or of another shape, all of them listed. The adapter is taken
                out again.
        """
        before = set(getattr(self, "peft_config", {}))
        lenient = replace(load_config or LoadStateDictConfig(), ignore_mismatched_sizes=True)  # so that all are listed
        found = super().load_adapter(*args, load_config=lenient, **kwargs)
        missing = {key for key in found.missing_keys if ".lora_" in key or ".modules_to_save." in key}
        if faults := list_faults(missing, found.unexpected_keys, found.mismatched_keys):
            self.delete_adapter(list(set(self.peft_config) - before))
            raise ValueError(f"Expected an adapter of this model, found one trained for another. {faults}.")
        return found

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Make one adapter the active one.

        Raises:
            ValueError: several, for each brings its own queries, blocks and head; or an unknown one.
        """
        if not isinstance(adapter_name, str) and len(adapter_name) > 1:
            raise ValueError(
                f"Expected one adapter, for each has queries, blocks and a head of its own; found {adapter_name}: "
                "merge_adapter() one into the weights first."
            )
        super().set_adapter(adapter_name)

    def enable_adapters(self) -> None:
        """Undo `disable_adapters`, also for the modules that adapters hold whole, which transformers forgets."""
        super().enable_adapters()
        for module in self.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.enable_adapters(True)

    def merge_adapter(self) -> None:
        """Fold the active adapter into the weights and forget the others: a plain model again, saved as one.

        Raises:
            ValueError: no adapter is there.
        """
        (active,) = self.active_adapters()
        for name, module in list(self.named_modules()):
            if isinstance(module, BaseTunerLayer):
                module.merge()
                self.set_submodule(name, module.get_base_layer())
            elif isinstance(module, ModulesToSaveWrapper):
                self.set_submodule(name, module.modules_to_save[active])
        del self.peft_config
        self._hf_peft_config_loaded = False
        self.requires_grad_(True)

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.get_input_embeddings()

    def set_vocabulary(
        self,
        scenes: Sequence[str],
        objects: Sequence[str],
        scene_text_features: torch.Tensor,
        object_text_features: torch.Tensor,
        missing_scene_text: torch.Tensor,
        missing_object_text: torch.Tensor,
    ) -> None:
        """Set the names that scene and object labels are indexes of, with CLIP's text features of them.

        Args:
            scenes, objects: S and O names, each once; kept in the configuration.
            scene_text_features, object_text_features: (S, P) and (O, P), of the bare names; normalised here.
            missing_scene_text, missing_object_text: (P,), the texts "scene" and "object" of images without a label.

        Raises:
            ValueError: a repeated name, a wrong shape, a feature that is not finite. Nothing has changed then.
        """
        width = self.config.projection_dim
        _check_names("scenes", scenes)
        _check_names("objects", objects)
        buffers = {
            "scene_text_features": _normalised("scene_text_features", scene_text_features, (len(scenes), width)),
            "object_text_features": _normalised("object_text_features", object_text_features, (len(objects), width)),
            "missing_scene_text": _normalised("missing_scene_text", missing_scene_text, (width,)),
            "missing_object_text": _normalised("missing_object_text", missing_object_text, (width,)),
        }
        for name, features in buffers.items():
            setattr(self, name, features.to(getattr(self, name)))
        self.config.scenes, self.config.objects = list(scenes), list(objects)

    def attribute_scores(
        self, scene_features: torch.Tensor, object_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines of features (B, W) and the vocabularies, (B, S) and (B, O), float32, in the aligned space."""
        return (
            cosine_logits(self.scene_projection(scene_features), self.scene_text_features),
            cosine_logits(self.object_projection(object_features), self.object_text_features),
        )

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        scene_labels: torch.Tensor | None = None,
        object_labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UniEmoOutput:
        """Understand images.

        Args:
            pixel_values: (B, 3, H, W), normalised as CLIP's image processor does.
            labels: (B,) long, index into EMOTIONS; or (B, 8) floats, the probability of each.
            scene_labels: (B,) long, index into `config.scenes`; -100 for an image with no scene label.
            object_labels: (B, O) bool or numbers, above 0 where the image has that object; all zero for none.
            output_attentions: also the attention maps, see [`UniEmoOutput`]; the configuration's unless given.
            interpolate_pos_encoding: accept sizes other than the backbone's own.
            **kwargs: `output_hidden_states`, `return_dict`, and what the attention implementation takes.

        Raises:
            ValueError: labels of another vocabulary than the model's, or of none; pixels of another shape, or not
                finite (said on the CPU alone: elsewhere the host would have to wait for the device to look).
        """
        _check_shape(pixel_values, self.config.vision_config.num_channels)
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        positives = {}
        if scene_labels is not None:
            positives["scene"] = self._scene_positives(scene_labels)
        if object_labels is not None:
            positives["object"] = self._object_positives(object_labels)

        features = self._chain(pixel_values, bool(output_attentions), interpolate_pos_encoding, **kwargs)
        logits = self.classifier(features["emotion_features"])
        _check_readable(pixel_values, logits)
        losses = {}
        if labels is not None:
            losses["emotion_loss"] = F.cross_entropy(logits.float(), labels)
        for kind, which in positives.items():
            losses[f"{kind}_loss"] = self._contrastive_loss(kind, features[f"{kind}_features"], which)
        weighted = [getattr(self.config, f"{name}_weight") * loss for name, loss in losses.items()]
        return UniEmoOutput(loss=sum(weighted) if weighted else None, logits=logits, **features, **losses)

    def _chain(
        self, pixel_values: torch.Tensor, output_attentions: bool, interpolate_pos_encoding: bool, **kwargs: Any
    ) -> dict[str, torch.Tensor | None]:
        """The three features, and on request the queries' attention maps, under their names in [`UniEmoOutput`]."""
        tower = self.vision_model
        visual = tower.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        visual = tower.pre_layrnorm(visual)
        sizes = [visual.shape[1], self.config.num_scene_queries, self.config.num_object_queries]
        scenes = self._expand(self.scene_queries, len(visual))
        objects = self._expand(self.object_queries, len(visual))
        first, second, third = self.config.stages

        # What a stage has read is let go before the next one runs, or it would add to its peak of memory.
        layers = tower.encoder.layers
        tokens = torch.cat([visual, scenes], dim=1)
        del visual, scenes
        for index in first:
            tokens = layers[index](tokens, None, **kwargs)
        visual, scenes = tokens.split(sizes[:2], dim=1)
        scenes, scene_maps = self.scene_interaction(scenes, visual, output_attentions)
        scene_features = scenes.mean(dim=1)

        tokens = torch.cat([visual, scenes, objects], dim=1)
        del visual, scenes, objects
        for index in second:
            tokens = layers[index](tokens, None, **kwargs)
        visual, scenes, objects = tokens.split(sizes, dim=1)
        objects, object_maps = self.object_interaction(objects, visual, output_attentions)
        object_features = objects.mean(dim=1)

        tokens = torch.cat([visual, scenes, objects], dim=1)
        del visual, scenes, objects
        for index in third[:-1]:
            tokens = layers[index](tokens, None, **kwargs)
        whole = output_attentions or bool(kwargs.get("output_hidden_states", self.config.output_hidden_states))
        tokens = layers[-1](tokens, None, whole=whole, **kwargs)
        return {
            "emotion_features": tower.post_layernorm(tokens[:, 0]),
            "scene_features": scene_features,
            "object_features": object_features,
            "scene_attentions": scene_maps,
            "object_attentions": object_maps,
        }

    @staticmethod
    def _expand(queries: nn.Embedding, batch: int) -> torch.Tensor:
        # Called as a module and not read as a weight, so that hooks and PEFT's copies of it apply.
        indexes = torch.arange(queries.num_embeddings, device=queries.weight.device)
        return queries(indexes).expand(batch, -1, -1)

    def _scene_positives(self, labels: torch.Tensor) -> torch.Tensor:
        """(B,) indexes as (B, S) bool."""
        size = len(self.config.scenes)
        self._check_vocabulary("scene", size)
        # Reading values breaks a compiled graph; there an index out of range counts as no label.
        if not torch.compiler.is_compiling() and (((labels < 0) & (labels != -100)) | (labels >= size)).any():
            raise ValueError(
                f"scene_labels must be -100 or from 0 to {size - 1}, for the model has {size} scenes; found labels "
                f"from {labels.min().item()} to {labels.max().item()}: give it the data's names by set_vocabulary."
            )
        return labels[:, None] == torch.arange(size, device=labels.device)

    def _object_positives(self, labels: torch.Tensor) -> torch.Tensor:
        """(B, O) numbers as bool."""
        size = len(self.config.objects)
        self._check_vocabulary("object", size)
        if labels.ndim != 2 or labels.shape[1] != size:
            raise ValueError(
                f"object_labels must be (B, {size}), for the model has {size} objects; found {tuple(labels.shape)}: "
                "give the model the data's vocabulary by set_vocabulary."
            )
        return labels > 0

    def _check_vocabulary(self, kind: str, size: int) -> None:
        # All-zero features are those of names that came with the configuration alone.
        texts = getattr(self, f"{kind}_text_features")
        if size == 0 or (not torch.compiler.is_compiling() and not texts.any()):
            found = "no names" if size == 0 else f"{size} names without text features"
            raise ValueError(f"{kind}_labels need the {kind} vocabulary; the model has {found}: call set_vocabulary.")

    def _contrastive_loss(self, kind: str, features: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
        images = getattr(self, f"{kind}_projection")(features)
        if self.gather_rows is not None:
            images, positives = self.gather_rows(images), self.gather_rows(positives)
        texts, missing = getattr(self, f"{kind}_text_features"), getattr(self, f"missing_{kind}_text")[None]
        scale, labelled = getattr(self, f"{kind}_logit_scale"), positives.any(dim=1)
        if self.config.contrastive == "multi_positive":
            # Candidates as in the released form: the texts of this batch's images, here each once.
            candidates = torch.cat([positives.any(dim=0), (~labelled).any()[None]])
            positives = F.pad(positives, (0, 1))
            return multi_positive_contrastive_loss(images, torch.cat([texts, missing]), scale, positives, candidates)
        # The released code uses the last of several objects.
        index = torch.where(positives, torch.arange(len(texts), device=texts.device), 0).amax(dim=1)
        own = torch.where(labelled[:, None], texts[index], missing)
        return released_contrastive_loss(images, own, scale, labelled)


def _check_shape(pixels: torch.Tensor, channels: int) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != channels:
        raise ValueError(f"Expected pixel_values of shape (B, {channels}, H, W), found {tuple(pixels.shape)}.")


def _check_readable(pixels: torch.Tensor, logits: torch.Tensor) -> None:
    # NaN reaches the logits, which are 8 numbers an image: the pixels themselves are looked at only to tell the cause.
    if torch.compiler.is_compiling() or not logits.is_cpu or logits.isfinite().all():
        return
    if not pixels.isfinite().all():
        raise ValueError("Expected finite pixel_values, found NaN or infinity; look at what made them.")


def list_faults(
    missing: Iterable[str], unknown: Iterable[str], misshapen: Iterable[tuple[str, torch.Size, torch.Size]]
) -> str:
    """In one line, every tensor by which weights do not fit a model; empty where they do.

    Args:
        misshapen: key, shape found, shape that fits.
    """
    faults = {
        "missing": sorted(missing),
        "unknown": sorted(unknown),
        "misshapen": sorted(f"{key} {tuple(found)}, not {tuple(fitting)}" for key, found, fitting in misshapen),
    }
    return "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in faults.items() if keys)


def _check_names(kind: str, names: Sequence[str]) -> None:
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"Each of the {kind} must be named once; repeated: {', '.join(repeated)}.")


def _normalised(name: str, features: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    found = tuple(features.shape)
    if found != shape:
        raise ValueError(f"Expected {name} of shape {shape}, by the names and projection_dim; found {found}.")
    if not features.isfinite().all():
        raise ValueError(f"Expected finite {name}; found NaN or infinity.")
    return F.normalize(features.detach().float(), dim=-1)


# In a Hub repository the configuration's auto_map says this instead, and an installed class must not be replaced.
if __name__ == "uniemo_pipelines.modeling_uniemo":
    AutoConfig.register("uniemo", UniEmoConfig)
    AutoModel.register(UniEmoConfig, UniEmoUnderstandingModel)
    AutoModelForImageClassification.register(UniEmoConfig, UniEmoUnderstandingModel)

__all__ = [
    "EMOTIONS",
    "UniEmoConfig",
    "UniEmoOutput",
    "UniEmoUnderstandingModel",
    "multi_positive_contrastive_loss",
    "released_contrastive_loss",
]
