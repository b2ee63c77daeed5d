"""The command `uniemo export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from . import embedded
from .cli_shared import quiet, whole_weights

_NEW = "New or empty folder to write:"


def export(
    hub_repo: Annotated[
        Path | None, typer.Option("--hub-repo", metavar="DIR", help=f"{_NEW} a whole pipeline, with its code.")
    ] = None,
    adapter_repo: Annotated[
        Path | None, typer.Option("--adapter-repo", metavar="DIR", help=f"{_NEW} the adapter, with its code.")
    ] = None,
    understanding: Annotated[
        Path | None,
        typer.Option("--understanding", metavar="DIR", help=f"{_NEW} the image classifier, with its code."),
    ] = None,
    textual_inversion: Annotated[
        Path | None,
        typer.Option("--textual-inversion", metavar="DIR", help="Folder for awe.safetensors and the others."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For --hub-repo: Stable Diffusion folder or Hub repository, not the embedded.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="UniEmo adapter file, folder or Hub repository instead of the embedded one.")
    ] = None,
    vectors: Annotated[
        int,
        typer.Option(
            min=1, metavar="K", help="For --textual-inversion: each emotion's mean, and K - 1 of its variety."
        ),
    ] = 1,
    repo_id: Annotated[
        str | None,
        typer.Option("--repo-id", metavar="YOU/NAME", help="What it will be on the Hub, for its card; one at a time."),
    ] = None,
) -> None:
    """Export the model for the Hub, or for programs that know nothing of UniEmo; all in safetensors.

    uniemo export --hub-repo uniemo --repo-id YOU/NAME

    uniemo export --adapter-repo adapter --adapter runs/mine

    uniemo export --textual-inversion embeddings

    Each new folder has a model card. What is written is published by: hf upload YOU/NAME DIR. In diffusers, without
    this package:

    A whole pipeline is DiffusionPipeline.from_pretrained("YOU/NAME", trust_remote_code=True). An adapter is for its
    base: DiffusionPipeline.from_pretrained(BASE, custom_pipeline="YOU/NAME", trust_remote_code=True), then
    pipe.load_uniemo("YOU/NAME"). The image classifier is for transformers' Auto classes and pipeline().

    Textual inversions: load_textual_inversion("YOU/NAME", weight_name="awe.safetensors"), then <awe> in a prompt is
    the emotion's mean, which evokes it surely but draws much the same picture every time. With --vectors 8, put one of
    <awe>_1 ... <awe>_7 into each prompt, in turn or by chance: they span the emotion's variety. <awe> then means all
    eight at once, which has no more variety than the mean. They may lie beside an adapter, in the same folder.
    """
    repositories = [folder for folder in (hub_repo, adapter_repo, understanding) if folder is not None]
    if not repositories and textual_inversion is None:
        raise ValueError("name what to export: --hub-repo, --adapter-repo, --understanding or --textual-inversion.")
    if hub_repo is None and model is not None:
        raise ValueError("expected --hub-repo with --model, found none.")
    if repo_id is not None:
        _check_repository(repo_id, len({*repositories, textual_inversion} - {None}))
    _check_folders(repositories)
    quiet()
    from . import exporting

    source = adapter or embedded.existing(embedded.ADAPTER)
    if hub_repo is not None:
        base = model or embedded.existing(embedded.STABLE_DIFFUSION)
        with whole_weights(base):
            exporting.export_pipeline(hub_repo, base, source, repo_id)
    if adapter_repo is not None:
        exporting.export_adapter(adapter_repo, source, repo_id)
    if understanding is not None:
        exporting.export_understanding(understanding, source, repo_id)
    for folder in repositories:
        typer.echo(folder)
        typer.echo(_size(folder), err=True)
    if textual_inversion is not None:
        for file in exporting.export_embeddings(textual_inversion, source, vectors, repo_id):
            typer.echo(file)


def _check_repository(repo_id: str, exported: int) -> None:
    from .hub_uniemo import is_repository

    if not is_repository(repo_id):
        raise ValueError(f"expected --repo-id YOU/NAME, as it will be on the Hub, found '{repo_id}'.")
    if exported > 1:
        raise ValueError(f"expected one repository for {repo_id}, found several; export them one by one.")
    if "." in repo_id:
        typer.echo(f"note: diffusers cannot run the code of a repository with a dot in its name: {repo_id}", err=True)


def _check_folders(repositories: Sequence[Path]) -> None:
    from .folders import check_new

    if len(set(repositories)) < len(repositories):
        raise ValueError(f"expected a folder of its own for each repository, found {repositories[0]} twice.")
    for folder in repositories:
        check_new(folder)


def _size(folder: Path) -> str:
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"
