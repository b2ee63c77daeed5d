"""What a model card says of the rivals and of refits, which only training makes."""

from dataclasses import replace

from uniemo_pipelines.card_texts_uniemo import ADAPTER, FACES, TEXTUAL_INVERSION, UNDERSTANDING, CardText
from uniemo_pipelines.card_usages_uniemo import Usage

BASELINE = replace(
    UNDERSTANDING,
    title="a plain emotion classifier, to compare UniEmo with",
    summary=(
        "An image classifier for the eight emotions {emotions}: the vision tower of {base} and an emotion head, "
        "fine-tuned on {data}. It is the understanding stage of {paper} without the expert queries; what that gains "
        "over this one is the queries' doing."
    ),
    usages=(
        Usage(
            "transformers",
            """
from PIL import Image
from transformers import AutoImageProcessor

from training.train_baseline import PlainClassifier

model = PlainClassifier.from_pretrained("{place}")
processor = AutoImageProcessor.from_pretrained("{place}")
pixels = processor(images=Image.open("photo.jpg").convert("RGB"), return_tensors="pt").pixel_values
print(model(pixels).logits.softmax(-1))
""",
            "It runs in a checkout of the code of uniemo-pipelines; the Auto classes do not know it.",
        ),
    ),
    intended="To be compared with.",
)

_POOLED_CODE = BASELINE.usages[0].code.replace("train_baseline", "pooled_patches")
POOLED_PATCHES = replace(
    BASELINE,
    title="an emotion classifier without expert queries, to compare UniEmo with",
    summary=(
        "An image classifier for the eight emotions {emotions}: the vision tower of {base}, fine-tuned on {data}. It "
        "is the understanding stage of {paper} without the expert queries: its features of the scene and of the "
        "objects are means over the patch tokens at the same depths."
    ),
    usages=(
        Usage(
            "transformers",
            _POOLED_CODE.replace("PlainClassifier", "PooledPatchesModel"),
            "It runs in a checkout of the code of uniemo-pipelines.",
        ),
    ),
)

INVERSION = replace(
    TEXTUAL_INVERSION,
    title="a textual inversion for each emotion, to compare UniEmo with",
    summary=(
        "An embedding for {base} for each of the emotions {emotions}, learnt from pictures of {data} that evoke it. "
        "It is what {paper} does without understanding: one vector an emotion, the same for every picture."
    ),
    limits=("It draws an emotion in few ways.", *ADAPTER.limits),
)


def refitted(text: CardText) -> CardText:
    """For an adapter of which training has seen the fit of the emotion space alone."""
    summary = (
        "An adapter for {base}: it draws pictures that evoke a chosen emotion ({emotions}), and reads which one a "
        "picture evokes, after {paper}. The base itself is not in here. After its training the emotion space, from "
        "which it draws without a reference picture, was fitted again on {data}; results and arguments below are of "
        "that fit."
    )
    return replace(text, summary=text.summary.replace(ADAPTER.summary, summary))


def with_pooled_patches(text: CardText) -> CardText:
    """For an adapter whose features are those of the rival without expert queries."""
    drawing = replace(
        text.usages[0], note="It needs the package uniemo-pipelines. Pictures are not understood with it, only drawn."
    )
    summary = (
        "An adapter for {base}, to compare UniEmo with: it draws pictures that evoke a chosen emotion ({emotions}), "
        "after {paper}, but was trained on {data} with means over patch tokens in place of expert queries. The base "
        "itself is not in here."
    )
    return replace(
        text,
        summary=text.summary.replace(ADAPTER.summary, summary),
        usages=(drawing, *(usage for usage in text.usages[1:] if usage.title != "transformers")),
        intended="To be compared with.",
        risks=tuple(risk for risk in text.risks if risk != FACES),
    )
