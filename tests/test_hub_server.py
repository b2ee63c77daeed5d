"""The tests' Hub, against the real client: what is pushed arrives to the byte, whatever happens on the way."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import Damage, Fault, HubServer, Status, User, read_folder
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from safetensors.numpy import save

USERS = {"secret": User("ann"), "other": User("bob")}
WEIGHTS = "unet/model.safetensors"
FILES = {
    WEIGHTS: save({"weights": np.random.default_rng(0).normal(size=750_000).astype(np.float32)}),
    "repeated.bin": b"the same again, " * 100_000,
    "random.bin": np.random.default_rng(1).bytes(2_000_000),
    "small.bin": bytes(range(256)),
    "empty.safetensors": b"",
    "config.json": b"{}",
    "notes/Read me, ö.txt": "Ärger".encode(),
}
DOWNLOAD = f"GET .*{WEIGHTS}"


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
    with HubServer(USERS) as server:
        server.stand_in(monkeypatch)
        yield server


@pytest.fixture(params=["xet", "lfs"])
def way(request, monkeypatch) -> str:
    """How the client uploads large files: by itself, and where HF_HUB_DISABLE_XET is set."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return request.param


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    return tmp_path / "folder"


@pytest.fixture
def model(hub):
    """A repository with all files."""
    repository = hub.create("ann/model")
    repository.add("main", "all", FILES)
    return repository


def push(folder: Path, **options: str) -> None:
    HfApi(token="secret").upload_folder(repo_id="ann/model", folder_path=folder, **options)


def pull(cache: Path, file: str = WEIGHTS, **options: str) -> bytes:
    return Path(hf_hub_download("ann/model", file, cache_dir=cache, **options)).read_bytes()


def cached(cache: Path) -> list[str]:
    """The names of everything in a cache that holds content."""
    return sorted(path.name for path in cache.glob("models--*/blobs/*"))


# Uploading and downloading


def test_a_folder_arrives_to_the_byte(hub, way, folder, tmp_path):
    hub.create("ann/model")
    push(folder)
    assert hub.repositories["ann/model"].files == FILES
    assert read_folder(Path(snapshot_download("ann/model", cache_dir=tmp_path / "cache"))) == FILES
    assert {"xet": "POST /xet-", "lfs": "PUT /files/"}[way] in "\n".join(hub.requests)


def test_what_is_there_is_not_sent_again(hub, way, folder):
    repository = hub.create("ann/model")
    push(folder)
    hub.requests.clear()
    push(folder)
    (folder / "config.json").write_text('{"new": 1}')
    push(folder)
    assert [commit.sent for commit in repository.commits[2:]] == [("config.json",)]
    assert not [request for request in hub.requests if "/xorbs/" in request or "PUT" in request]


def test_a_fresh_process_pushes_and_pulls(hub, folder, tmp_path):
    script = """
from huggingface_hub import HfApi, snapshot_download
HfApi().create_repo("ann/model", private=True)
HfApi().upload_folder(repo_id="ann/model", folder_path="folder")
snapshot_download("ann/model", local_dir="copy")
"""
    environment = hub.environment(tmp_path / "home", "secret")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert hub.repositories["ann/model"].private
    copy = read_folder(tmp_path / "copy")
    assert {name: content for name, content in copy.items() if not name.startswith(".cache")} == FILES


def test_files_are_deleted_alone_and_with_their_folder(model):
    HfApi(token="secret").delete_folder("unet", "ann/model")
    HfApi(token="secret").delete_file("config.json", "ann/model")
    assert model.files.keys() == FILES.keys() - {WEIGHTS, "config.json"}


# What goes wrong

UPLOAD = {"xet": "POST /xet-.*/xorbs/", "lfs": "PUT /files/"}


@pytest.mark.parametrize("effect", [Damage.CUT, Status(500), Status(429, retry_after=0)])
def test_an_upload_that_breaks_off_is_tried_again(hub, way, folder, effect):
    hub.create("ann/model")
    hub.faults = [Fault(UPLOAD[way], effect)]
    push(folder)
    assert hub.repositories["ann/model"].files == FILES


def test_an_upload_that_arrives_corrupted_is_refused_and_a_second_push_completes_it(hub, way, folder):
    repository = hub.create("ann/model")
    hub.faults = [Fault(UPLOAD[way], Damage.CORRUPTED)]
    with pytest.raises((ConnectionError, RuntimeError), match="400 Bad Request|Error while uploading"):  # xet, LFS
        push(folder)
    assert repository.files == {} and read_folder(folder) == FILES
    push(folder)
    assert repository.files == FILES


@pytest.mark.parametrize(("size", "kept"), [(3_000_000, 0), (24_000_000, constants.DOWNLOAD_CHUNK_SIZE)])
def test_a_download_that_is_cut_goes_on_after_the_last_whole_chunk(hub, tmp_path, size, kept):
    """The client writes ten MiB at a time; what it had not written is sent again."""
    content = np.random.default_rng(0).bytes(size)
    hub.create("ann/model").add("main", "large", {WEIGHTS: content})
    hub.faults = [Fault(DOWNLOAD, Damage.CUT)]
    assert pull(tmp_path) == content
    assert hub.sent == {f"ann/model/{WEIGHTS}": size // 2 + size - kept}


@pytest.mark.parametrize(
    ("effect", "attempts"), [(Damage.CUT, range(1, 7)), (Status(429), range(1, 7)), (Status(500), range(1, 2))]
)
def test_of_a_download_that_fails_nothing_is_kept(hub, model, tmp_path, effect, attempts):
    """After a cut and where it is told to come later the client tries five times more, after a server error never."""
    hub.faults = [Fault(DOWNLOAD, effect, nth=attempts)]
    with pytest.raises(httpx.HTTPError):
        pull(tmp_path)
    assert cached(tmp_path) == []
    assert pull(tmp_path) == FILES[WEIGHTS], "the next attempt after them is without a fault"


def test_a_server_error_before_the_download_is_tried_again(hub, model, tmp_path):
    hub.faults = [Fault(f"HEAD .*{WEIGHTS}", Status(500), nth=(1, 2))]
    assert pull(tmp_path) == FILES[WEIGHTS]


def test_the_client_waits_as_long_as_it_is_told(hub, model, folder, waits, tmp_path):
    hub.faults = [Fault(DOWNLOAD, Status(429, retry_after=7)), Fault("POST .*/commit/", Status(429, retry_after=20))]
    assert pull(tmp_path) == FILES[WEIGHTS]
    (folder / "config.json").write_text('{"new": 1}')
    push(folder)
    assert [8.0, 21.0] == [seconds for seconds in waits if seconds > 5], "and a second for rounding"


def test_the_client_takes_a_corrupted_download_of_the_right_length_but_its_check_finds_it(hub, model, tmp_path):
    hub.faults = [Fault(DOWNLOAD, Damage.CORRUPTED)]
    snapshot_download("ann/model", cache_dir=tmp_path)
    found = HfApi().verify_repo_checksums("ann/model", cache_dir=tmp_path)
    assert [(mismatch["path"], mismatch["algorithm"]) for mismatch in found.mismatches] == [(WEIGHTS, "sha256")]
    assert found.checked_count == len(FILES)


# Who may read


def test_a_private_repository_does_not_show_that_it_is_there(hub, tmp_path):
    hub.create("ann/model", private=True).add("main", "all", FILES)
    for token in (False, "other"):
        with pytest.raises(RepositoryNotFoundError):
            pull(tmp_path, token=token)
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info("ann/model")
    assert pull(tmp_path, token="secret") == FILES[WEIGHTS]


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("other", 403)])
def test_a_gated_repository_is_seen_but_not_read(hub, tmp_path, token, status):
    repository = hub.create("ann/model", gated=True)
    repository.add("main", "all", FILES)
    assert HfApi(token=token).model_info("ann/model").gated == "manual"
    for file in (WEIGHTS, "config.json"):
        with pytest.raises(GatedRepoError, match="Access to model ann/model is restricted") as caught:
            pull(tmp_path, file, token=token)
        assert caught.value.response.status_code == status
    repository.granted.add("bob")
    assert pull(tmp_path, token="other") == pull(tmp_path, token="secret") == FILES[WEIGHTS]


def test_the_storage_takes_no_token(hub, model):
    """As the real one; a client that sends one to other hosts fails here too."""
    address = f"{constants.ENDPOINT}/ann/model/resolve/main/{WEIGHTS}"
    location = httpx.head(address).headers["Location"]
    assert httpx.get(location).status_code == 200
    assert httpx.get(location, headers={"Authorization": "Bearer secret"}).status_code == 400


# Revisions


def test_branches_and_tags_are_written_and_read(hub, folder, tmp_path):
    repository, api = hub.create("ann/model"), HfApi(token="secret")
    push(folder)
    api.create_tag("ann/model", tag="v1")
    api.create_branch("ann/model", branch="try/fp16", revision="v1")
    api.upload_file(path_or_fileobj=b"new", path_in_repo="config.json", repo_id="ann/model", revision="try/fp16")
    api.delete_file(WEIGHTS, "ann/model")
    v1, fp16 = repository.tags["v1"], repository.branches["try/fp16"][-1]
    assert [pull(tmp_path, "config.json", revision=name) for name in ("v1", "try/fp16", fp16.oid)] == [
        b"{}",
        b"new",
        b"new",
    ]
    assert len(repository.commits) == 3 and len(repository.branches["try/fp16"]) == 3
    assert pull(tmp_path, revision="v1") == FILES[WEIGHTS]
    assert api.model_info("ann/model", revision="try/fp16").sha == fp16.oid
    assert WEIGHTS in api.list_repo_files("ann/model", revision="v1")
    assert WEIGHTS not in api.list_repo_files("ann/model")
    refs = api.list_repo_refs("ann/model")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": v1.oid}
    assert {ref.name for ref in refs.branches} == {"main", "try/fp16"}


def test_what_is_wrong_with_a_revision(model, tmp_path):
    api = HfApi(token="secret")
    for attempt in (
        lambda: pull(tmp_path, revision="none"),
        lambda: api.model_info("ann/model", revision="none"),
        lambda: api.create_branch("ann/model", branch="new", revision="none"),
        lambda: api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="ann/model", revision="none"),
    ):
        with pytest.raises(RevisionNotFoundError):
            attempt()
    api.create_branch("ann/model", branch="main", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="Reference already exists"):
        api.create_branch("ann/model", branch="main")


# Counting


def test_the_bytes_of_each_file_are_counted(hub, model, tmp_path):
    pull(tmp_path)
    pull(tmp_path, "config.json")
    expected = {f"ann/model/{name}": len(FILES[name]) for name in (WEIGHTS, "config.json")}
    assert hub.sent == expected
    pull(tmp_path)
    HfApi().model_info("ann/model")
    httpx.head(f"{hub.url}/ann/model/resolve/main/small.bin")
    assert hub.sent == expected, "of what is in the cache, or only asked about, nothing is sent"


def test_a_part_of_a_file(hub, model):
    address = f"{hub.url}/ann/model/resolve/main/small.bin"
    part = httpx.get(address, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == bytes(range(10, 20))
    assert part.headers["Content-Range"] == "bytes 10-19/256" and hub.sent["ann/model/small.bin"] == 10
    assert httpx.get(address, headers={"Range": "bytes=256-"}).status_code == 416


def test_a_card_that_the_hub_does_not_take(hub, folder):
    hub.create("ann/model")
    (folder / "README.md").write_text("---\nbase_model: /home/ann/clip\n---\n")
    card = {"path_or_fileobj": folder / "README.md", "path_in_repo": "README.md", "repo_id": "ann/model"}
    with pytest.raises((BadRequestError, ValueError), match="base_model"):
        HfApi(token="secret").upload_file(**card)
