"""What a model card says of each kind of folder, whatever the run: the words, and the code that loads it."""

from dataclasses import dataclass, replace

PAPER = "[UniEmo](https://arxiv.org/abs/2507.23372)"


@dataclass(frozen=True)
class CardText:
    """The words of one kind of card.

    Attributes:
        title: what it is, in a few words.
        summary: a paragraph; `{base}`, `{data}`, `{emotions}` and `{paper}` stand for these things.
        code: Python that loads and uses it; `{place}` and `{base_place}` stand for where the folder and the base model
            are.
        needs: what that code needs to be installed.
        limits: what it is not good for.
        library, task, relation: `library_name`, `pipeline_tag` and `base_model_relation` of the metadata.
        tags: the metadata's.
    """

    title: str
    summary: str
    code: str
    needs: str
    limits: tuple[str, ...]
    library: str
    task: str
    relation: str
    tags: tuple[str, ...]


_PEOPLE = "Emotion labels are one culture's reading of pictures. It is not for judging people by their pictures."
_CLASSIFIER_LIMITS = (
    "It always names one of the eight emotions, whatever the picture.",
    "Figures hold for pictures like those that it was measured on.",
    _PEOPLE,
)

UNDERSTANDING = CardText(
    title="which emotion a picture evokes",
    summary=(
        "An image classifier for the eight emotions {emotions}, after the understanding stage of {paper}: the vision "
        "tower of {base} with learnt scene and object queries beside the visual tokens, fine-tuned on {data}. Beside "
        "the emotion it gives a feature of the scene and one of the objects that evoke it."
    ),
    code="""
from transformers import pipeline

classify = pipeline("image-classification", model="{place}", trust_remote_code=True)
print(classify("photo.jpg", top_k=8))
""",
    needs=(
        "`trust_remote_code` lets the code run that is in the folder; it needs no package beside transformers and "
        "PyTorch."
    ),
    limits=_CLASSIFIER_LIMITS,
    library="transformers",
    task="image-classification",
    relation="finetune",
    tags=("uniemo", "emotion", "image-classification"),
)

LORA = replace(
    UNDERSTANDING,
    summary=UNDERSTANDING.summary
    + " The tower was trained by LoRA, which is merged here; `lora/` has it as a PEFT adapter for the stock CLIP.",
    tags=(*UNDERSTANDING.tags, "lora"),
)

BASELINE = CardText(
    title="a plain emotion classifier, to compare UniEmo with",
    summary=(
        "An image classifier for the eight emotions {emotions}: the vision tower of {base} and an emotion head, "
        "fine-tuned on {data}. It is the understanding stage of {paper} without the expert queries; what that gains "
        "over this one is the queries' doing."
    ),
    code="""
from PIL import Image
from transformers import AutoImageProcessor

from training.train_baseline import PlainClassifier

model = PlainClassifier.from_pretrained("{place}")
processor = AutoImageProcessor.from_pretrained("{place}")
pixels = processor(images=Image.open("photo.jpg").convert("RGB"), return_tensors="pt").pixel_values
print(model(pixels).logits.softmax(-1))
""",
    needs="It runs in a checkout of the code of uniemo-pipelines; the Auto classes do not know it.",
    limits=_CLASSIFIER_LIMITS,
    library="transformers",
    task="image-classification",
    relation="finetune",
    tags=("uniemo", "emotion", "image-classification"),
)

POOLED_PATCHES = replace(
    BASELINE,
    title="an emotion classifier without expert queries, to compare UniEmo with",
    summary=(
        "An image classifier for the eight emotions {emotions}: the vision tower of {base}, fine-tuned on {data}. It "
        "is the understanding stage of {paper} without the expert queries: its features of the scene and of the "
        "objects are means over the patch tokens at the same depths."
    ),
    code=BASELINE.code.replace("train_baseline", "pooled_patches").replace("PlainClassifier", "PooledPatchesModel"),
    needs="It runs in a checkout of the code of uniemo-pipelines.",
)

JOINT = CardText(
    title="emotions for Stable Diffusion, as an adapter",
    summary=(
        "An adapter for {base}: it draws pictures that evoke a chosen emotion ({emotions}), and reads which one a "
        "picture evokes, after {paper}. It was trained on {data}; the base itself is not in here."
    ),
    code="""
from uniemo_pipelines import UniEmoPipeline

pipe = UniEmoPipeline.from_pretrained("{base_place}")
pipe.load_uniemo("{place}")
image = pipe(emotion="awe").images[0]
image = pipe("a photo of a <awe> street").images[0]

print(pipe.understand(image)[0].label)
""",
    needs="It needs the package uniemo-pipelines. What understands pictures is fetched when it is first used.",
    limits=(
        "It can draw no more than its base can, and another base must have the same text encoder.",
        "What the base's licence and model card ask holds for its pictures too.",
        "Figures hold for pictures like those that it was measured on.",
        _PEOPLE,
    ),
    library="diffusers",
    task="text-to-image",
    relation="adapter",
    tags=("uniemo", "emotion", "stable-diffusion", "stable-diffusion-diffusers", "diffusers-training"),
)

EMOTION_SPACE = replace(
    JOINT,
    summary=(
        "An adapter for {base}: it draws pictures that evoke a chosen emotion ({emotions}), and reads which one a "
        "picture evokes, after {paper}. The base itself is not in here. After its training the emotion space, from "
        "which it draws without a reference picture, was fitted again on {data}; results and arguments below are of "
        "that fit."
    ),
)


TEXTUAL_INVERSION = CardText(
    title="a textual inversion for each emotion, to compare UniEmo with",
    summary=(
        "An embedding for {base} for each of the emotions {emotions}, learnt from pictures of {data} that evoke it. "
        "It is what {paper} does without understanding: one vector an emotion, the same for every picture."
    ),
    code="""
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("{base_place}")
pipe.load_textual_inversion("{place}", weight_name="awe.safetensors")
image = pipe("a photo of a <awe> street").images[0]
""",
    needs="It needs diffusers and transformers alone.",
    limits=("It draws an emotion in few ways.", *JOINT.limits[:2], _PEOPLE),
    library="diffusers",
    task="text-to-image",
    relation="adapter",
    tags=("uniemo", "emotion", "stable-diffusion", "stable-diffusion-diffusers", "textual_inversion"),
)


def with_pooled_patches(text: CardText) -> CardText:
    """For an adapter whose features are those of the rival without expert queries."""
    return replace(
        text,
        summary=(
            "An adapter for {base}, to compare UniEmo with: it draws pictures that evoke a chosen emotion "
            "({emotions}), after {paper}, but was trained on {data} with means over patch tokens in place of expert "
            "queries. The base itself is not in here."
        ),
        code=text.code.replace("\nprint(pipe.understand(image)[0].label)\n", ""),
        needs="It needs the package uniemo-pipelines. Pictures are not understood with it, only drawn.",
    )


def with_base_lora(text: CardText) -> CardText:
    """For an adapter that LoRA weights of its base were trained with."""
    loading = 'pipe.load_uniemo("{place}")\n'
    return replace(
        text,
        summary=text.summary + " LoRA weights of the base were trained with it and are in here too.",
        code=text.code.replace(loading, loading + 'pipe.load_lora_weights("{place}")\n'),
        tags=(*text.tags, "lora"),
    )
