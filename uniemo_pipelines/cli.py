"""The command line `uniemo`: generate, understand, convert, export, info.

Nothing heavy is imported before a command runs, so that `uniemo --help` answers at once.
"""

import json
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__, embedded
from .cli_export import export
from .cli_shared import OneLineErrors, errors, load_pipeline, load_understanding, progress, quiet

if TYPE_CHECKING:
    from PIL import Image

    from .cli_shared import Understanding
    from .pipeline_uniemo import UniEmoPipeline

STOCK_GUIDANCE = 7.5
ALL = "all"
NEAREST = 3

Emotion = str | Mapping[str, float]


app = typer.Typer(
    cls=OneLineErrors,
    help="Images that evoke an emotion, and the emotions that images evoke.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the console script."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"uniemo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def generate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="EMOTION|PROMPT",
            help="An emotion (awe), a fusion (amusement=0.6,fear=0.4), 'all' for a sheet of the eight, or a prompt, "
            "with emotion tokens such as <awe> in it or with --emotion beside it.",
        ),
    ],
    emotion: Annotated[
        list[str] | None,
        typer.Option("--emotion", "-e", help="Emotion, fusion or 'all' for a prompt. May be repeated to fuse."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture file to write.")] = Path("uniemo.png"),
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Images (of each emotion with 'all').")] = 4,
    separate: Annotated[bool, typer.Option("--separate", help="One file each: awe-1.png, awe-2.png, ...")] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Image k comes from seed + k - 1, whatever --num. Random if not given."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 25,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0, help=f"Guidance scale; {embedded.GUIDANCE:g} with the embedded model, else {STOCK_GUIDANCE:g}."
        ),
    ] = None,
    variation: Annotated[
        float, typer.Option(min=0, max=1, help="From the emotion's mean (0) to its variety (1).")
    ] = 1,
    scale: Annotated[float, typer.Option(min=0, help="Strength of the emotion; 0 leaves it out.")] = 1,
    scene_scale: Annotated[float, typer.Option(min=0, help="Strength of the emotion's scenes.")] = 1,
    object_scale: Annotated[float, typer.Option(min=0, help="Strength of the emotion's objects.")] = 1,
    negative_emotion: Annotated[str | None, typer.Option(help="Emotion or fusion to stay away from.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Stable Diffusion folder or Hub repository instead of the embedded model.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="UniEmo adapter file, folder or Hub repository instead of the embedded one.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")] = "auto",
) -> None:
    """Generate images that evoke an emotion.

    uniemo generate awe --out awe.png --seed 1

    uniemo generate all --out emotions.png

    uniemo generate "a photo of a <awe> street"

    uniemo generate "a street at dawn" --emotion amusement=0.6,fear=0.4
    """
    from . import drawing

    quiet()
    prompt, emotions = _request(what, emotion)
    files = _files(emotions, num, out, separate)
    for file in files:
        drawing.check_writable(file, "--out")
    negative = None if negative_emotion is None else _emotion(negative_emotion)
    _check_spelling(prompt, [*emotions.values(), negative])
    _note_stock(prompt, [*emotions.values(), negative])
    seed = random.randrange(2**31) if seed is None else seed
    options = {
        "num_inference_steps": steps,
        "guidance_scale": guidance if guidance is not None else STOCK_GUIDANCE if model else embedded.GUIDANCE,
        "emotion_variation": variation,
        "emotion_scale": scale,
        "scene_scale": scene_scale,
        "object_scale": object_scale,
        "negative_emotion": negative,
    }
    # A download shows its own bars, which a spinner would tear apart.
    with nullcontext() if model or adapter else errors.status("loading the model"):
        pipe = load_pipeline(model, adapter, device)
    rows = {}
    with progress(total=len(emotions) * steps) as advance:
        for name, one in emotions.items():
            advance(0, name or "generating")
            rows[name] = _images(pipe, prompt, one, range(seed, seed + num), advance, options)
    for file, picture in zip(files, _pictures(rows, separate), strict=True):
        drawing.write_image(picture, file)
        typer.echo(file)
    width, height = next(iter(rows.values()))[0].size
    errors.print(f"{num * len(rows)} images of {width}x{height}, seed {seed}", highlight=False)


@app.command()
def understand(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...|FOLDER", help="Picture files of any kind, or one folder of them.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable: a JSON list, one entry a photo.")] = False,
    explain: Annotated[
        Path | None,
        typer.Option(help="Picture to write of where the scene and the object queries look in the photo."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Table to write of a FOLDER, a row a picture: .parquet, .csv or .jsonl."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of a FOLDER that the model sees at a time.")] = 32,
    model: Annotated[
        str | None, typer.Option(help="Understanding model: folder or Hub repository, not the embedded one.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")] = "auto",
) -> None:
    """Tell which emotions photos evoke, and through which scenes and objects.

    uniemo understand photo.jpg --explain overlay.png

    uniemo understand FOLDER --out predictions.parquet

    Of a folder, every picture in it and below is read. Stopped at any moment, the same command goes on where it was.
    Pictures that cannot be read are listed at the end, and the exit code is then 1.
    """
    folder = _folder(photos, as_json, explain, out)
    if folder is not None and out is not None:
        _understand_folder(folder, out, batch_size, lambda: load_understanding(model, device))
    else:
        _understand_photos(photos, as_json, explain, lambda: load_understanding(model, device))


@app.command()
def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Files of the released code, or folders with them: one checkpoint (best.pth or VIT_query.pth); for "
            "an adapter also mapper.pth, mapper_scene.pth, mapper_object.pth, the folder UniEmo_space, and EmoGen's "
            "dataset_balance for the coefficients; EmoSet's info.json for the names of scenes and objects.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, new or empty.")],
    tokenizer: Annotated[
        str, typer.Option(help="CLIP's tokenizer, folder or Hub name; used where names of attributes are given.")
    ] = "openai/clip-vit-large-patch14",
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads of the ViT; width/64 if not given.")
    ] = None,
    activation: Annotated[str, typer.Option(help="Activation of CLIP.")] = "quick_gelu",
) -> None:
    """Convert weights of the released code: an understanding model, or with mappers an adapter.

    uniemo convert best.pth --out understanding

    uniemo convert VIT_query.pth mapper.pth mapper_scene.pth mapper_object.pth UniEmo_space dataset_balance info.json
    --out adapter

    The first is for uniemo understand --model, the second for uniemo generate --adapter. Pickles are read without
    running anything that they name.
    """
    quiet()
    from .released_files import convert_files

    for line in convert_files(files, out, tokenizer, heads, activation):
        typer.echo(line)


app.command()(export)


@app.command()
def info() -> None:
    """Show versions, and what the embedded model is made of."""
    versions = {package: metadata.version(package) for package in ("torch", "diffusers", "transformers", "peft")}
    found = "" if embedded.FOLDER.is_dir() else "missing: "
    lines = {"uniemo": __version__, **versions, "embedded model": f"{found}{embedded.FOLDER}"}
    lines |= {f"  {name}": f"{size / 1e6:5.1f} MB  {text}" for name, size, text in _components()}
    for name, text in lines.items():
        typer.echo(f"{name:<32}{text}")


def _request(what: str, emotion: list[str] | None) -> tuple[str | None, dict[str, Emotion | None]]:
    """What was asked for: the prompt, if any, and the emotions to draw by the name of their row."""
    from .fusion_uniemo import EMOTIONS

    if not what.strip():
        raise ValueError("expected an emotion or a prompt, found an empty text.")
    joined = re.sub(r"\s*([,=])\s*", r"\1", what)  # "amusement = 0.6, fear" is no prompt
    is_prompt = "<" in what or ("=" not in what and len(joined.split()) > 1)
    if emotion is None and is_prompt:
        return what, {"": None}
    prompt, text = (what, ",".join(emotion)) if emotion is not None else (None, what)
    if text.strip().lower() == ALL:
        return prompt, {name: name for name in EMOTIONS}
    return prompt, {text: _emotion(text)}


def _emotion(text: str) -> Emotion:
    """`awe` as it is; `amusement=0.6,fear=0.4` as a dict, names without a weight counting 1."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and "=" not in text:
        return parts[0]
    weights: dict[str, float] = {}
    for part in parts:
        name, equals, weight = (piece.strip() for piece in part.partition("="))
        if name in weights:
            raise ValueError(f"expected each emotion once in '{text}', found {name} twice.")
        try:
            weights[name] = float(weight) if equals else 1.0
        except ValueError:
            raise ValueError(f"expected a number after '{name}=', found '{weight}'.") from None
    return weights


def _check_spelling(prompt: str | None, emotions: list[Emotion | None]) -> None:
    """Raises ValueError for what the pipeline would refuse only after it was loaded, or would only warn of."""
    from .prompting_uniemo import emotion_weights, misspelt_tokens

    for emotion in emotions:
        if emotion is not None:
            emotion_weights(emotion)
    for found, near in misspelt_tokens(prompt or "").items():
        raise ValueError(f"expected an emotion token in the prompt, found '{found}'. Did you mean '{near}'?")


def _note_stock(prompt: str | None, emotions: list[Emotion | None]) -> None:
    """Says on stderr that no emotion was asked for, which may be a slip."""
    from .prompting_uniemo import tokens_in

    if prompt is not None and not tokens_in(prompt) and all(emotion is None for emotion in emotions):
        typer.echo("no emotion in the prompt: add <awe> or --emotion; this is the stock picture", err=True)


def _folder(photos: Sequence[Path], as_json: bool, explain: Path | None, out: Path | None) -> Path | None:
    """The folder that was asked for, or None for photos.

    Raises:
        ValueError: options that do not go together with it, or with photos.
    """
    folders = [photo for photo in photos if photo.is_dir()]
    if not folders:
        if out is not None:
            raise ValueError(f"expected a folder with --out, found {photos[0]}; for photos take --json.")
        return None
    if len(photos) > 1:
        raise ValueError(f"expected photos, or one folder and nothing beside it, found {len(photos)} names.")
    if out is None:
        raise ValueError(f"{folders[0]} is a folder: name the table to write, as in --out predictions.parquet.")
    if as_json or explain is not None:
        option = "--json" if as_json else "--explain"
        raise ValueError(f"expected photos with {option}, found the folder {folders[0]}, which has --out alone.")
    return folders[0]


def _understand_photos(
    photos: Sequence[Path], as_json: bool, explain: Path | None, load: "Callable[[], Understanding]"
) -> None:
    from . import understanding_report as report
    from .images_uniemo import open_image

    overlays = report.overlay_files(explain, photos)
    for photo in photos:  # all of them, before the slow part
        open_image(photo)
    quiet()
    from .understanding_uniemo import understand_images

    network, processor = load()
    results = []
    for photo, overlay in zip(photos, overlays, strict=True):
        [result] = understand_images(network, processor, photo, NEAREST, attention_maps=explain is not None)
        results.append(report.plain_values(photo, result))
        if not as_json:
            report.print_result(results[-1])
        if overlay is not None:
            report.write_overlay(photo, result, processor, overlay)
    if as_json:
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))


def _understand_folder(folder: Path, out: Path, batch_size: int, load: "Callable[[], Understanding]") -> None:
    from . import drawing, prediction_table

    drawing.check_writable(out, "--out", prediction_table.SUFFIXES)
    prediction_table.check_parquet(out)
    quiet()
    from . import folder_prediction as prediction

    files = prediction.find_pictures(folder)
    if not files:
        raise ValueError(f"{folder}: expected pictures in it or below, found none.")
    network, processor = load()
    about = {
        "model": prediction.fingerprint(network, processor),
        "version": __version__,
        "folder": str(folder.resolve()),
    }
    table = prediction_table.PredictionTable(out, about, prediction.columns(network))
    left = [file for file in files if file not in table.done]
    before, bad = len(table.done), []
    start = time.perf_counter()
    with progress(len(files), len(files) - len(left)) as advance:
        for batch in prediction.predict(network, processor, folder, left, batch_size):
            table.add(batch.rows)
            bad += batch.bad
            rate = (len(table.done) - before + len(bad)) / (time.perf_counter() - start)
            advance(len(batch.rows) + len(batch.bad), f"{rate:.1f} images/s, {len(bad)} skipped")
    seconds = time.perf_counter() - start
    table.finish()
    typer.echo(out)
    now = len(table.done) - before
    earlier = f", {before} in an earlier run" if before else ""
    errors.print(f"{now} images{earlier}; {now / seconds:.1f} images/s", highlight=False)
    if bad:
        typer.echo("\n".join([f"{len(bad)} skipped:", *(f"  {reason}" for reason in bad)]), err=True)
        raise typer.Exit(1)


def _images(
    pipe: "UniEmoPipeline",
    prompt: str | None,
    emotion: Emotion | None,
    seeds: range,
    advance: Callable[[int], None],
    options: dict[str, Any],
) -> list["Image.Image"]:
    """One image a seed."""
    import torch

    def on_step_end(_pipe: object, _step: int, _timestep: object, kwargs: dict[str, Any]) -> dict[str, Any]:
        advance(1)
        return kwargs

    return pipe(
        prompt,
        emotion=emotion,
        num_images_per_prompt=len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU: the same on any device
        callback_on_step_end=on_step_end,
        **options,
    ).images


def _files(names: Collection[str], num: int, out: Path, separate: bool) -> list[Path]:
    """The files to write, in the order of `_pictures`, for `num` images in each of the named rows."""
    from . import drawing

    if not separate:
        return [out]
    bases = [drawing.numbered(out, name) for name in names] if len(names) > 1 else [out]
    return [drawing.numbered(base, index) for base in bases for index in range(1, num + 1)]


def _pictures(rows: dict[str, list["Image.Image"]], separate: bool) -> list["Image.Image"]:
    """The pictures to write: one grid or labelled sheet, or each image."""
    from . import drawing

    if separate:
        return [image for images in rows.values() for image in images]
    return [drawing.grid(next(iter(rows.values()))) if len(rows) == 1 else drawing.sheet(rows)]


def _components() -> Iterator[tuple[str, int, str]]:
    """Name, bytes and a few words on each part of the embedded model that is there."""
    words: dict[str, Callable[[dict[str, Any]], str]] = {
        "stable-diffusion/unet": lambda c: f"channels {c['block_out_channels']}, latents {c['sample_size']} px",
        "stable-diffusion/vae": lambda c: f"channels {c['block_out_channels']}",
        "stable-diffusion/text_encoder": lambda c: f"width {c['hidden_size']}, {c['num_hidden_layers']} layers",
        "understanding": lambda c: (
            f"ViT width {c['vision_config']['hidden_size']}, {c['vision_config']['num_hidden_layers']} layers, "
            f"{c['num_scene_queries']} + {c['num_object_queries']} queries, "
            f"{len(c['scenes'])} scenes, {len(c['objects'])} objects"
        ),
    }
    for name, describe in words.items():
        folder = embedded.FOLDER / name
        if (folder / "config.json").is_file():
            size = sum(file.stat().st_size for file in folder.iterdir())
            yield name, size, describe(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if embedded.ADAPTER.is_file():
        yield embedded.ADAPTER.name, embedded.ADAPTER.stat().st_size, "mappers, attribute bases, emotion space"
