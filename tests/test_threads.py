"""Pipelines that share one text encoder, used in threads; and what each of them means by a token."""

import copy
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import tiny
import torch

from tests.test_composition import latents, load, seeded, stock_pipeline
from uniemo_pipelines import UniEmoPipeline
from uniemo_pipelines.fusion_uniemo import UniEmoFusionModel


def other_fusion() -> UniEmoFusionModel:
    """An adapter whose emotions are other vectors."""
    fusion = tiny.fusion()
    fusion.mean.neg_()
    fusion.bank.neg_()
    return fusion


def sharing_pipelines(*fusions: UniEmoFusionModel) -> list[UniEmoPipeline]:
    """Pipelines on one tokenizer, text encoder, UNet and VAE; schedulers count steps and cannot be shared."""
    stock = stock_pipeline()
    pipes = [UniEmoPipeline.from_pipe(stock, scheduler=copy.deepcopy(stock.scheduler)) for _ in fusions]
    for pipe, fusion in zip(pipes, fusions, strict=True):
        pipe.set_progress_bar_config(disable=True)
        load(pipe, fusion)
    return pipes


CALLS: dict[str, Callable[[UniEmoPipeline], torch.Tensor]] = {
    "sampled": lambda pipe: pipe.encode_emotion("a <awe> x", generator=seeded())[0],
    "an argument": lambda pipe: pipe.encode_emotion("a x", emotion={"awe": 1, "fear": 2}, generator=seeded())[0],
    "a token in the negative prompt": lambda pipe: pipe.encode_emotion("<awe>", negative_prompt="a <fear> x")[1],
    "a bare encode_prompt": lambda pipe: pipe.encode_prompt("a <awe> x", "cpu", 1, False)[0],
    "the whole call": lambda pipe: latents(pipe, "a <awe> x", negative_emotion="fear"),
}


@pytest.fixture
def slow_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast tokenizer is first set to a padding and then used, and the stock `encode_prompt` sets two in turn: a
    pause between, another for each thread, makes sure that threads meet there, as they otherwise do now and then."""
    tokenizer = type(tiny.tokenizer())
    set_padding = tokenizer.set_truncation_and_padding
    pauses: dict[int, float] = {}

    def set_padding_and_wait(*args: Any, **kwargs: Any) -> None:
        set_padding(*args, **kwargs)
        time.sleep(pauses.setdefault(threading.get_ident(), 0.001 + 0.01 * len(pauses)))

    monkeypatch.setattr(tokenizer, "set_truncation_and_padding", set_padding_and_wait)


@pytest.mark.usefixtures("slow_padding")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("second", [tiny.fusion, other_fusion], ids=["same adapter", "another adapter"])
def test_pipelines_on_one_text_encoder_keep_to_themselves_in_threads(
    call: str, second: Callable[[], UniEmoFusionModel]
) -> None:
    """Two threads, each with its own pipeline and all at once, get what each pipeline gets without the other."""
    draw, fusions = CALLS[call], (tiny.fusion(), second())
    expected = [draw(sharing_pipelines(fusion)[0]) for fusion in fusions]
    found = in_threads(draw, sharing_pipelines(*fusions), times=5)
    for own, alone in zip(found, expected, strict=True):
        for latent in own:
            torch.testing.assert_close(latent, alone)


def in_threads(draw: Callable[[UniEmoPipeline], torch.Tensor], pipes: list[UniEmoPipeline], times: int) -> list[Any]:
    """What each pipeline draws in a thread of its own, all of them starting at once."""
    start = threading.Barrier(len(pipes))

    def work(pipe: UniEmoPipeline) -> list[torch.Tensor]:
        start.wait()
        with torch.no_grad():
            return [draw(pipe) for _ in range(times)]

    with ThreadPoolExecutor(len(pipes)) as pool:
        return list(pool.map(work, pipes))


@pytest.mark.parametrize("call", ["a token in the negative prompt", "a bare encode_prompt"])
def test_an_adapter_loaded_on_another_pipeline_leaves_this_ones_means(call: str) -> None:
    expected = CALLS[call](sharing_pipelines(tiny.fusion())[0])
    first, _ = sharing_pipelines(tiny.fusion(), other_fusion())
    torch.testing.assert_close(CALLS[call](first), expected)
