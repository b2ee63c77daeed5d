"""Networks over pictures, once: what they say is kept, a chunk of pictures at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import BaseImageProcessor, CLIPImageProcessorPil

from .data import EvaluationTransform, Picture
from .files import save_shared

CHUNK = 512
"""Pictures between two files: what a run that is stopped loses at the most."""

OUTPUT = "output"
Load = Callable[[Picture], Tensor]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Square:
    """The middle of a picture as (3, edge, edge) uint8, scaled with antialiasing.

    Real and generated pictures go the same way before any network sees them, for resampling alone moves distances
    (Parmar et al. 2022).
    """

    edge: int

    def __call__(self, picture: Picture) -> Tensor:
        """The pixels of a picture."""
        image = ImageOps.fit(picture.open(2 * self.edge), (self.edge, self.edge), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass(frozen=True)
class Seen:
    """What a model sees of a picture: as in training, or as another model's own processor has it."""

    processor: BaseImageProcessor

    def __call__(self, picture: Picture) -> Tensor:
        """The pixels of a picture, (3, height, width)."""
        if isinstance(self.processor, CLIPImageProcessorPil):
            return EvaluationTransform(self.processor)(picture, None)
        return self.processor(images=picture.open(), return_tensors="pt").pixel_values[0]


@dataclass(frozen=True)
class Pixels(Dataset):
    """What a network sees of each picture."""

    pictures: Sequence[Picture]
    load: Load

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.load(self.pictures[index])


@dataclass(frozen=True)
class Observer:
    """Runs networks over pictures.

    Attributes:
        folder: where outputs are kept. A file's name has a digest of the network's weights, settings and
            configuration, of the pictures' stamps and of how they are loaded, so that nothing else is taken for it.
        batch_size: pictures at once.
        workers: processes that read pictures.
        device: that the pixels go to, where the networks are; accelerate's if none is given.
    """

    folder: Path
    batch_size: int = 50
    workers: int = 0
    device: torch.device | None = None

    def observe(
        self, pictures: Sequence[Picture], load: Load, networks: Mapping[str, nn.Module], description: str
    ) -> dict[str, Outputs]:
        """What `parts` yields, joined: tensors (N, ...) of all N pictures."""
        return _joined(list(self.parts(pictures, load, networks, description)))

    def parts(
        self, pictures: Sequence[Picture], load: Load, networks: Mapping[str, nn.Module], description: str
    ) -> Iterator[dict[str, Outputs]]:
        """By network, what it says of each chunk of pictures: tensors by name, a lone one as "output", on the CPU.

        Args:
            pictures: any number.
            load: what all of these networks see of a picture; its repr says how.
            networks: by name.
            description: of the progress bar.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        digests = {name: digest_of_network(network) for name, network in networks.items()}
        with tqdm(total=len(pictures), desc=description, unit="picture") as progress:
            for chunk in (pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK)):
                seen = "\n".join([repr(load), *(picture.stamp for picture in chunk)])
                paths = {name: self.folder / f"{_digest(digests[name], seen)}.safetensors" for name in networks}
                lacking = {name: network for name, network in networks.items() if not paths[name].is_file()}
                for name, outputs in self._run(chunk, load, lacking, progress).items():
                    save_shared(paths[name], outputs)
                yield {name: load_file(path) for name, path in paths.items()}

    @torch.no_grad()
    def _run(
        self, pictures: Sequence[Picture], load: Load, networks: Mapping[str, nn.Module], progress: tqdm
    ) -> dict[str, Outputs]:
        if not networks:
            progress.update(len(pictures))
            return {}
        device = self.device or PartialState().device
        found = []
        for pixels in DataLoader(Pixels(pictures, load), self.batch_size, num_workers=self.workers):
            found.append({name: _named(network(pixels.to(device))) for name, network in networks.items()})
            progress.update(len(pixels))
        return _joined(found)


def digest_of_network(network: nn.Module) -> str:
    """Of its class, its `settings` where it has some, and its weights."""
    digest = blake2b(f"{type(network).__name__} {getattr(network, 'settings', '')}".encode(), digest_size=8)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest(*texts: str) -> str:
    return blake2b("\n".join(texts).encode(), digest_size=12).hexdigest()


def _named(said: Tensor | Outputs) -> Outputs:
    said = {OUTPUT: said} if isinstance(said, Tensor) else said
    return {key: value.cpu() for key, value in said.items()}


def _joined(parts: Sequence[dict[str, Outputs]]) -> dict[str, Outputs]:
    return {
        name: {key: torch.cat([part[name][key] for part in parts]).contiguous() for key in outputs}
        for name, outputs in parts[0].items()
    }
