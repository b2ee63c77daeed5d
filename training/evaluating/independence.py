"""Who judges must not have trained what is judged, which shows where a network has the generator's emotion head."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from uniemo_pipelines.modeling_uniemo import UniEmoUnderstandingModel

from ..emotion_heads import head_of
from ..generated import SETTINGS
from ..runs import read_json


def refuse_own_judges(networks: Iterable[nn.Module], folders: Iterable[str]) -> None:
    """Make sure that no network is the understanding model that a generator was trained with.

    Told are those of folders whose generation.json names an emotion head; that another network took no part in
    training, tuning or filtering, only whoever did that can know.

    Args:
        networks: who looks at the images.
        folders: of generated images.

    Raises:
        ValueError: one of them has a generator's head; a generation.json that is broken.
    """
    models = (part for network in networks for part in network.modules() if isinstance(part, UniEmoUnderstandingModel))
    own = {head_of(model.state_dict()) for model in models}
    for folder in folders:
        if (found := _head_of_generator(Path(folder))) is not None and found in own:
            raise ValueError(
                f"{folder}: expected judges that its generator was not trained with, found its own emotion head, "
                f"{found}; name other networks as --classifier and --attributes."
            )


def _head_of_generator(folder: Path) -> str | None:
    """None where nobody knows, and of images that were drawn without an adapter."""
    path = folder / SETTINGS
    try:
        return read_json(path).get("emotion_head") if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path}: expected settings as training.generate writes them, found {error}.") from None
