"""What networks find in pictures, kept on disk chunk by chunk: a filter with other thresholds need not look again."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import CLIPImageProcessorPil

from uniemo_pipelines.understanding_uniemo import pixel_values

from ..data.pictures import Picture
from ..files import save_shared

CHUNK = 1024
"""Pictures between two files: what a run that is stopped loses at the most."""

Compute = Callable[[Sequence[Picture]], dict[str, Tensor]]


class Pixels(Dataset):
    """Pictures as a model sees them, (3, height, width) each."""

    def __init__(self, pictures: Sequence[Picture], processor: CLIPImageProcessorPil) -> None:
        self.pictures, self.processor = pictures, processor

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        edge = self.processor.size.get("shortest_edge") if self.processor.do_resize else None
        return pixel_values(self.processor, self.pictures[index].open(None if edge is None else 2 * edge))[0]


def batches(
    pictures: Sequence[Picture], processor: CLIPImageProcessorPil, batch_size: int, num_workers: int
) -> DataLoader:
    """Pixels (B, 3, height, width) of all pictures, in order."""
    return DataLoader(Pixels(pictures, processor), batch_size, num_workers=num_workers)


def digest_of_weights(*models: nn.Module) -> str:
    """What changes when a weight does."""
    digest = sha256()
    for model in models:
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def kept_chunks(
    pictures: Sequence[Picture], compute: Compute, key: str, folder: Path, description: str
) -> Iterator[dict[str, Tensor]]:
    """What `compute` finds, chunk by chunk in order; computed and kept where the folder does not have it.

    Args:
        pictures: any number.
        compute: tensors by name, a row a picture.
        key: what decides the numbers beside the pictures' stamps: weights and settings.
        folder: where the files are kept, for any number of corpora and models.
        description: of the progress bar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for start in tqdm(range(0, len(pictures), CHUNK), description, unit="chunk"):
        chunk = pictures[start : start + CHUNK]
        stamps = "\n".join([key, *(picture.stamp for picture in chunk)])
        path = folder / f"{sha256(stamps.encode()).hexdigest()[:16]}.safetensors"
        if not path.exists():
            save_shared(path, compute(chunk))
        yield load_file(path)
