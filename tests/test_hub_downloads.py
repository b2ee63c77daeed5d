"""Loading from the Hub when something is wrong: on the way, with the repository, or with who asks."""

from pathlib import Path

import pytest
import tiny
import torch
from hub_server import Damage, Fault, HubServer, Status, User
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx
from typer.testing import CliRunner

from uniemo_pipelines import UniEmoPipeline, UniEmoUnderstandingModel
from uniemo_pipelines.adapters_uniemo import ADAPTER_NAME, write_adapter
from uniemo_pipelines.cli import app

ADAPTER = f"GET .*{ADAPTER_NAME}"
UNET = "GET .*unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """How long the client wanted to wait; it does not."""
    seconds: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", seconds.append)
    return seconds


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with HubServer({"secret": User("ann"), "other": User("bob")}) as server:
        server.stand_in(monkeypatch)
        yield server


@pytest.fixture
def folder(tmp_path) -> Path:
    """An adapter with its understanding model."""
    tiny.save_understanding(tmp_path / "adapter" / "understanding")
    file = tmp_path / "adapter" / ADAPTER_NAME
    write_adapter(file, tiny.fusion(), "some/base", tmp_path / "adapter" / "understanding")
    return file.parent


@pytest.fixture
def pipe(folder) -> UniEmoPipeline:
    pipe = UniEmoPipeline(**tiny.stable_diffusion())
    pipe.load_uniemo(folder)
    return pipe


@pytest.fixture
def load(tmp_path):
    """Loads "ann/model" as an adapter, from the Hub or an own cache; the means of the emotions."""

    def load(**hub: str) -> torch.Tensor:
        pipe = UniEmoPipeline(**tiny.stable_diffusion())
        try:
            pipe.load_uniemo("ann/model", cache_dir=tmp_path / "cache", **hub)
        except Exception:
            assert pipe.list_uniemo() == [] and "<awe>" not in pipe.tokenizer.get_vocab()
            raise
        return means(pipe)

    return load


def means(pipe: UniEmoPipeline) -> torch.Tensor:
    return pipe.encode_prompt("<awe> <fear>", "cpu", 1, False)[0]


def put(hub: HubServer, folder: Path, **settings: bool) -> None:
    hub.create("ann/model", **settings)
    HfApi(token="secret").upload_folder(repo_id="ann/model", folder_path=folder)


def line_of(*arguments: str) -> str:
    """The one line of a command that fails."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(lines) == 1 and result.stderr.splitlines()[-1] == lines[0]
    return lines[0]


# On the way


@pytest.mark.parametrize("effect", [Damage.CUT, Status(429, retry_after=7)])
def test_a_download_that_breaks_off_is_tried_again(hub, pipe, load, waits, effect):
    pipe.push_uniemo_to_hub("ann/model", token="secret")
    hub.faults = [Fault(ADAPTER, effect)]
    assert torch.equal(load(), means(pipe))
    assert not isinstance(effect, Status) or 8.0 in waits, "as long as it was told, and one for rounding"


@pytest.mark.parametrize(
    ("effect", "said"), [(Damage.CUT, "no connection to http"), (Status(500), "answered 500; try again later")]
)
def test_of_a_download_that_fails_nothing_is_loaded_and_the_next_one_works(hub, pipe, load, effect, said):
    pipe.push_uniemo_to_hub("ann/model", token="secret")
    hub.faults = [Fault(ADAPTER, effect, nth=range(1, 7))]
    with pytest.raises(httpx.HTTPError) as caught:
        load()
    assert said in caught.value.__notes__[0]
    hub.faults = []
    assert torch.equal(load(), means(pipe))


def test_an_adapter_that_was_damaged_on_its_way_is_refused_until_it_is_fetched_again(hub, pipe, load):
    """The client compares lengths alone."""
    pipe.push_uniemo_to_hub("ann/model", token="secret")
    hub.faults = [Fault(ADAPTER, Damage.CORRUPTED)]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"damaged on its way.*force_download=True"):
            load()
    assert torch.equal(load(force_download=True), means(pipe))


def test_a_pipeline_of_which_a_part_did_not_come_is_not_loaded_and_completed_by_the_next_call(hub, pipe, tmp_path):
    pipe.push_to_hub("ann/model", token="secret")
    hub.faults = [Fault(UNET, Damage.CUT, nth=range(1, 7))]
    with pytest.raises(httpx.HTTPError):
        UniEmoPipeline.from_pretrained("ann/model", cache_dir=tmp_path / "cache")
    before = "ann/model/text_encoder/model.safetensors"  # the client fetches in this order; later files it may give up
    assert hub.sent.pop(before) > 0
    hub.faults = [Fault(UNET, Damage.CUT)]
    loaded = UniEmoPipeline.from_pretrained("ann/model", cache_dir=tmp_path / "cache")
    assert torch.equal(means(loaded), means(pipe))
    assert before not in hub.sent, "what had come is kept"


def test_an_understanding_model_that_does_not_come_is_asked_for_again(hub, pipe, tmp_path):
    pipe.push_to_hub("ann/model", token="secret")
    loaded = UniEmoPipeline.from_pretrained("ann/model", cache_dir=tmp_path / "cache")
    hub.faults = [Fault("GET .*understanding/model.safetensors", Damage.CUT, nth=range(1, 7))]
    with pytest.raises((httpx.HTTPError, OSError)):
        _ = loaded.understanding_model
    hub.faults = []
    assert torch.equal(loaded.understanding_model.classifier[0].weight, pipe.understanding_model.classifier[0].weight)


@pytest.mark.parametrize(
    ("requests", "effect", "arrives"),
    [
        ("POST .*/commit/", Damage.CUT, True),
        ("POST .*/commit/", Status(500), True),
        ("POST .*/commit/", Status(429, retry_after=1), True),
        ("POST .*/xorbs/", Damage.CORRUPTED, False),
        ("POST .*/commit/", Status(403), False),
    ],
)
def test_a_push_goes_through_or_leaves_the_repository_and_the_local_copy_as_they_were(
    hub, pipe, tmp_path, requests, effect, arrives
):
    hub.faults = [Fault(requests, effect, nth=[1] if arrives else range(1, 100))]
    if not arrives:
        with pytest.raises((HfHubHTTPError, ConnectionError)):
            pipe.save_pretrained(tmp_path / "whole", push_to_hub=True, repo_id="ann/model", token="secret")
        assert hub.repositories["ann/model"].files == {}
        assert torch.equal(means(UniEmoPipeline.from_pretrained(tmp_path / "whole")), means(pipe))
        hub.faults = []
    pipe.save_pretrained(tmp_path / "whole", push_to_hub=True, repo_id="ann/model", token="secret")
    files = {file.relative_to(tmp_path / "whole").as_posix() for file in (tmp_path / "whole").rglob("*.*")}
    assert set(hub.repositories["ann/model"].files) == files


# Who asks


@pytest.mark.parametrize("settings", [None, {"private": True}])
def test_a_repository_that_is_not_there_or_is_not_shown(hub, folder, load, tmp_path, settings):
    if settings is not None:
        put(hub, folder, **settings)
    with pytest.raises(RepositoryNotFoundError, match="Repository Not Found") as caught:
        load()
    [line] = caught.value.__notes__
    assert line == "Check the name 'ann/model'; if it is a private repository, run `hf auth login`, or give token=..."
    with pytest.raises(OSError, match="Cannot load model ann/model") as caught:
        UniEmoPipeline.from_pretrained("ann/model", cache_dir=tmp_path)
    assert caught.value.__notes__ == [line]
    for option in ("--adapter", "--model"):
        said = line_of("generate", "awe", option, "ann/model")
        assert "Repository Not Found" in said and said.endswith(line)
    if settings is not None:
        assert load(token="secret") is not None


def test_a_gated_base(hub, pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "base")
    put(hub, tmp_path / "base", gated=True)
    for token in (False, "other"):
        with pytest.raises(GatedRepoError, match="Access to model ann/model is restricted") as caught:
            UniEmoPipeline.from_pretrained("ann/model", token=token, cache_dir=tmp_path / "cache")
        assert f"Ask for access on {hub.url}/ann/model; then run `hf auth login`" in caught.value.__notes__[0]
    assert "Access to model ann/model is restricted" in line_of("generate", "awe", "--model", "ann/model")


def test_an_adapter_where_there_is_none(hub, pipe, load):
    pipe.push_to_hub("ann/model", token="secret")
    with pytest.raises(RemoteEntryNotFoundError) as caught:
        load()
    assert "from_pretrained('ann/model')" in caught.value.__notes__[0]


# Pickles


def test_nothing_that_we_publish_is_a_pickle(hub, pipe):
    pipe.push_to_hub("ann/model", token="secret", safe_serialization=False)
    names = hub.repositories["ann/model"].files
    ours = [name for name in names if name.startswith(("fusion/", "understanding/"))]
    assert not [name for name in ours if name.endswith((".bin", ".pt", ".pkl"))]
    assert {"fusion/diffusion_pytorch_model.safetensors", "understanding/model.safetensors"} < names.keys()


def test_a_pickled_adapter_is_refused(hub, tmp_path, load):
    (tmp_path / "pickled").mkdir()
    torch.save(tiny.fusion().state_dict(), tmp_path / "pickled" / "uniemo_adapter.bin")
    put(hub, tmp_path / "pickled")
    with pytest.raises(ValueError, match=r"found the pickle 'uniemo_adapter.bin', which is not read"):
        load()
    with pytest.raises(ValueError, match="found a pickle"):
        load(weight_name="uniemo_adapter.bin")
    line = line_of("export", "--adapter-repo", str(tmp_path / "out"), "--adapter", "ann/model")
    assert "found the pickle" in line and "404" not in line
    with pytest.raises(ValueError, match=r"found the pickle 'uniemo_adapter.bin', which is not read"):
        UniEmoPipeline(**tiny.stable_diffusion()).load_uniemo(tmp_path / "pickled")


def test_a_pickled_fusion_or_understanding_model_is_refused(hub, pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "whole", safe_serialization=False)
    pickles = {"fusion/diffusion_pytorch_model": "diffusion_pytorch_model", "understanding/model": "pytorch_model"}
    for name, pickled in pickles.items():
        file = tmp_path / "whole" / f"{name}.safetensors"
        torch.save(pipe.fusion.state_dict(), file.with_name(f"{pickled}.bin"))
        file.unlink()
    put(hub, tmp_path / "whole")
    for place in ("ann/model", tmp_path / "whole"):
        with pytest.raises(ValueError, match=r"found the pickle 'diffusion_pytorch_model.bin', which is not read"):
            UniEmoPipeline.from_pretrained(place, cache_dir=tmp_path / "cache")
        with pytest.raises(OSError, match="model.safetensors") as caught:
            UniEmoUnderstandingModel.from_pretrained(place, subfolder="understanding", cache_dir=tmp_path / "cache")
        assert "never from a pickle" in caught.value.__notes__[0]
