"""Saving and publishing pipelines: folders that carry their code, so that they load where this package is not.

A folder of `save_pretrained` has diffusers' layout, and beside it:

    pipeline.py, *_uniemo.py    the pipeline's class, for `trust_remote_code=True`
    fusion/fusion_uniemo.py     the class of the component `fusion`
    understanding/              the understanding model in transformers' layout, which is no component: it is fetched
                                when the first image is to be understood

Whoever has this package, or has loaded such code already, reads the folder with the classes at hand.
"""

import inspect
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import CommitInfo, HfApi

from .adapters_uniemo import ADAPTER_NAME, refuse_pickles, write_adapter
from .cards_uniemo import CARD, add_card
from .fusion_uniemo import UniEmoFusionModel
from .hub_uniemo import advice
from .loaders_uniemo import LoadedAdapter, UniEmoLoaderMixin, logger

ENTRY = "pipeline"  # the name by which diffusers looks for a repository's pipeline
UNDERSTANDING = "understanding"
_PACKAGE = __name__.rpartition(".")[0]
_SIBLING = re.compile(r"^\s*from \.(\w+) import", re.MULTILINE)


class UniEmoSavingMixin(UniEmoLoaderMixin):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` of our pipelines, and `push_uniemo_to_hub`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """As diffusers' own. A repository's code is not run, for its classes are here: no `trust_remote_code`."""
        with advice(pretrained_model_name_or_path):
            pipe = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if pipe._uniemo.adapters:  # the understanding model comes later, with the same token
            pipe._uniemo.main.share_hub_arguments(kwargs)
        return pipe

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        **hub_arguments: Any,
    ) -> None:
        """As diffusers' own, with the active adapter of the largest weight as the component `fusion`.

        The folder loads without this package too, by `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)`.
        The adapter's understanding model is written into it, and fetched for that if it was not yet. The tokenizers
        are written as the base's, for loading adds our tokens again.

        Args:
            save_directory, safe_serialization, variant, max_shard_size, use_flashpack: as there.
            push_to_hub: also upload the folder, with the README.md that is in it; where there is none, it gets a card.
            **hub_arguments: `repo_id`, the folder's name unless given, `commit_message`, `private`, `token`,
                `create_pr`.
        """
        if len(self._uniemo.adapters) > 1:
            logger.warning("save_pretrained writes one adapter of several; save_uniemo writes any by its name.")
        options = (safe_serialization, variant, max_shard_size)
        if push_to_hub:  # first, for nothing has to be written where that is refused
            name, private = hub_arguments.pop("repo_id", Path(save_directory).name), hub_arguments.pop("private", None)
            repo_id = _create(name, private, hub_arguments.get("token"))
        with self._hidden_tokens():
            super().save_pretrained(os.fspath(save_directory), *options, use_flashpack=use_flashpack)
        if push_to_hub:
            self._describe(Path(save_directory), repo_id)
            _publish(save_directory, repo_id, **hub_arguments)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> CommitInfo:
        """Upload what `save_pretrained` writes; as diffusers' own, but with a card that says what it is.

        A card is for a whole repository that draws from text; with `subfolder`, and of image to image, inpainting and
        ControlNet, there is none.
        """
        repo_id = _create(repo_id, private, token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, safe_serialization, variant)
            if subfolder is None:
                self._describe(Path(folder), repo_id)
            return _publish(folder, repo_id, token, commit_message, create_pr, subfolder)

    def push_uniemo_to_hub(
        self,
        repo_id: str,
        adapter_name: str | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> CommitInfo:
        """Upload an adapter, the active one of the largest weight unless named, for `load_uniemo(repo_id)`.

        The repository carries this pipeline's code, for `custom_pipeline=repo_id` on the adapter's base, and a card as
        `push_to_hub` makes one.

        Raises:
            ValueError: no adapter is loaded, or none of this name.
        """
        adapter = self._adapter(adapter_name)
        repo_id = _create(repo_id, private, token)
        with tempfile.TemporaryDirectory() as folder:
            write_adapter_repository(folder, adapter, type(self), self._base_name(adapter))
            if self._draws_from_text:
                add_card(folder, adapter.folder, repo_id)
            return _publish(folder, repo_id, token, commit_message, create_pr)

    def _describe(self, folder: Path, repo_id: str) -> None:
        """Give a folder its card, unless it has one, or is of a pipeline that there are no cards for."""
        if self._uniemo.adapters and self._draws_from_text and not (folder / CARD).is_file():
            adapter = self._uniemo.main
            add_card(folder, adapter.folder, repo_id, self._other_base(adapter))

    # -- what diffusers asks

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, Any]:
        """`model_index.json` without its naming of code, in whose place diffusers then takes this class."""
        content = super()._dict_from_json_file(json_file)
        if isinstance(content.get("_class_name"), list):
            content["_class_name"] = content["_class_name"][1]
        return content

    @classmethod
    def load_config(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As diffusers' own, with the fusion model's class that this one was imported with.

        Raises:
            ValueError: the fusion model is a pickle.
        """
        with advice(pretrained_model_name_or_path):
            loaded = super().load_config(pretrained_model_name_or_path, *args, **kwargs)
        content = loaded[0] if isinstance(loaded, tuple) else loaded
        if (content.get("fusion") or [None])[0] is not None:
            content["fusion"] = [UniEmoFusionModel.__module__, UniEmoFusionModel.__name__]
            _refuse_pickled(Path(pretrained_model_name_or_path, "fusion"))
        return loaded

    def save_config(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """As diffusers' own, which `save_pretrained` calls last, with the code and the understanding model."""
        folder = Path(save_directory)
        for name in self.components:
            _forget_place(folder / name / "config.json")
        write_code(type(self), folder)
        if self.fusion is not None:
            shutil.copyfile(_file_of(UniEmoFusionModel), folder / "fusion" / _file_of(UniEmoFusionModel).name)
        if self._understands:
            self._uniemo.main.save_understanding(folder / UNDERSTANDING)
        super().save_config(save_directory, push_to_hub, **kwargs)

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """`model_index.json` as a repository has it, its code named as lying in it."""
        path = Path(json_file_path)
        content = json.loads(self.to_json_string())
        content["_class_name"] = [ENTRY, _own_class(type(self)).__name__]
        if self.fusion is not None:
            content["fusion"] = [_file_of(UniEmoFusionModel).stem, UniEmoFusionModel.__name__]
        content["understanding"] = None
        if self._understands:
            content |= _understanding_entries(path.parent)
        content.pop("_name_or_path", None)
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @property
    def _draws_from_text(self) -> bool:
        """Whether a prompt is enough, as the code on cards has it."""
        return "image" not in inspect.signature(type(self).__call__).parameters

    @property
    def _understands(self) -> bool:
        return bool(self._uniemo.adapters) and self._uniemo.main.understands


def write_adapter_repository(
    directory: str | os.PathLike[str],
    adapter: LoadedAdapter,
    pipeline: type[DiffusionPipeline],
    base_model: str | None = None,
) -> None:
    """Write an adapter's file with a pipeline's code beside it, for `load_uniemo` and `custom_pipeline`.

    Args:
        directory: the folder.
        adapter: an understanding model of this machine is written beside the file; one on the Hub keeps its name.
        pipeline: the class for `custom_pipeline`.
        base_model: name of the base that the adapter was trained on.
    """
    folder = Path(directory)
    understanding = adapter.chain or adapter.understanding
    if adapter.is_understood_here:
        understanding = folder / UNDERSTANDING
        adapter.save_understanding(understanding)
    write_adapter(folder / ADAPTER_NAME, adapter.fusion, base_model, understanding)
    if adapter.folder is not None and (adapter.folder / LORA_WEIGHT_NAME_SAFE).is_file():  # trained with it
        shutil.copyfile(adapter.folder / LORA_WEIGHT_NAME_SAFE, folder / LORA_WEIGHT_NAME_SAFE)
    write_code(pipeline, folder)


def write_code(pipeline: type[DiffusionPipeline], folder: Path) -> None:
    """Write `pipeline.py`, and the modules that it needs as they are."""
    own = _own_class(pipeline)
    files = [_file_of(own)]
    for file in files:  # which grow on the way
        siblings = (file.with_name(f"{name}.py") for name in _SIBLING.findall(file.read_text(encoding="utf-8")))
        files += dict.fromkeys(sibling for sibling in siblings if sibling not in files)
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / file.name)
    text = _entry_text(own.__name__, files[0].stem, sorted(file.stem for file in files[1:]))
    (folder / f"{ENTRY}.py").write_text(text, encoding="utf-8")


def _entry_text(name: str, module: str, siblings: list[str]) -> str:
    lines = [
        '"""What diffusers runs of this repository, with `trust_remote_code=True` or as `custom_pipeline`."""\n',
        "from typing import TYPE_CHECKING\n",
        f"from .{module} import {name}\n",
        "if TYPE_CHECKING:  # never run: of a folder diffusers takes no other modules than those that this file names",
        *(f"    from .{sibling} import __doc__" for sibling in siblings),
    ]
    return "\n".join(lines) + "\n"


def _forget_place(config: Path) -> None:
    """Where a component lay before, which diffusers writes, is often on this machine, and nobody else's matter."""
    if not config.is_file():
        return
    content = json.loads(config.read_text(encoding="utf-8"))
    if content.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _own_class(pipeline: type) -> type:
    """The nearest class of ours, for a user's own subclass is not the repository's matter."""
    return next(kind for kind in pipeline.__mro__ if kind.__module__.rpartition(".")[0] == _PACKAGE)


def _file_of(kind: type) -> Path:
    return Path(sys.modules[kind.__module__].__file__)


def _refuse_pickled(fusion: Path) -> None:
    """Said here, for diffusers would look for pickles of the other components too, and miss those instead."""
    files = [file.name for file in fusion.glob("*")]
    if not any(name.endswith(".safetensors") for name in files):
        refuse_pickles(files, SAFETENSORS_WEIGHTS_NAME, fusion)


def _understanding_entries(folder: Path) -> dict[str, Any]:
    """Where the understanding model is, and that a pipeline's download leaves it there."""
    files = sorted(f"{UNDERSTANDING}/{file.name}" for file in (folder / UNDERSTANDING).iterdir())
    return {"understanding": UNDERSTANDING, "_ignore_files": files}


def _create(repo_id: str, private: bool | None, token: str | None) -> str:
    """A repository's full name; made if there is none."""
    if "." in repo_id:
        logger.warning(f"diffusers cannot run the code of a repository with a dot in its name: '{repo_id}'.")
    with advice(repo_id):
        return HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True).repo_id


def _publish(
    directory: str | os.PathLike[str],
    repo_id: str,
    token: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    subfolder: str | None = None,
) -> CommitInfo:
    """Upload a folder, with the README.md that is in it; all that is published from Python goes through here."""
    with advice(repo_id):
        return HfApi(token=token).upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            path_in_repo=subfolder,
            commit_message=commit_message or "Upload UniEmo",
            create_pr=create_pr,
        )
