"""The code that model cards show: each a few lines that run as they stand, one after another.

`{place}` and `{base_place}` stand for where the model and its base are. Where calls need other arguments than the
pipeline's defaults, `{options}` is the line that names them, and `{call}` what hands them to a call; `{variant}` names
the variant of the weights where there are no plain ones.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """One way to use a model.

    Attributes:
        title: with what, or for what.
        code: Python.
        note: what must be installed, and what else is to be known; Markdown.
        on_hub: whether it is of use only with a name on the Hub.
    """

    title: str
    code: str
    note: str = ""
    on_hub: bool = False


_REMOTE = (
    "`trust_remote_code` lets the code run that is in the repository, which needs diffusers, transformers and PyTorch "
    "and no package beside them."
)
_FAMILY = (
    "A repository's code can hold one pipeline class, so the others come with the package uniemo-pipelines: "
    "`UniEmoImg2ImgPipeline`, `UniEmoInpaintPipeline`, `UniEmoControlNetPipeline` and, for Stable Diffusion XL, "
    "`UniEmoXLPipeline`. Like `UniEmoPipeline` itself, they run no code of the repository, take `token=`, and work "
    "offline once all is downloaded; `from_pipe` goes from one to another."
)
_OFFLINE = (
    "Without the package, diffusers asks the Hub for the code even if all is in the cache. So where there is no "
    "connection (`HF_HUB_OFFLINE=1`) load the folder of an earlier download, as here. `token=` does not reach that "
    "request either: for a private repository set `HF_TOKEN`, or run `hf auth login`."
)

DIFFUSERS = Usage(
    "diffusers",
    """
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{place}"{variant}, trust_remote_code=True)
{options}image = pipe(emotion="awe"{call}).images[0]
image = pipe("a photo of a <awe> street"{call}).images[0]
""",
    _REMOTE,
)

DIFFUSERS_ON_BASE = Usage(
    "diffusers",
    """
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{base_place}", custom_pipeline="{place}", trust_remote_code=True)
pipe.load_uniemo("{place}")
{options}image = pipe("a photo of a <awe> street"{call}).images[0]
""",
    _REMOTE,
)

PACKAGE = Usage(
    "diffusers",
    """
from uniemo_pipelines import UniEmoPipeline

pipe = UniEmoPipeline.from_pretrained("{base_place}")
pipe.load_uniemo("{place}")
{options}image = pipe(emotion="awe"{call}).images[0]
image = pipe("a photo of a <awe> street"{call}).images[0]
""",
    "It needs the package uniemo-pipelines.",
)

TRANSFORMERS = Usage(
    "transformers",
    """
from transformers import pipeline

parts = {{"model": pipe.understanding_model, "image_processor": pipe.understanding_processor}}
print(pipeline("image-classification", **parts)("photo.jpg", top_k=8))
""",
    "What understands pictures is fetched when it is first used. `pipe.understand(image)` also tells the scenes and "
    "objects that evoke the emotion.",
)

COMPEL = Usage(
    "compel",
    """
from compel import CompelForSD

found = CompelForSD(pipe)("a photo of a (<awe>)1.3 street", negative_prompt="blurry")
embeds = {{"prompt_embeds": found.embeds, "negative_prompt_embeds": found.negative_embeds}}
image = pipe(**embeds{call}).images[0]
""",
    "There, `<awe>` means the emotion's mean.",
)

LORA = Usage(
    "LoRA",
    """
pipe.load_lora_weights("path/to/lora")
image = pipe("a photo of a street", emotion="awe"{call}).images[0]
""",
    "Any LoRA of the base; this needs peft.",
)

EMBEDDINGS = Usage(
    "Textual inversion",
    """
pipe.load_textual_inversion("path/to/toy.safetensors", token="<toy>")
image = pipe("a <toy> on a <awe> street"{call}).images[0]
""",
    "The emotions themselves, for programs that know nothing of UniEmo, are written by "
    '`export_textual_inversions(pipe.fusion, "embeddings")` from `uniemo_pipelines.textual_inversion_uniemo`.',
)

FAMILY = Usage(
    "Image to image, inpainting, ControlNet, XL",
    """
from uniemo_pipelines import UniEmoImg2ImgPipeline

redraw = UniEmoImg2ImgPipeline.from_pretrained("{place}"{variant})
image = redraw("a photo of a street", image=image, strength=0.7, emotion="fear"{call}).images[0]
""",
    _FAMILY,
)

FAMILY_ON_BASE = Usage(
    FAMILY.title,
    """
from uniemo_pipelines import UniEmoImg2ImgPipeline

redraw = UniEmoImg2ImgPipeline.from_pretrained("{base_place}")
redraw.load_uniemo("{place}")
image = redraw("a photo of a street", image=image, strength=0.7, emotion="fear"{call}).images[0]
""",
    _FAMILY,
)

OFFLINE = Usage(
    "Offline, and private repositories",
    """
from huggingface_hub import snapshot_download

pipe = DiffusionPipeline.from_pretrained(snapshot_download("{place}"){variant}, trust_remote_code=True)
""",
    _OFFLINE,
    on_hub=True,
)

OFFLINE_ON_BASE = Usage(
    OFFLINE.title,
    """
from huggingface_hub import snapshot_download

folder = snapshot_download("{place}")
pipe = DiffusionPipeline.from_pretrained("{base_place}", custom_pipeline=folder, trust_remote_code=True)
pipe.load_uniemo(folder)
""",
    _OFFLINE,
    on_hub=True,
)

CLASSIFIER = Usage(
    "transformers",
    """
from transformers import pipeline

classify = pipeline("image-classification", model="{place}", trust_remote_code=True)
print(classify("photo.jpg", top_k=8))
""",
    "`trust_remote_code` lets the code run that is in the folder; it needs transformers and PyTorch alone.",
)

EMBEDDING = Usage(
    "diffusers",
    """
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("{base_place}")
pipe.load_textual_inversion("{place}", weight_name="awe.safetensors")
{options}image = pipe("a photo of a <awe> street"{call}).images[0]
""",
    "It needs diffusers and transformers alone.",
)

EMBEDDING_XL = Usage(
    "diffusers",
    """
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

pipe = StableDiffusionXLPipeline.from_pretrained("{base_place}")
awe = load_file("awe.safetensors")
pipe.load_textual_inversion(awe["clip_l"], token="<awe>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
pipe.load_textual_inversion(awe["clip_g"], token="<awe>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
""",
    "It needs diffusers and transformers alone, and the files in the current folder.",
)
