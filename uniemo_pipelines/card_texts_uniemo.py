"""What a model card says of each kind of folder, whatever the model."""

from dataclasses import dataclass, replace

from .card_usages_uniemo import (
    CLASSIFIER,
    COMPEL,
    DIFFUSERS,
    DIFFUSERS_ON_BASE,
    EMBEDDING,
    EMBEDDING_XL,
    EMBEDDINGS,
    FAMILY,
    FAMILY_ON_BASE,
    LORA,
    OFFLINE,
    OFFLINE_ON_BASE,
    PACKAGE,
    TRANSFORMERS,
    Usage,
)

PAPER = "[UniEmo](https://arxiv.org/abs/2507.23372)"


@dataclass(frozen=True)
class CardText:
    """The words of one kind of card.

    Attributes:
        title: what it is, in a few words.
        summary: a paragraph; `{base}`, `{data}`, `{emotions}` and `{paper}` stand for these things.
        usages: the code that loads and uses it.
        intended: what it is for.
        limits: what it is not good for.
        risks: what harm it can do.
        library, task, relation: `library_name`, `pipeline_tag` and `base_model_relation` of the metadata.
        tags: the metadata's.
    """

    title: str
    summary: str
    usages: tuple[Usage, ...]
    intended: str
    limits: tuple[str, ...]
    risks: tuple[str, ...]
    library: str
    task: str
    relation: str
    tags: tuple[str, ...]


CULTURE = (
    "Emotion labels are one culture's reading of pictures; other people, and other cultures, see the same picture "
    "differently."
)
FACES = (
    "It is not for judging people: what a picture evokes in those who look says nothing of what a person in it feels, "
    "intends or is. Do not use it on people's faces for that."
)
DARK_EMOTIONS = (
    "It makes pictures that are meant to evoke fear, disgust and anger as well as joy. They can distress people, and "
    "can be used to manipulate them. Show them to nobody who does not expect them, and say that they were generated."
)
MEASURED_ALIKE = "Figures hold for pictures like those that it was measured on."

UNDERSTANDING = CardText(
    title="which emotion a picture evokes",
    summary=(
        "An image classifier for the eight emotions {emotions}, after the understanding stage of {paper}: the vision "
        "tower of {base} with learnt scene and object queries beside the visual tokens, fine-tuned on {data}. Beside "
        "the emotion it gives a feature of the scene and one of the objects that evoke it."
    ),
    usages=(CLASSIFIER,),
    intended="Research on what pictures evoke, and sorting pictures by it.",
    limits=("It always names one of the eight emotions, whatever the picture.", MEASURED_ALIKE),
    risks=(CULTURE, FACES),
    library="transformers",
    task="image-classification",
    relation="finetune",
    tags=("uniemo", "emotion", "image-classification"),
)

UNDERSTANDING_BY_LORA = replace(
    UNDERSTANDING,
    summary=UNDERSTANDING.summary
    + " The tower was trained by LoRA, which is merged here; `lora/` has it as a PEFT adapter for the stock CLIP.",
    tags=(*UNDERSTANDING.tags, "lora"),
)

_WITH_PIPE = (TRANSFORMERS, COMPEL, LORA, EMBEDDINGS)

ADAPTER = CardText(
    title="emotions for Stable Diffusion, as an adapter",
    summary=(
        "An adapter for {base}: it draws pictures that evoke a chosen emotion ({emotions}), and reads which one a "
        "picture evokes, after {paper}. It was trained on {data}; the base itself is not in here."
    ),
    usages=(PACKAGE, *_WITH_PIPE, FAMILY_ON_BASE),
    intended=(
        "Pictures with a mood, for art, design and stories, and research on emotions in pictures: drawing them, and "
        "reading them."
    ),
    limits=(
        "It can draw no more than its base can, and another base must have the same text encoder.",
        "What the base's licence and model card ask holds for its pictures too.",
        MEASURED_ALIKE,
    ),
    risks=(DARK_EMOTIONS, CULTURE, FACES),
    library="diffusers",
    task="text-to-image",
    relation="adapter",
    tags=("uniemo", "emotion", "stable-diffusion", "stable-diffusion-diffusers", "diffusers-training"),
)

ADAPTER_WITH_CODE = replace(
    ADAPTER,
    usages=(
        DIFFUSERS_ON_BASE,
        *_WITH_PIPE,
        FAMILY_ON_BASE,
        OFFLINE_ON_BASE,
    ),
)

PIPELINE = replace(
    ADAPTER,
    title="Stable Diffusion with emotions",
    summary=(
        "{base} and an adapter for it, in one repository: it draws pictures that evoke a chosen emotion ({emotions}), "
        "and reads which one a picture evokes, after {paper}. The adapter was trained on {data}."
    ),
    usages=(DIFFUSERS, *_WITH_PIPE, FAMILY, OFFLINE),
    limits=("It can draw no more than its base can.", *ADAPTER.limits[1:]),
)

TEXTUAL_INVERSION = CardText(
    title="emotions as textual inversions",
    summary=(
        "An embedding for {base} for each of the emotions {emotions}, for every program that reads such embeddings. "
        "They are taken from an adapter that was trained on {data}, after {paper}."
    ),
    usages=(EMBEDDING, COMPEL),
    intended="Pictures with a mood, for art, design and stories.",
    limits=(
        "`<awe>` is the emotion's mean: it evokes awe, but draws much the same picture each time.",
        *ADAPTER.limits,
    ),
    risks=(DARK_EMOTIONS, CULTURE),
    library="diffusers",
    task="text-to-image",
    relation="adapter",
    tags=("uniemo", "emotion", "stable-diffusion", "stable-diffusion-diffusers", "textual_inversion"),
)


def with_base_lora(text: CardText) -> CardText:
    """For an adapter that LoRA weights of its base were trained with."""
    loading = 'pipe.load_uniemo("{place}")\n'
    first = text.usages[0]
    code = first.code.replace(loading, loading + 'pipe.load_lora_weights("{place}")\n')
    return replace(
        text,
        summary=text.summary + " LoRA weights of the base were trained with it and are in here too.",
        usages=(replace(first, code=code), *text.usages[1:]),
        tags=(*text.tags, "lora"),
    )


def without_understanding(text: CardText) -> CardText:
    """For a pipeline or an adapter that has no understanding model, here or anywhere else."""
    return replace(
        text,
        summary=text.summary.replace(", and reads which one a picture evokes", ""),
        usages=tuple(usage for usage in text.usages if usage is not TRANSFORMERS),
        intended=TEXTUAL_INVERSION.intended,
    )


def with_several_vectors(text: CardText, count: int) -> CardText:
    """For textual inversions of more than the mean."""
    more = (
        f"Each file has {count} vectors: `<awe>` is all of them in a row, and `<awe>_1` to `<awe>_{count - 1}` are "
        "single ones that span the emotion's variety, for one prompt each."
    )
    return replace(text, summary=f"{text.summary} {more}", limits=text.limits[1:])


def for_xl(text: CardText) -> CardText:
    """For adapters and textual inversions of Stable Diffusion XL."""
    if "textual_inversion" in text.tags:
        usages: tuple[Usage, ...] = (EMBEDDING_XL,)
    else:
        kept = [usage for usage in text.usages if usage.title in ("diffusers", "transformers", "LoRA")]
        usages = tuple(replace(usage, code=usage.code.replace("UniEmoPipeline", "UniEmoXLPipeline")) for usage in kept)
    tags = tuple("stable-diffusion-xl" if tag == "stable-diffusion" else tag for tag in text.tags)
    return replace(text, usages=usages, tags=tags)
