"""Publishing a folder, against a Hub on this machine: what is refused before a run, and pushes that break off."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Damage, Fault, HubServer, Status, User, read_folder
from huggingface_hub import constants, snapshot_download
from huggingface_hub.cli.hf import main as hf

from training.hub import PublishingError, check_publishing, publish

USERS = {"secret": User("ann"), "read": User("ann", may_write=False), "other": User("bob")}
COMMIT = "POST .*/commit/"


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """A Hub on which only this test's tokens count, and clients that do not wait between tries."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with HubServer(USERS) as server:
        server.stand_in(monkeypatch)
        yield server


@pytest.fixture
def folder(tmp_path) -> Path:
    """As a run leaves it: what is to be published, and what is not."""
    files = {
        "README.md": b"---\nlicense: apache-2.0\n---\n\n# A model\n",
        "config.json": b"{}",
        "understanding/model.safetensors": bytes(range(256)) * 40,
        "checkpoint-20/model.safetensors": b"x",
        "checkpoint-20/optimizer.pt": b"x",
        "training_args.bin": b"x",
        "arguments.json": b"{}",
        "first_emotion_space.safetensors": b"x",
        "results.partial": b"x",
        "understanding/training_args.bin": b"x",
        ".uniemo_adapter.safetensors.12.part": b"x",
    }
    for name, content in files.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(content)
    return tmp_path / "run"


PUBLISHED = ["README.md", "config.json", "understanding/model.safetensors"]


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(PublishingError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Before a run


@pytest.mark.parametrize("private", [False, True])
def test_a_repository_is_made_and_found_again(hub, private):
    assert check_publishing("model", token="secret", private=private) == "ann/model"
    assert hub.repositories["ann/model"].private == private
    assert check_publishing("ann/model", token="secret") == "ann/model"
    assert list(hub.repositories) == ["ann/model"]


def test_the_stored_token_counts(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert check_publishing("model") == "ann/model"


def test_without_a_token_it_says_how_to_get_one():
    assert "found none; run `hf auth login`, or set HF_TOKEN" in refusal(check_publishing, "ann/model")


def test_a_token_that_is_not_accepted():
    assert "the token is not accepted (401: " in refusal(check_publishing, "ann/model", token="wrong")


@pytest.mark.parametrize(
    ("token", "name"), [("read", "ann/new"), ("read", "ann/there"), ("other", "ann/there"), ("other", "ann/secret")]
)
def test_a_token_without_the_right_to_write(hub, token, name):
    """The client itself takes a repository that is there for one that it may write to."""
    hub.create("ann/there")
    hub.create("ann/secret", private=True)
    assert "write permission" in refusal(check_publishing, name, token=token)


def test_no_connection(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "no connection to http://127.0.0.1:9" in refusal(check_publishing, "ann/model", token="secret")


def test_the_hub_switched_off(hub, tmp_path):
    environment = hub.environment(tmp_path, "secret") | {"HF_HUB_OFFLINE": "1"}
    script = "from training.hub import check_publishing\ncheck_publishing('ann/model')"
    command = [sys.executable, "-c", script]
    root = Path(__file__).parents[1]
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert "unset it" in ran.stderr.splitlines()[-1]


def test_no_possible_name():
    assert "ann/a b cannot be published" in refusal(check_publishing, "ann/a b", token="secret")


# After it


def test_everything_arrives_but_what_is_for_going_on_here(hub, folder, tmp_path):
    name = check_publishing("model", token="secret", private=True)
    url = publish(folder, name, token="secret", message="Stage 1")
    commit = hub.repositories[name].commits[-1]
    assert url == f"{hub.url}/ann/model/commit/{commit.oid}" and commit.message == "Stage 1"
    fetched = Path(snapshot_download(name, token="secret", cache_dir=tmp_path / "cache"))
    assert read_folder(fetched) == {path: (folder / path).read_bytes() for path in PUBLISHED}


def test_a_push_that_is_refused_can_be_repeated_as_it_says(hub, folder, monkeypatch):
    name = check_publishing("model", token="secret")
    hub.faults = [Fault(COMMIT, Status(403))]
    said = refusal(publish, folder, name, token="secret")
    assert "(403: Forbidden)" in said and f"Everything is saved in {folder}" in said
    assert hub.repositories[name].files == {} and set(read_folder(folder)) > set(PUBLISHED)
    command = shlex.split(said.partition("run: ")[2])
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        hf()
    assert not ended.value.code
    assert sorted(hub.repositories[name].files) == PUBLISHED


def test_a_token_that_lost_its_right_meanwhile(hub, folder):
    name = check_publishing("model", token="secret")
    assert "write permission" in refusal(publish, folder, name, token="read")


def test_a_server_error_and_a_cut_connection_are_tried_again(hub, folder):
    name = check_publishing("model", token="secret")
    hub.faults = [Fault(COMMIT, Status(500)), Fault(COMMIT, Damage.CUT, nth=(2,))]
    publish(folder, name, token="secret")
    assert sorted(hub.repositories[name].files) == PUBLISHED


@pytest.mark.parametrize(
    ("effect", "said"), [(Damage.CUT, "no connection to http"), (Status(500), "the Hub answered 500")]
)
def test_a_second_push_completes_one_that_broke_off(hub, folder, effect, said):
    """A folder of many files goes in several commits; only what had not arrived is sent again."""
    for number in range(260):
        (folder / f"file-{number:03d}.txt").write_text(str(number))
    name = check_publishing("model", token="secret")
    hub.faults = [Fault(COMMIT, effect, nth=range(2, 30))]
    assert said in refusal(publish, folder, name, token="secret")
    first = hub.repositories[name].files
    assert 200 < len(first) < 263
    hub.faults = []
    publish(folder, name, token="secret")
    assert len(hub.repositories[name].files) == 263
    assert set(hub.repositories[name].commits[-1].sent) == set(hub.repositories[name].files) - set(first)
    publish(folder, name, token="secret")
    assert len(hub.repositories[name].commits) == 3, "nothing new, no commit"


@pytest.mark.parametrize(
    ("xet", "requests", "said"),
    [
        (True, "POST .*/xorbs/", r"no connection to http.*400 Bad Request"),
        (False, "PUT /files/", r"uploading 'understanding/model\.safetensors' to the Hub: Bad request: Expected"),
    ],
)
def test_large_files_that_do_not_arrive_whole_say_why(hub, folder, monkeypatch, xet, requests, said):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    name = check_publishing("model", token="secret")
    hub.faults = [Fault(requests, Damage.CORRUPTED, nth=range(1, 100))]
    found = refusal(publish, folder, name, token="secret")
    assert re.search(said, found)
    hub.faults = []
    publish(folder, name, token="secret")
    assert sorted(hub.repositories[name].files) == PUBLISHED


def test_a_card_that_the_hub_does_not_take(hub, folder):
    (folder / "README.md").write_text("---\nbase_model: /home/ann/clip\n---\n")
    name = check_publishing("model", token="secret")
    assert 'Invalid metadata in README.md. - "base_model"' in refusal(publish, folder, name, token="secret")
