"""Training stages that push to the Hub, against a Hub on this machine."""

import json

import pytest
from hub_server import Fault, HubServer, Status, User
from huggingface_hub import ModelCard, constants
from training_world import stage1, stage2, write_world

from training import compute_emotion_space, train_joint, train_understanding
from training.compute_emotion_space import EmotionSpaceArguments
from training.engine import StageTrainer
from training.hub import PublishingError

USERS = {"secret": User("ann"), "read": User("ann", may_write=False)}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with HubServer(USERS) as server:
        server.stand_in(monkeypatch)
        yield server


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


PUSHED = {"push_to_hub": True, "hub_token": "secret"}


def files(hub, repository):
    return {name for name in hub.repositories[repository].files if name != ".gitattributes"}


def test_every_stage_pushes_its_folder_under_the_name_given(hub, world, tmp_path):
    understanding, joint = tmp_path / "understanding", tmp_path / "joint"
    named = {"hub_model_id": "ann/emotions", "license": "mit"}
    train_understanding.main(*stage1(world, understanding, **PUSHED, **named))
    expected = {"README.md", "config.json", "model.safetensors", "modeling_uniemo.py", "preprocessor_config.json"}
    written = {"curves.png", "results.json", "results.md", "training_log.json", "training.json"}
    assert files(hub, "ann/emotions") == expected | written
    card = ModelCard.load(understanding / "README.md")
    assert card.data.license == "mit" and card.data.eval_results[0].metric_type == "accuracy"
    assert "| num_scene_queries | `2` |" in card.text
    assert "secret" not in "".join(path.read_text() for path in understanding.glob("*.[jm][sd]*"))

    train_joint.main(*stage2(world, understanding, joint, **PUSHED, num_train_epochs=1))  # named as the folder
    expected = {"README.md", "uniemo_adapter.safetensors"}
    expected |= {f"understanding/{name}" for name in ("config.json", "model.safetensors", "modeling_uniemo.py")}
    assert files(hub, "ann/joint") == expected | written | {"understanding/preprocessor_config.json"}

    data, *_ = stage1(world, tmp_path)
    arguments = EmotionSpaceArguments(adapter=str(joint), bank_size=2, rank=2, **PUSHED, hub_model_id="ann/refitted")
    compute_emotion_space.main(data, arguments)
    assert files(hub, "ann/refitted") == files(hub, "ann/joint")


def test_without_permission_nothing_is_begun(hub, world, tmp_path, monkeypatch):
    monkeypatch.setattr(StageTrainer, "train", lambda *args, **kwargs: pytest.fail("it trained"))
    hub.create("ann/emotions")
    changes = {"push_to_hub": True, "hub_token": "read", "hub_model_id": "ann/emotions"}
    with pytest.raises(PublishingError, match="may not write"):
        train_understanding.main(*stage1(world, tmp_path / "run", **changes))


def test_a_push_that_fails_loses_nothing_and_is_repeated_by_the_same_command(hub, world, tmp_path, monkeypatch):
    arguments = {**PUSHED, "hub_model_id": "ann/emotions"}
    hub.faults = [Fault("POST .*/commit/", Status(403), nth=range(1, 20))]
    with pytest.raises(PublishingError, match="Everything is saved in .*run; .*repeat the training command"):
        train_understanding.main(*stage1(world, tmp_path / "run", **arguments))
    assert json.loads((tmp_path / "run" / "results.json").read_text()) and (tmp_path / "run" / "README.md").is_file()
    hub.faults.clear()
    monkeypatch.setattr(StageTrainer, "train", lambda *args, **kwargs: pytest.fail("it trained again"))
    train_understanding.main(*stage1(world, tmp_path / "run", **arguments))
    assert "model.safetensors" in files(hub, "ann/emotions")
