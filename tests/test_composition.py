"""What Stable Diffusion users already use, each together with UniEmo, on tiny random models.

A thing composes if three claims hold (one test each):

1. Where no emotion is asked for, its image is the stock pipeline's, to the bit.
2. A token composes as a word does: given the embedding of "cat" for its condition, `<awe>` makes the stock pipeline's
   image of "cat", whatever else is loaded.
3. Both effects are there. With f(x, e) the latents with (x = 1) or without (x = 0) the thing, and with the token
   (e = 1) or the word "cat" (e = 0) in the same place, the thing's effect f(1, e) - f(0, e) is the same for both e,
   and the emotion's effect f(x, 1) - f(x, 0) the same for both x, up to the case's tolerance. What should change
   nothing has no effect of its own, and leaves the emotion's.

To add a thing, write a function that puts it on a pipeline and returns how to draw a word with it, and name it in
`CASES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import tiny
import torch
from compel import CompelForSD
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DiffusionPipeline,
    LCMScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
)
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.fusion_uniemo import UniEmoFusionModel

Draw = Callable[[str], torch.Tensor]
"""From a word or token to the latents of "a <word> x"."""

STEPS = 2
LORA = 0.015
STEP_TO_EMOTION = 0.2


# ------------------------------------------------------------------------------------------------------ the pipelines


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stock_pipeline() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline(**tiny.stable_diffusion())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load(pipe: UniEmoPipeline, fusion: UniEmoFusionModel | None = None) -> None:
    fusion = fusion or tiny.fusion()
    pipe.load_uniemo(fusion.state_dict(), config=dict(fusion.config))


def with_adapter(stock: StableDiffusionPipeline) -> UniEmoPipeline:
    pipe = UniEmoPipeline.from_pipe(stock)
    pipe.set_progress_bar_config(disable=True)
    load(pipe)
    return pipe


def latents(pipe: DiffusionPipeline, prompt: str | list[str] | None, **kwargs: Any) -> torch.Tensor:
    """The latents, or with another `output_type` the images; an emotion stands for its mean, to be the same always."""
    if isinstance(pipe, UniEmoPipeline):
        kwargs["emotion_variation"] = 0.0
    torch.manual_seed(0)  # DPMSolverSDEScheduler's noise is not the generator's
    options = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "output_type": "latent", "generator": seeded()}
    return pipe(prompt, return_dict=False, **options | kwargs)[0]


def drawer(pipe: DiffusionPipeline, prompt: str = "a {} x", **kwargs: Any) -> Draw:
    return lambda word: latents(pipe, prompt.format(word), **kwargs)


# ---------------------------------------------------------------------------------------------------------- the things


def plain(pipe: StableDiffusionPipeline) -> Draw:
    return drawer(pipe)


def lora_weights(model: nn.Module, prefix: str, strength: float) -> dict[str, torch.Tensor]:
    """A random LoRA of rank 2 on every attention projection, as it lies in a file."""
    generator, weights = seeded(), {}
    for name, module in model.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "q_proj", "k_proj", "v_proj")):
            rows, columns = module.weight.shape
            weights[f"{prefix}.{name}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
            weights[f"{prefix}.{name}.lora_B.weight"] = strength * torch.randn(rows, 2, generator=generator)
    return weights


def lora(pipe: StableDiffusionPipeline, unet: float = 0.0, text: float = 0.0, **kwargs: Any) -> Draw:
    weights = lora_weights(pipe.unet, "unet", unet) if unet else {}
    weights |= lora_weights(pipe.text_encoder, "text_encoder", text) if text else {}
    pipe.load_lora_weights(weights)
    return drawer(pipe, **kwargs)


def fused_lora(pipe: StableDiffusionPipeline) -> Draw:
    draw = lora(pipe, unet=LORA, text=LORA)
    pipe.fuse_lora()
    return draw


def unfused_lora(pipe: StableDiffusionPipeline) -> Draw:
    draw = fused_lora(pipe)
    pipe.unfuse_lora()
    return draw


def unloaded_lora(pipe: StableDiffusionPipeline) -> Draw:
    draw = lora(pipe, unet=LORA, text=LORA)
    pipe.unload_lora_weights()
    return draw


def few_steps(pipe: StableDiffusionPipeline) -> Draw:
    """As an LCM-LoRA is used: its scheduler, its weights, two steps, hardly any guidance."""
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    return lora(pipe, unet=LORA, num_inference_steps=2, guidance_scale=1.5)


def textual_inversion(pipe: StableDiffusionPipeline) -> Draw:
    pipe.load_textual_inversion({"<toy>": 0.1 * torch.randn(tiny.TEXT_WIDTH, generator=seeded())})
    return drawer(pipe, "a {} <toy>")


def unloaded_textual_inversion(pipe: StableDiffusionPipeline) -> Draw:
    textual_inversion(pipe)
    pipe.unload_textual_inversion()
    return drawer(pipe)


def ip_adapter(pipe: StableDiffusionPipeline) -> Draw:
    generator, width = seeded(), tiny.TEXT_WIDTH
    layers = [name for name in pipe.unet.attn_processors if "attn2" in name]
    weights = {}
    for index, name in enumerate(layers):
        rows = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for projection in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * index + 1}.{projection}.weight"] = torch.randn(rows, width, generator=generator) / 20
    projection = {
        "proj.weight": torch.randn(4 * width, 8, generator=generator),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    state = {"image_proj": projection, "ip_adapter": weights}
    pipe.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    return drawer(pipe, ip_adapter_image_embeds=[torch.randn(2, 1, 8, generator=generator)])


def clip_skip(pipe: StableDiffusionPipeline) -> Draw:
    if not isinstance(pipe, UniEmoPipeline):  # the stock pipeline looks for what this transformers no longer has
        vars(pipe.text_encoder)["text_model"] = pipe.text_encoder
    return drawer(pipe, clip_skip=1)


def embedded(pipe: StableDiffusionPipeline, word: str) -> dict[str, torch.Tensor]:
    """Prompt embeddings, from ours by `encode_emotion`, as every stock pipeline takes them."""
    prompt = f"a {word} x"
    if isinstance(pipe, UniEmoPipeline):
        embeds, negative = pipe.encode_emotion(prompt, emotion_variation=0.0)
    else:
        embeds, negative = pipe.encode_prompt(prompt, "cpu", 1, True)
    return {"prompt_embeds": embeds, "negative_prompt_embeds": negative}


def other_pipeline(cls: type[DiffusionPipeline], pipe: StableDiffusionPipeline, **parts: Any) -> DiffusionPipeline:
    names, _ = cls._get_signature_keys(cls)
    shared = {name: part for name, part in pipe.components.items() if name in names}
    made = cls(**shared, **parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def controlnet(pipe: StableDiffusionPipeline) -> Draw:
    torch.manual_seed(0)
    control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 4)).eval()
    for block in (*control.controlnet_down_blocks, control.controlnet_mid_block):
        nn.init.normal_(block.weight, std=0.02)  # as made they are zero, without any effect
    other = other_pipeline(StableDiffusionControlNetPipeline, pipe, controlnet=control)
    image = torch.rand(1, 3, 32, 32, generator=seeded())
    return lambda word: latents(other, None, image=image, **embedded(pipe, word))


def t2i_adapter(pipe: StableDiffusionPipeline) -> Draw:
    torch.manual_seed(0)
    adapter = T2IAdapter(in_channels=3, channels=[4, 8], num_res_blocks=1, downscale_factor=4).eval()
    adapter.adapter.body[1].downsample = None  # both levels meet the tiny UNet at 8 x 8
    other = other_pipeline(StableDiffusionAdapterPipeline, pipe, adapter=adapter)
    image = torch.rand(1, 3, 32, 32, generator=seeded())
    options = {"image": image, "adapter_conditioning_scale": 0.1, "height": 32, "width": 32}
    return lambda word: latents(other, None, **options, **embedded(pipe, word))


def prompt_embeds(pipe: StableDiffusionPipeline) -> Draw:
    return lambda word: latents(pipe, None, **embedded(pipe, word))


def compel(pipe: StableDiffusionPipeline, prompt: str) -> Draw:
    encode = CompelForSD(pipe)

    def draw(word: str) -> torch.Tensor:
        found = encode(prompt.format(word), negative_prompt="")
        return latents(pipe, None, prompt_embeds=found.embeds, negative_prompt_embeds=found.negative_embeds)

    return draw


def scheduler(pipe: StableDiffusionPipeline, cls: type) -> Draw:
    pipe.scheduler = cls.from_config(pipe.scheduler.config)
    return drawer(pipe, num_inference_steps=4)  # PNDM takes no fewer


def free_u(pipe: StableDiffusionPipeline) -> Draw:
    pipe.enable_freeu(s1=0.97, s2=0.9, b1=1.05, b2=1.1)
    return drawer(pipe)


class MergingProcessor:
    """Token merging (ToMe), as small as can be: self-attention over the means of neighbouring pairs of tokens."""

    def __init__(self) -> None:
        self.attend = AttnProcessor()

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        if encoder_hidden_states is not None:
            return self.attend(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        merged = hidden_states.unflatten(1, (-1, 2)).mean(2)
        return self.attend(attn, merged, None, *args, **kwargs).repeat_interleave(2, dim=1)


def token_merging(pipe: StableDiffusionPipeline) -> Draw:
    pipe.unet.set_attn_processor(MergingProcessor())
    return drawer(pipe)


def attention_slicing(pipe: StableDiffusionPipeline) -> Draw:
    pipe.enable_attention_slicing(1)
    return drawer(pipe)


def vae_slicing(pipe: StableDiffusionPipeline) -> Draw:
    pipe.vae.enable_slicing()
    return several_images(pipe, output_type="pt")


def vae_tiling(pipe: StableDiffusionPipeline) -> Draw:
    """Tiles of 16 pixels for an image of 32."""
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 16, 8
    return drawer(pipe, output_type="pt")


def model_offload(pipe: StableDiffusionPipeline) -> Draw:
    pipe.enable_model_cpu_offload(device="cpu")
    return drawer(pipe)


def sequential_offload(pipe: StableDiffusionPipeline) -> Draw:
    pipe.enable_sequential_cpu_offload()
    return lambda word: latents(pipe, f"a {word} x").cpu()


def group_offload(pipe: StableDiffusionPipeline) -> Draw:
    pipe.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    return drawer(pipe)


def layerwise_casting(pipe: StableDiffusionPipeline) -> Draw:
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return drawer(pipe)


def int8_weights(pipe: StableDiffusionPipeline) -> Draw:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    for model in (pipe.unet, pipe.text_encoder):
        quantize_(model, Int8WeightOnlyConfig())
    return drawer(pipe)


def compiled(pipe: StableDiffusionPipeline) -> Draw:
    torch.compiler.reset()  # another pipeline's graphs would fit this one, its hooks left out: see the last test
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    pipe.text_encoder = torch.compile(pipe.text_encoder, backend="eager")
    return drawer(pipe)


def compiled_in_place(pipe: StableDiffusionPipeline) -> Draw:
    torch.compiler.reset()
    pipe.text_encoder.compile(backend="aot_eager")
    return drawer(pipe)


def cast(pipe: StableDiffusionPipeline, dtype: torch.dtype) -> Draw:
    pipe.to(dtype)
    return lambda word: latents(pipe, f"a {word} x").float()


def callback(pipe: StableDiffusionPipeline) -> Draw:
    def fade(_: Any, step: int, __: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"latents": tensors["latents"] * (0.9 if step == 0 else 1.0)}

    return drawer(pipe, callback_on_step_end=fade)


def interrupt(pipe: StableDiffusionPipeline) -> Draw:
    def stop(pipe: Any, step: int, _: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pipe._interrupt = step == 0
        return tensors

    return drawer(pipe, callback_on_step_end=stop, num_inference_steps=4)


def several_images(pipe: StableDiffusionPipeline, **kwargs: Any) -> Draw:
    """The first of two, which is to be what the same generator gives alone."""
    return lambda word: latents(pipe, f"a {word} x", num_images_per_prompt=2, **kwargs)[:1]


def call(pipe: StableDiffusionPipeline, **kwargs: Any) -> Draw:
    """An argument of the call."""
    return drawer(pipe, **kwargs)


LONG = "a very long prompt of many words " * 8


# ----------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Case:
    """A thing to compose with.

    Args:
        apply: puts it on a pipeline, stock or ours, and returns how to draw a word with it.
        thing: the least cosine between its effect with the token and with the word; None for what shall have none.
        emotion: the least cosine between the emotion's effect with it and without; None for what sets the denoising
            on another course or scale, where the two effects have no common direction or size.
        ratio: the furthest, as a factor, that norms of effects so compared may be apart.
        close: how far latents may be apart that rounding alone sets apart.
        token: the condition of the token in the comparison. The response to a small step from the word towards the
            emotion is linear, which is what makes effects comparable; a coarse type sees larger steps only.
        beside: the case without it.
        late: whether to try as well what happens if the adapter is loaded after it.
        marks: pytest's marks.
    """

    apply: Callable[[StableDiffusionPipeline], Draw]
    thing: float | None = 0.85
    emotion: float | None = 0.85
    ratio: float = 1.4
    close: float = 1e-4
    token: str = "<awe> nearly cat"
    beside: str = "nothing"
    late: bool = False
    marks: tuple[pytest.MarkDecorator, ...] = ()


def unchanged(apply: Callable[[StableDiffusionPipeline], Draw], **kwargs: Any) -> Case:
    return Case(apply, thing=None, **kwargs)


def another_course(apply: Callable[[StableDiffusionPipeline], Draw], **kwargs: Any) -> Case:
    return Case(apply, emotion=None, **kwargs)


# accelerate refuses to offload layer by layer where there is nothing but the CPU to load them onto.
ACCELERATOR = pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
SCHEDULERS = {cls.__name__: cls for cls in sorted(DDIMScheduler().compatibles, key=lambda cls: cls.__name__)}

CASES = {
    "nothing": unchanged(plain, late=True),
    "LoRA on the UNet": Case(partial(lora, unet=LORA)),
    "LoRA on the text encoder": Case(partial(lora, text=LORA)),
    "LoRA on both": Case(partial(lora, unet=LORA, text=LORA), late=True),
    "LoRA at a scale": Case(partial(lora, unet=LORA, text=LORA, cross_attention_kwargs={"scale": 0.5})),
    "LoRA fused": Case(fused_lora, late=True),
    "LoRA unfused": Case(unfused_lora, late=True),
    "LoRA unloaded": unchanged(unloaded_lora, late=True),
    "LCM-LoRA": another_course(few_steps),
    "textual inversion": Case(textual_inversion, late=True),
    "textual inversion unloaded": unchanged(unloaded_textual_inversion, late=True),
    "IP-Adapter": Case(ip_adapter, late=True),
    "ControlNet": Case(controlnet),
    "T2I-Adapter": Case(t2i_adapter),
    "prompt_embeds": unchanged(prompt_embeds),
    "compel": unchanged(partial(compel, prompt="a {} x"), late=True),
    "compel, a weight on the token": Case(partial(compel, prompt="a ({})1.3 x")),
    "compel, a weight beside the token": Case(partial(compel, prompt="a {} (x)1.3")),
    "compel, a blend": Case(partial(compel, prompt='("a {} x", "a dog").blend(0.8, 0.2)')),
    "compel, a long prompt": another_course(partial(compel, prompt=f"a {{}} x {LONG}")),
    "FreeU": Case(free_u),
    "token merging": Case(token_merging),
    "attention slicing": unchanged(attention_slicing, close=1e-3),
    "an image": unchanged(partial(call, output_type="pt"), beside="an image"),
    "VAE slicing": unchanged(vae_slicing, beside="an image"),
    "VAE tiling": Case(vae_tiling, beside="an image"),
    "model offload": unchanged(model_offload, late=True),
    "sequential offload": unchanged(sequential_offload, close=1e-2, marks=(ACCELERATOR,)),
    "group offload": unchanged(group_offload, late=True),
    "float8 storage": Case(layerwise_casting),
    "int8 weights": Case(int8_weights, late=True),
    "compiled": unchanged(compiled),
    "text encoder compiled in place": unchanged(compiled_in_place, late=True),
    "bfloat16": unchanged(partial(cast, dtype=torch.bfloat16), token="<awe>", close=0.5, late=True),
    "float16": unchanged(partial(cast, dtype=torch.float16), token="<awe>", close=0.05, late=True),
    "callback": Case(callback),
    "interrupt": another_course(interrupt),
    "clip_skip": another_course(clip_skip),
    "several images": unchanged(several_images),
    "negative prompt": Case(partial(call, negative_prompt="dog")),
    "guidance off": another_course(partial(call, guidance_scale=1.0)),
    "guidance rescaled": Case(partial(call, guidance_rescale=0.7), ratio=2),
    "own latents": another_course(partial(call, latents=torch.randn(1, 4, 16, 16, generator=seeded(1)))),
    **{name: another_course(partial(scheduler, cls=cls)) for name, cls in SCHEDULERS.items()},
}
# What composes to the bit is tried with the adapter loaded first, and where that may matter with it loaded last.
ORDERS = {False: "UniEmo first", True: "UniEmo last"}
EACH_CASE = pytest.mark.parametrize("name", [pytest.param(name, marks=case.marks) for name, case in CASES.items()])
EACH_ORDER = pytest.mark.parametrize(
    ("name", "last"),
    [
        pytest.param(name, last, marks=case.marks, id=f"{name}-{order}")
        for name, case in CASES.items()
        for last, order in ORDERS.items()
        if case.late or not last
    ],
)


@cache
def drawn_without(name: str) -> dict[str, torch.Tensor]:
    """What the stock pipeline draws."""
    with torch.no_grad():
        draw = CASES[name].apply(stock_pipeline())
        return {"cat": draw("cat")}


@cache
def drawn_with(name: str, last: bool) -> dict[str, torch.Tensor]:
    """What ours draws: of the word, and of the token as the emotion, as the word, and as something between."""
    word = (
        tiny.text_encoder().get_input_embeddings().weight.detach()[tiny.tokenizer().convert_tokens_to_ids("cat</w>")]
    )
    pipe = UniEmoPipeline.from_pipe(stock_pipeline())
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        if not last:
            load(pipe)
        draw = CASES[name].apply(pipe)
        if last:
            load(pipe)
        drawn = {"cat": draw("cat"), "<awe>": draw("<awe>")}
        with pipe.emotion_conditions({"<awe>": word}):
            drawn["<awe> = cat"] = draw("<awe>")
        awe = pipe._pseudo_tokens[0].defaults["<awe>"].float()
        with pipe.emotion_conditions({"<awe>": torch.lerp(word, awe, STEP_TO_EMOTION)}):
            return drawn | {"<awe> nearly cat": draw("<awe>")}


def assert_same_effect(one: torch.Tensor, other: torch.Tensor, cosine: float, ratio: float) -> None:
    assert min(one.norm(), other.norm()) > 0.01, "an effect is missing"
    assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) >= cosine
    assert 1 / ratio <= one.norm() / other.norm() <= ratio


# --------------------------------------------------------------------------------------------------- the three claims


@EACH_ORDER
def test_without_an_emotion_it_gives_the_stock_image(name: str, last: bool) -> None:
    assert torch.equal(drawn_with(name, last)["cat"], drawn_without(name)["cat"])


@EACH_ORDER
def test_a_token_composes_as_a_word_does(name: str, last: bool) -> None:
    found = drawn_with(name, last)
    torch.testing.assert_close(found["<awe> = cat"], drawn_without(name)["cat"], atol=1e-4, rtol=0)
    assert (found["<awe>"] - found["cat"]).norm() > 0.1, "the emotion has an effect"


@EACH_CASE
def test_both_effects_are_there(name: str) -> None:
    case = CASES[name]
    without, found = drawn_with(case.beside, False), drawn_with(name, False)
    if case.thing is None:
        torch.testing.assert_close(found["cat"], without["cat"], atol=case.close, rtol=0)
    else:
        effects = (found[word] - without[word] for word in ("cat", case.token))
        assert_same_effect(*effects, case.thing, case.ratio)
    if case.emotion is not None:
        effects = (drawn[case.token] - drawn["cat"] for drawn in (without, found))
        assert_same_effect(*effects, case.emotion, case.ratio)


def test_a_text_encoder_compiled_and_used_before_loading_sees_the_emotion() -> None:
    torch.compiler.reset()
    stock, expected = stock_pipeline(), with_adapter(stock_pipeline())
    stock.text_encoder.compile(backend="eager")
    latents(stock, "a cat x")
    pipe = with_adapter(stock)
    torch.testing.assert_close(latents(pipe, "a <awe> x"), latents(expected, "a <awe> x"))
