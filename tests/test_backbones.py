"""The mini backbones' parts: tokenizer, architectures, the loop that trains them, and what the gates rely on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from training.backbones import clip, diffusion, loop
from training.backbones.clip import clip_caption, new_clip, train_clip, zero_shot
from training.backbones.compounds import NAMES, Compounds
from training.backbones.corpus import (
    Corpus,
    label_row,
    make_corpus,
    objects_by_patch,
    render_chunk,
    render_example,
    to_pictures,
    to_tensor,
)
from training.backbones.diffusion import (
    Cycle,
    draw_captions,
    draw_timesteps,
    encode_latents,
    new_scheduler,
    new_text_encoder,
    new_unet,
    train_diffusion,
    velocity_loss,
)
from training.backbones.gates import ATTRIBUTE_SIZES, fresh_attributes, learn_one_token, one_hot, one_token_gate
from training.backbones.loop import make_optimizers, train
from training.backbones.muon import orthogonal
from training.backbones.reader import (
    ARCHITECTURES,
    HEADS,
    Reader,
    draw_batch,
    fresh_batches,
    load_reader,
    read,
    reading_loss,
)
from training.backbones.tokenizer import MAX_LENGTH, lexicon, make_tokenizer
from training.backbones.vae import new_vae, reconstruct, reconstruction_loss
from training.make_mini import CARRIED_JUDGES, JUDGES
from training.miniemoset.attributes import PALETTES, Attributes, bayes_accuracy, sample_attributes
from training.miniemoset.captions import full_caption
from training.miniemoset.streams import Stream
from uniemo_pipelines.prompting_uniemo import SLOT_TOKEN


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24, seed=7, workers=1)


def test_corpus_is_the_stream_whatever_draws_it(corpus: Corpus, tmp_path: Path) -> None:
    image, attributes = render_example(7, 11)
    assert np.array_equal(corpus.images[11], image)
    assert corpus.attributes(11) == attributes and corpus.labels[11].tolist() == label_row(attributes)
    images, labels = render_chunk(7, 10, 13)
    assert np.array_equal(corpus.images[10:13], images) and np.array_equal(corpus.labels[10:13], labels)


def test_patches_tell_where_each_object_is(corpus: Corpus) -> None:
    for index, (_, first, second, *_) in enumerate(corpus.labels):
        shown = set(corpus.patches[index].ravel()) - {-1}
        assert first in shown and shown <= {first, second}
    pair, alone = (np.flatnonzero(chosen) for chosen in (corpus.labels[:, 2] >= 0, corpus.labels[:, 2] < 0))
    assert any(corpus.labels[i, 2] in corpus.patches[i] for i in pair)
    rows, columns = np.nonzero((corpus.patches[alone] >= 0).any(axis=0))
    assert rows.min() >= 2 and 1 <= columns.min() and columns.max() <= 6  # low in the middle, where it is drawn


def test_an_object_that_hardly_touches_a_patch_is_not_its_object() -> None:
    attributes = Attributes("beach", ("Kite", "Car"), "candy", "even")
    places = np.zeros((128, 128), dtype=np.uint8)
    places[:16, :5], places[16:32, 16:32], places[16:32, 20:24] = 1, 1, 2
    found = objects_by_patch(attributes, places)
    kite, car = label_row(attributes)[1:3]
    assert found[0, 0] == kite and found[1, 1] == kite and car not in found
    places[:16, :5] = np.where(np.arange(16)[:, None] < 12, 1, 0)  # 60 of 256 pixels
    assert objects_by_patch(attributes, places)[0, 0] == -1


def test_every_word_of_the_world_is_one_token_and_any_text_survives() -> None:
    tokenizer = make_tokenizer()
    assert all(len(tokenizer(word).input_ids) == 3 for word in lexicon())
    assert tokenizer.decode(tokenizer("Naïve xyz 42!").input_ids, skip_special_tokens=True) == "naïve xyz 4 2 !"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)


def test_the_longest_caption_fits_the_text_encoder() -> None:
    longest = full_caption(Attributes("amusement_park", ("Waste container", "Coffee cup"), "midnight", "bright"))
    assert len(make_tokenizer()(longest).input_ids) <= MAX_LENGTH


def test_clip_captions_leave_palettes_untold_and_half_of_the_objects() -> None:
    rng = np.random.default_rng(0)
    examples = [sample_attributes(rng) for _ in range(400)]
    captions = [clip_caption(one, rng) for one in examples]
    told = np.mean([one.objects[0].lower() in text for one, text in zip(examples, captions, strict=True)])
    assert told == pytest.approx(0.5, abs=0.1)
    assert not any(palette in text.split() for palette in PALETTES for text in captions)


def test_a_clip_goes_on_until_it_knows_enough(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, answers = [], iter([False, False, True])
    monkeypatch.setattr(clip, "train", lambda modules, loss_at, steps, **options: trained.append((steps, loss_at)))
    monkeypatch.setattr(clip, "REFINING_STEPS", 3)
    train_clip(corpus, tmp_path, steps=8, batch_size=2, enough=lambda model: next(answers))
    assert [steps for steps, _ in trained] == [8, 3, 3] and next(answers, None) is None
    first, second, third = (loss_at for _, loss_at in trained)
    assert second(0) == first(8) != first(0) and third(0) == first(11), "it goes on with batches of its own"
    trained.clear()
    train_clip(corpus, tmp_path, steps=8, batch_size=2, enough=lambda model: False)
    assert [steps for steps, _ in trained] == [8, 3, 3, 3], "not for ever"
    assert (tmp_path / "model.safetensors").is_file()


def test_architectures_fit_together() -> None:
    tokenizer = make_tokenizer()
    images = render_chunk(7, 0, 2)[0]
    assert to_pictures(reconstruct(new_vae().eval(), to_tensor(images))).shape == images.shape
    assert np.array_equal(to_pictures(to_tensor(images)), images)
    text = new_text_encoder(tokenizer)(**tokenizer(["a beach"] * 2, padding="max_length", return_tensors="pt"))
    latents = torch.randn(2, 4, 16, 16)
    assert new_unet()(latents, torch.tensor([5, 900]), text.last_hidden_state).sample.shape == latents.shape
    scores = zero_shot(new_clip(len(tokenizer), tokenizer.eos_token_id), *render_chunk(7, 0, 8))
    assert set(scores) == {"scene", "object"} and all(0 <= score <= 1 for score in scores.values())


def test_latents_are_kept_and_the_second_time_read(corpus: Corpus, tmp_path: Path) -> None:
    vae = new_vae().eval().to(memory_format=torch.channels_last)
    latents = encode_latents(vae, corpus, 6, tmp_path / "latents.safetensors", batch_size=4)
    assert latents.shape == (6, 4, 16, 16) and latents.dtype == torch.float16
    assert torch.equal(encode_latents(vae, corpus, 6, tmp_path / "latents.safetensors"), latents)


def test_timesteps_have_the_density_of_their_power() -> None:
    rng = np.random.default_rng(0)
    for power in (0, 1):
        drawn = torch.cat([draw_timesteps(32, power, rng) for _ in range(100)])
        assert 0 <= drawn.min() and 990 <= drawn.max() <= 999
        below = [(drawn < edge).float().mean().item() for edge in (250, 500, 750)]
        assert below == pytest.approx([0.25 ** (1 + power), 0.5 ** (1 + power), 0.75 ** (1 + power)], abs=0.02)


def test_compounds_hold_parts_of_the_picture_and_nothing_else(corpus: Corpus) -> None:
    tokenizer = make_tokenizer()
    compounds = Compounds(tokenizer, new_text_encoder(tokenizer))
    captions, weights = draw_captions(corpus, np.arange(24), 0.9, np.random.default_rng(0))
    compound = [SLOT_TOKEN in caption for caption in captions]
    assert 12 < sum(compound) < 24 and [row.any() for row in weights] == compound
    for row, attributes in zip(weights, map(corpus.attributes, range(24)), strict=True):
        parts = {attributes.scene, *attributes.objects, attributes.palette, attributes.brightness}
        assert {NAMES[i] for i in np.flatnonzero(row)} <= parts
    rows = compounds.rows(torch.from_numpy(weights))
    rows.sum().backward()
    words = compounds.table.weight.grad.any(dim=1).nonzero().flatten().tolist()
    assert {tokenizer.decode([word]) for word in words} <= set(lexicon())
    street = torch.zeros(1, len(NAMES))
    street[0, NAMES.index("street")] = 2
    word = compounds.table.weight[tokenizer("street").input_ids[1]]
    torch.testing.assert_close(compounds.rows(street)[0], 2 * word)


def test_without_compounds_captions_are_words_as_before(corpus: Corpus) -> None:
    captions, weights = draw_captions(corpus, np.arange(24), 0, np.random.default_rng(0))
    assert not weights.any() and not any(SLOT_TOKEN in caption for caption in captions)


@pytest.mark.slow
def test_diffusion_goes_on_after_a_kill_between_its_cycles(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1)
    seen = []

    def watched(unet, scheduler, clean, timesteps, text, rng):
        seen.append((timesteps.tolist(), unet.conv_in.weight.detach().clone()))
        return velocity_loss(unet, scheduler, clean, timesteps, text, rng)

    def steps_of(folder: str, cycles: tuple[Cycle, ...]) -> list[tuple[list[int], torch.Tensor]]:
        seen.clear()
        train_diffusion(corpus, new_vae(), latents, tmp_path / folder, cycles=cycles, batch_size=2)
        return list(seen)

    monkeypatch.setattr(diffusion, "velocity_loss", watched)
    latents = torch.randn(24, 4, 16, 16)
    cycles = (Cycle(2, power=1, compounds=0), Cycle(2, power=0, compounds=0.5))
    whole = steps_of("whole", cycles)
    steps_of("killed", cycles[:1])
    resumed = steps_of("killed", cycles)
    assert [times for times, _ in resumed] == [times for times, _ in whole[2:]] and len(whole) == 4
    for (_, found), (_, expected) in zip(resumed, whole[2:], strict=True):
        # Adam makes a whole step of rounding noise where the gradient is nearly zero; a step of all weights is 5e-6
        assert (found - expected).abs().mean() < 2e-7
    assert StableDiffusionPipeline.from_pretrained(tmp_path / "killed", safety_checker=None).unet is not None


def test_the_scheduler_starts_from_pure_noise_and_lands_on_the_clean_latents() -> None:
    scheduler = new_scheduler()
    scheduler.set_timesteps(20)
    clean, x = torch.randn(2, 1, 4, 16, 16).unbind()
    for t in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[t]
        noise = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        x = scheduler.step(alpha.sqrt() * noise - (1 - alpha).sqrt() * clean, t, x).prev_sample
    assert scheduler.timesteps[0] == 999 and scheduler.alphas_cumprod[999] < 1e-6
    torch.testing.assert_close(x, clean, atol=1e-5, rtol=0)


def test_reconstruction_loss_feels_a_wrong_hue_more_than_a_wrong_light() -> None:
    grey = torch.zeros(1, 3, 8, 8)
    lighter = grey + 0.1
    redder = grey + torch.tensor([0.1, -0.1, 0.1]).view(1, 3, 1, 1)
    assert reconstruction_loss(grey, grey) == 0
    assert reconstruction_loss(redder, grey) > 1.5 * reconstruction_loss(lighter, grey)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_readers_read_every_head(architecture: str) -> None:
    reading = read(Reader(architecture), render_chunk(7, 0, 3)[0])
    assert reading.emotion.sum(-1).allclose(torch.ones(3))
    assert reading.object_logits.shape == (3, HEADS["objects"]) and reading.object.shape == (3,)


@pytest.mark.parametrize("name", JUDGES)
def test_the_carried_judges_name_emotions_and_are_small(name: str) -> None:
    path = CARRIED_JUDGES / f"{name}.safetensors"
    images, _, emotions = draw_batch(Stream.GATES, 7, 200, emotional=True)
    hits = (read(load_reader(path), images).emotion.argmax(-1).numpy() == emotions).mean()
    assert path.stat().st_size < 1_000_000
    assert hits > bayes_accuracy() - 0.1, "their gate, .04 below the optimum, is for ten times as many pictures"


def test_reading_loss_leaves_the_emotion_out_where_none_is_known() -> None:
    [(images, labels, emotions)] = fresh_batches(3, range(1), 8, emotional=True)
    assert emotions.tolist() == list(range(8)) and images.shape == (8, 128, 128, 3)
    logits = {name: torch.zeros(8, size) for name, size in HEADS.items()}
    with_emotion, without = reading_loss(logits, labels, emotions), reading_loss(logits, labels, None)
    assert (with_emotion - without).item() == pytest.approx(np.log(8), abs=1e-5)


def test_one_hot_rows_name_each_attribute_once() -> None:
    rows = one_hot(render_chunk(7, 0, 6)[1])
    assert rows.shape == (6, sum(ATTRIBUTE_SIZES)) and rows.sum(dim=1).eq(4).all()


def test_a_token_learnt_from_attributes_is_drawn_through_the_frozen_model(corpus: Corpus) -> None:
    tokenizer = make_tokenizer()
    parts = {"vae": new_vae(), "unet": new_unet(), "text_encoder": new_text_encoder(tokenizer)}
    rest = {"scheduler": new_scheduler(), "safety_checker": None, "feature_extractor": None}
    pipeline = StableDiffusionPipeline(**parts, tokenizer=tokenizer, **rest, requires_safety_checker=False)
    frozen = pipeline.text_encoder.get_input_embeddings().weight.clone()
    embed = learn_one_token(pipeline, corpus, torch.randn(24, 4, 16, 16), steps=2, batch_size=2)
    scores = one_token_gate(Reader(), pipeline, embed, fresh_attributes(2, alone=True))
    assert set(scores) == {"scene", "object", "palette", "brightness"}
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight, frozen)
    assert "<emotion>" not in tokenizer.get_vocab()


@pytest.mark.parametrize("muon", [None, 1e-2])
def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, muon: float | None
) -> None:
    monkeypatch.setattr("training.backbones.loop.CHECKPOINT_EVERY", 4)

    def run(checkpoint: Path, die_at: int | None = None) -> torch.Tensor:
        torch.manual_seed(0)
        layer = nn.Linear(3, 1)

        def loss_at(step: int) -> torch.Tensor:
            if step == die_at:
                raise KeyboardInterrupt
            return (
                layer(torch.from_numpy(np.random.default_rng(step).random((4, 3), dtype=np.float32))).square().mean()
            )

        options = {"learning_rate": 1e-2, "muon_learning_rate": muon, "checkpoint": checkpoint}
        train(nn.ModuleDict({"layer": layer}), loss_at, steps=10, name="t", **options)
        return layer.weight.detach().clone()

    whole = run(tmp_path / "whole.ckpt")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut.ckpt", die_at=6)
    assert torch.equal(run(tmp_path / "cut.ckpt"), whole)


def test_orthogonal_keeps_directions_and_evens_out_their_strengths() -> None:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(40, 12, generator=generator))
    strengths = torch.logspace(0, -2, 12)
    for matrix in (left @ strengths.diag() @ right.T, (left @ strengths.diag() @ right.T).T):
        found = orthogonal(matrix)
        values = torch.linalg.svdvals(found)
        assert values.max() < 1.25 and values.min() > 0.6
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert (u.T @ found @ v.T).diagonal().min() > 0.6  # the same singular vectors, none reversed
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_muon_takes_what_is_inside_the_unet_and_nothing_else() -> None:
    modules = nn.ModuleDict({"unet": new_unet(), "text_encoder": new_text_encoder(make_tokenizer())})
    names = {id(parameter): name for name, parameter in modules.named_parameters()}
    taken = {
        kind: {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
        for kind, optimizer in make_optimizers(modules, 1e-3, 5e-3, 1e-2).items()
    }
    assert len(taken["muon"]) + len(taken["adamw"]) == len(names)
    assert "unet.mid_block.resnets.0.conv1.weight" in taken["muon"]
    assert "unet.time_embedding.linear_1.weight" in taken["muon"]
    for name in ("unet.conv_in.weight", "unet.conv_out.weight", "unet.conv_norm_out.weight"):
        assert name in taken["adamw"]
    assert all("embeddings" not in name and "bias" not in name for name in taken["muon"])
