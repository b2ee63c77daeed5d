"""Emotions in words, and the pseudo-tokens on a text encoder."""

import copy
import pickle
import threading

import pytest
import tiny
import torch

from uniemo_pipelines.fusion_uniemo import EMOTIONS
from uniemo_pipelines.prompting_uniemo import (
    ALL_TOKENS,
    PseudoTokens,
    emotion_weights,
    misspelt_tokens,
    tokens_in,
    with_slot,
    without_tokens,
)

WIDTH = tiny.TEXT_WIDTH


def encode(tokenizer, text_encoder, prompts):
    ids = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return text_encoder(ids)


@pytest.fixture
def base():
    return tiny.tokenizer(), tiny.text_encoder()


# ---------------------------------------------------------------------------------------------------------- words


def test_a_name_and_weights_become_a_distribution():
    assert emotion_weights(" Awe ").tolist() == [float(name == "awe") for name in EMOTIONS]
    fused = emotion_weights({"amusement": 3, "fear": 1})
    assert fused[EMOTIONS.index("amusement")] == 0.75 and fused[EMOTIONS.index("fear")] == 0.25
    assert fused.sum() == 1


@pytest.mark.parametrize(
    ("emotion", "error", "message"),
    [
        ("amusment", ValueError, "Did you mean 'amusement'"),
        ("joy", ValueError, "Expected one of amusement"),
        ({"awe": -1, "fear": 2}, ValueError, "weight of 'awe' of at least 0, found -1"),
        ({"awe": float("nan")}, ValueError, "finite"),
        ({"awe": 0}, ValueError, "positive sum"),
        ({}, ValueError, "positive sum"),
        ({"awe": "much"}, TypeError, "number"),
        (3, TypeError, "found int"),
    ],
)
def test_bad_emotions_are_refused_in_one_line(emotion, error, message):
    with pytest.raises(error, match=message) as caught:
        emotion_weights(emotion)
    assert "\n" not in str(caught.value)


def test_tokens_are_found_dropped_and_put_in_front():
    assert tokens_in("a <fear> and <Awe> in <emotion>, <awe>") == ["<emotion>", "<awe>", "<fear>"]
    assert without_tokens("a photo of a <awe> street") == "a photo of a street"
    assert without_tokens("two  spaces stay") == "two  spaces stay"
    assert with_slot("a street") == "<emotion> a street" and with_slot(" ") == "<emotion>"
    assert misspelt_tokens("<amusment> and <cat-toy> and <awe>") == {"<amusment>": "<amusement>"}


# -------------------------------------------------------------------------------------------------- pseudo-tokens


def test_prompts_without_tokens_are_encoded_to_the_bit(base):
    before = encode(*base, ["a cat", "a dog"])
    PseudoTokens(*base)
    after = encode(*base, ["a cat", "a dog"])
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


def test_each_sample_has_its_own_row_with_its_own_gradient(base):
    tokens = PseudoTokens(*base)
    table = base[1].get_input_embeddings().weight.clone()
    rows = torch.randn(3, WIDTH, requires_grad=True)
    with tokens.conditions({"<awe>": rows}):
        together = encode(*base, ["a <awe> cat", "no token", "<awe>"])[0]
    together[0].square().sum().backward(retain_graph=True)
    assert rows.grad[0].abs().sum() > 0 and not rows.grad[1:].any()
    with tokens.conditions({"<awe>": rows[2]}):
        alone = encode(*base, ["<awe>"])[0]
    torch.testing.assert_close(together[2:], alone)
    assert torch.equal(base[1].get_input_embeddings().weight, table)
    assert base[1].get_input_embeddings().num_embeddings == len(table)


def test_a_row_equal_to_a_words_embedding_is_that_word(base):
    tokens = PseudoTokens(*base)
    word = base[0].convert_tokens_to_ids("cat</w>")
    with tokens.conditions({"<fear>": base[1].get_input_embeddings().weight[word]}):
        token = encode(*base, ["a <fear> x"])
    assert torch.equal(token[0], encode(*base, ["a cat x"])[0])


def test_pooling_at_the_highest_id_is_not_moved():
    base = tiny.tokenizer(), tiny.text_encoder(eos_token_id=2)
    tokens = PseudoTokens(*base)
    word = base[0].convert_tokens_to_ids("cat</w>")
    with tokens.conditions({"<fear>": base[1].get_input_embeddings().weight[word]}):
        token = encode(*base, ["a <fear> x"])
    assert torch.equal(token.pooler_output, encode(*base, ["a cat x"]).pooler_output)


def test_outside_a_context_a_token_means_its_default(base):
    default, other = torch.randn(2, WIDTH)
    tokens = PseudoTokens(*base, {"<awe>": default})
    with tokens.conditions({"<awe>": default}):
        given = encode(*base, ["<awe> cat"])[0]
    assert torch.equal(encode(*base, ["<awe> cat"])[0], given)
    with tokens.conditions({"<awe>": other}):
        assert not torch.allclose(encode(*base, ["<awe> cat"])[0], given)
    assert torch.equal(encode(*base, ["<awe> cat"])[0], given)


def test_what_cannot_be_filled_is_refused(base):
    tokens = PseudoTokens(*base)
    with pytest.raises(ValueError, match="condition for <emotion>, found none"):
        encode(*base, ["a <emotion> cat"])
    with pytest.raises(ValueError, match=r"shape \(32,\).*found \(7,\)"), tokens.conditions({"<awe>": torch.ones(7)}):
        pass
    with pytest.raises(ValueError, match="found '<joy>'"), tokens.conditions({"<joy>": torch.ones(WIDTH)}):
        pass
    with tokens.conditions({"<awe>": torch.ones(3, WIDTH)}), pytest.raises(ValueError, match="1 or 2 conditions"):
        encode(*base, ["<awe>", "<awe> cat"])


def test_removing_restores_tokenizer_and_text_encoder(base, tmp_path):
    tokenizer, text_encoder = base
    words = tokenizer("a <awe> cat").input_ids
    encode(*base, ["<awe>"])
    tokenizer.save_pretrained(tmp_path / "before")
    tokens = PseudoTokens(*base, {"<awe>": torch.ones(WIDTH)})
    assert tokenizer("a <awe> cat").input_ids != words and len(tokenizer) == len(tiny.tokenizer()) + len(ALL_TOKENS)
    tokenizer("a <awe> cat", padding="longest")
    tokens.remove()
    tokenizer.save_pretrained(tmp_path / "after")
    for file in (tmp_path / "before").iterdir():
        assert file.read_bytes() == (tmp_path / "after" / file.name).read_bytes()
    assert tokenizer("a <awe> cat").input_ids == words
    assert tokenizer.decode(tokenizer("a cat").input_ids) == "<|startoftext|>a cat <|endoftext|>"
    assert not text_encoder._forward_pre_hooks and not text_encoder.get_input_embeddings()._forward_hooks


def test_removing_spares_a_textual_inversion_loaded_since(base):
    """What remains is what loading the textual inversion alone gives: ids and table without a gap."""
    tokenizer, text_encoder = base
    size, vector = len(tokenizer), torch.randn(WIDTH)
    tokens = PseudoTokens(*base, {"<awe>": torch.ones(WIDTH)})
    text_encoder.resize_token_embeddings(len(tokenizer) + 1)
    tokenizer.add_tokens("<cat-toy>")
    text_encoder.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("<cat-toy>")] = vector
    expected = encode(*base, ["a <cat-toy>"])[0]
    tokens.remove()
    assert tokenizer.convert_tokens_to_ids("<cat-toy>") == size
    assert text_encoder.get_input_embeddings().num_embeddings == size + 1 == len(tokenizer)
    assert torch.equal(encode(*base, ["a <cat-toy>"])[0], expected)


def test_a_textual_inversion_of_the_same_name_is_refused(base):
    tokenizer, text_encoder = base
    tokenizer.add_tokens("<awe>")
    text_encoder.resize_token_embeddings(len(tokenizer))
    with pytest.raises(ValueError, match="without <awe>.*unload_textual_inversion"):
        PseudoTokens(*base)
    assert not text_encoder._forward_pre_hooks and "<fear>" not in tokenizer.get_vocab()


def test_conditions_hold_in_their_own_thread_only(base):
    tokens = PseudoTokens(*base, {"<awe>": torch.zeros(WIDTH)})
    default = encode(*base, ["<awe>"])[0]
    seen = []
    with tokens.conditions({"<awe>": torch.ones(WIDTH)}):
        thread = threading.Thread(target=lambda: seen.append(encode(*base, ["<awe>"])[0]))
        thread.start()
        thread.join()
        assert not torch.allclose(encode(*base, ["<awe>"])[0], default)
    torch.testing.assert_close(seen[0], default)


def test_a_copy_of_the_text_encoder_knows_the_tokens(base):
    tokens = PseudoTokens.shared(*base)
    tokens.attach(tokens, {"<awe>": torch.ones(WIDTH)})
    expected = encode(*base, ["<awe> cat"])[0]
    for copied in (copy.deepcopy(base[1]), pickle.loads(pickle.dumps(base[1]))):
        assert torch.equal(encode(base[0], copied, ["<awe> cat"])[0], expected)


def test_a_compiled_text_encoder_follows_the_conditions(base):
    """Swapping ids in compiled code without writing the rows would go unnoticed."""
    tokens = PseudoTokens(*base, {"<awe>": torch.ones(WIDTH)})
    compiled = torch.compile(base[1], fullgraph=True, backend="eager")
    prompts = ["a <awe> cat", "x <awe>"]
    with torch.no_grad():
        torch.testing.assert_close(encode(base[0], compiled, prompts)[0], encode(*base, prompts)[0])
        for rows in torch.randn(2, 2, WIDTH):
            with tokens.conditions({"<awe>": rows}):
                torch.testing.assert_close(encode(base[0], compiled, prompts)[0], encode(*base, prompts)[0])
