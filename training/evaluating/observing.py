"""Networks over pictures, once: what they say is kept, a chunk of pictures at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data import Picture, Row
from ..files import save_shared

CHUNK = 512
OUTPUT = "output"
Load = Callable[[Picture], Tensor]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Pixels(Dataset):
    """What a network sees of each picture."""

    rows: Sequence[Row]
    load: Load

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.load(self.rows[index].picture)


@dataclass(frozen=True)
class Observer:
    """Runs networks over pictures.

    Attributes:
        folder: where outputs are kept. A file's name has a digest of the network's weights, settings and
            configuration, of the pictures' stamps and of how they are loaded, so that nothing else is taken for it.
        batch_size: pictures at once.
        workers: processes that read pictures.
    """

    folder: Path
    batch_size: int = 50
    workers: int = 0

    def observe(
        self, rows: Sequence[Row], load: Load, networks: Mapping[str, nn.Module], description: str
    ) -> dict[str, Outputs]:
        """By network, what it says of every picture: its tensors by name, a lone one as "output", (N, ...) on the CPU.

        Args:
            rows: the pictures.
            load: what all of these networks see of a picture; its repr says how.
            networks: by name.
            description: of the progress bar.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        digests = {name: digest_of_network(network) for name, network in networks.items()}
        parts: dict[str, list[Outputs]] = {name: [] for name in networks}
        with tqdm(total=len(rows), desc=description, unit="picture") as progress:
            for chunk in (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)):
                pictures = "\n".join([repr(load), *(row.picture.stamp for row in chunk)])
                paths = {n: self.folder / f"{_digest(digests[n], pictures)}.safetensors" for n in networks}
                lacking = {name: network for name, network in networks.items() if not paths[name].is_file()}
                for name, outputs in self._run(chunk, load, lacking, progress).items():
                    save_shared(paths[name], outputs)
                for name, path in paths.items():
                    parts[name].append(load_file(path))
        return {name: _joined(found) for name, found in parts.items()}

    @torch.no_grad()
    def _run(
        self, rows: Sequence[Row], load: Load, networks: Mapping[str, nn.Module], progress: tqdm
    ) -> dict[str, Outputs]:
        if not networks:
            progress.update(len(rows))
            return {}
        device = PartialState().device
        found: dict[str, list[Outputs]] = {name: [] for name in networks}
        for pixels in DataLoader(Pixels(rows, load), self.batch_size, num_workers=self.workers):
            for name, network in networks.items():
                said = network(pixels.to(device))
                said = {OUTPUT: said} if isinstance(said, Tensor) else said
                found[name].append({key: value.float().cpu() for key, value in said.items()})
            progress.update(len(pixels))
        return {name: _joined(parts) for name, parts in found.items()}


def digest_of_network(network: nn.Module) -> str:
    """Of its class, its `settings` where it has some, and its weights."""
    digest = blake2b(f"{type(network).__name__} {getattr(network, 'settings', '')}".encode(), digest_size=8)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest(*texts: str) -> str:
    return blake2b("\n".join(texts).encode(), digest_size=12).hexdigest()


def _joined(parts: Sequence[Outputs]) -> Outputs:
    return {key: torch.cat([part[key] for part in parts]).contiguous() for key in parts[0]}
