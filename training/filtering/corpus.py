"""Generated images with what they were meant to show, as training.generate leaves them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uniemo_pipelines.attributes import normalise
from uniemo_pipelines.fusion_uniemo import EMOTIONS

from ..data.pictures import FilePicture
from ..data.rows import NO_LABEL, Vocabulary
from ..generated import MANIFEST, SETTINGS, Settings, read_manifest


@dataclass(frozen=True, slots=True)
class GeneratedPicture:
    """One image of a corpus.

    Attributes:
        corpus: the corpus' folder; `image` is the file in it.
        label: the target emotion in EmoSet's order.
        seed: of the image's own generator.
        scene, object: what it was meant to show, as numbers of the vocabulary; NO_LABEL for nothing.
    """

    corpus: str
    image: str
    label: int
    seed: int
    scene: int
    object: int

    @property
    def picture(self) -> FilePicture:
        """Its handle."""
        return FilePicture(str(Path(self.corpus, self.image)))


@dataclass(frozen=True)
class Corpus:
    """All images of one or several folders.

    Attributes:
        pictures: folder by folder.
        adapter_digest: of the one adapter that drew them.
        emotion_heads: digests of the emotion heads that it was trained to please, as the folders name them: one, or
            none where they do not know.
    """

    pictures: list[GeneratedPicture]
    adapter_digest: str
    emotion_heads: frozenset[str]


def read_corpora(folders: Sequence[str], vocabulary: Vocabulary) -> Corpus:
    """The images that the manifests list, folder by folder.

    Args:
        folders: of training.generate, whole ones.
        vocabulary: of the real data; a name outside of it counts as none.

    Raises:
        FileNotFoundError: a folder without its settings or its manifest.
        ValueError: folders of different adapters, a line of another form, an unknown emotion, fewer lines than images
            were asked for, or images that are not there.
    """
    settings = {folder: Settings.read(Path(folder)) for folder in folders}
    first, *others = folders
    digest = settings[first].adapter_digest
    for folder in others:
        if (found := settings[folder].adapter_digest) != digest:
            raise ValueError(
                f"{folder}: expected images of the adapter that drew {first} ({digest}), found {found}; filter the "
                "corpora one by one, each with a model that suits its adapter."
            )
    pictures = [picture for folder in folders for picture in _read_manifest(folder, settings[folder], vocabulary)]
    _check_files(pictures)
    heads = frozenset(one.emotion_head for one in settings.values() if one.emotion_head is not None)
    return Corpus(pictures, digest, heads)


def _read_manifest(folder: str, settings: Settings, vocabulary: Vocabulary) -> list[GeneratedPicture]:
    path = Path(folder, MANIFEST)
    try:
        images = read_manifest(Path(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected lines as training.generate writes them, found others ({error}).") from None
    if unknown := {one.emotion for one in images} - set(EMOTIONS):
        raise ValueError(f"{path}: unknown emotion {min(unknown)!r}; expected one of {', '.join(EMOTIONS)}.")
    if len(images) != (asked := settings.images * len(EMOTIONS)):
        raise ValueError(
            f"{path}: expected {asked} images, as {SETTINGS} says, found {len(images)}; repeat training.generate with "
            "the same arguments, which finishes it."
        )
    scenes, objects = ({name: i for i, name in enumerate(names)} for names in (vocabulary.scenes, vocabulary.objects))
    return [
        GeneratedPicture(
            corpus=folder,
            image=one.image,
            label=EMOTIONS.index(one.emotion),
            seed=one.seed,
            scene=scenes.get(normalise(one.scene or ""), NO_LABEL),
            object=objects.get(normalise(one.object or ""), NO_LABEL),
        )
        for one in images
    ]


def _check_files(pictures: Sequence[GeneratedPicture]) -> None:
    lost = [one.picture.path for one in pictures if not Path(one.picture.path).is_file()]
    if lost:
        raise ValueError(
            f"The manifest lists {len(pictures)} images, of which {len(lost)} are not there, for example {lost[0]}; "
            "repeat training.generate with the same arguments, which draws them again."
        )
