"""Minutes and memory of the filter once networks have looked at the images: reduction, distances, selection.

    python -m benchmarks.filtering
    python -m benchmarks.filtering --candidates 100000 --threads 1

Features are drawn from a seed in chunks, as the filter reads them from disk: clusters in a few directions among noise
in all of them. Probabilities are such that every image is faithful and clear, which leaves the most for the costly
criteria.
"""

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator

import faiss
import numpy as np

from training.data.rows import NO_LABEL
from training.filtering.candidates import Candidates, Limits
from training.filtering.manifold import distance_to_real, percentile
from training.filtering.neighbours import Neighbours, Reduction, nearest_other
from training.filtering.sieve import Sieve
from training.filtering.sifting import ask_clear, ask_diverse, ask_faithful, ask_manifold, ask_unseen
from uniemo_pipelines.fusion_uniemo import EMOTIONS

CHUNK = 1024
CLUSTERS, DIRECTIONS = 2_000, 48
SCENES, OBJECTS = 254, 409
"""As many as EmoSet has."""


class Images:
    """Features (N, F) of made-up images, the same for a seed."""

    def __init__(self, width: int) -> None:
        random = np.random.default_rng(0)
        self.centres = random.standard_normal((CLUSTERS, DIRECTIONS), np.float32)
        self.directions = random.standard_normal((DIRECTIONS, width), np.float32)

    def parts(self, count: int, seed: int) -> Iterator[np.ndarray]:
        random = np.random.default_rng(seed)
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            places = self.centres[random.integers(CLUSTERS, size=size)]
            places = places + 0.5 * random.standard_normal((size, DIRECTIONS), np.float32)
            features = places @ self.directions
            features += random.standard_normal(features.shape, np.float32)
            yield features / np.linalg.norm(features, axis=1, keepdims=True)


def candidates_of(count: int, points: np.ndarray, distance: np.ndarray, nearest_real: np.ndarray) -> Candidates:
    """Made-up readings: faithful, clear, attributes of uneven frequency."""
    random = np.random.default_rng(1)
    labels = np.arange(count) % len(EMOTIONS)
    quality = random.uniform(0.9, 1, count)
    probabilities = np.repeat((1 - quality)[:, None] / (len(EMOTIONS) - 1), len(EMOTIONS), 1)
    probabilities[np.arange(count), labels] = quality
    read = {
        kind: (random.beta(1, 3, count) * size).astype(int) for kind, size in (("scene", SCENES), ("object", OBJECTS))
    }
    return Candidates(
        labels=labels,
        probabilities=probabilities,
        intended={kind: np.full(count, NO_LABEL) for kind in read},
        read=read,
        clarity={kind: np.ones(count) for kind in read},
        points=points,
        distance=distance,
        nearest_real=nearest_real,
    )


def peak() -> float:
    """Most memory that the process has had, in GB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e9 if sys.platform == "darwin" else 1e6 / 1.024)


class Watch:
    """Prints what each step took."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        print(f"{step:<36} {now - self.last:7.1f} s   peak {peak():.2f} GB", flush=True)
        self.last = now


def main(asked: argparse.Namespace) -> None:
    faiss.omp_set_num_threads(asked.threads)
    images, watch = Images(asked.width), Watch()
    real = np.concatenate(list(images.parts(asked.real, 1)))
    reduce = Reduction(real, asked.dimensions)
    train = reduce(real)
    del real
    watch.lap("real features, PCA")
    points = reduce.all(images.parts(asked.candidates, 2))
    watch.lap("candidates' features, reduced")
    manifold = Neighbours(train)
    validation = distance_to_real(manifold, reduce.all(images.parts(asked.real // 10, 3)), asked.neighbours)
    radius = percentile(nearest_other(train), 1, "near-duplicates")
    watch.lap("limits of real images")
    distance = distance_to_real(manifold, points, asked.neighbours)
    nearest_real = manifold.search(points, 1).distances[:, 0]
    watch.lap("distances to real images")
    candidates = candidates_of(asked.candidates, points, distance, nearest_real)
    limits = Limits(
        temperature=1.0,
        probability=0.9,
        margin=0.1,
        clarity=dict.fromkeys(candidates.read, 0.5),
        distance=percentile(validation, 95, "manifold"),
        radius=radius,
        explained=reduce.explained,
    )
    counts = {kind: np.ones((len(EMOTIONS), size)) for kind, size in (("scene", SCENES), ("object", OBJECTS))}
    sieve = Sieve(candidates.labels)
    ask_faithful(sieve, candidates, limits)
    ask_clear(sieve, candidates, limits)
    ask_manifold(sieve, candidates, limits)
    ask_unseen(sieve, candidates, limits)
    watch.lap("faithful, clear, on the manifold")
    ask_diverse(sieve, candidates, limits, counts, asked.keep)
    watch.lap("diverse")
    fallen = ", ".join(f"{one.name} {sum(sieve.fallen(one)):,}" for one in sieve.asked)
    print(f"\n{asked.candidates:,} candidates of {asked.width} features, {asked.real:,} real ones; fell: {fallen}")
    print(f"kept {len(sieve.left):,}; {(time.perf_counter() - watch.start) / 60:.1f} min, peak {peak():.2f} GB")
    print(f"{platform.machine()}, {asked.threads} of {os.cpu_count()} cores, faiss {faiss.__version__}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--real", type=int, default=100_000, help="about EmoSet's training split")
    parser.add_argument("--width", type=int, default=768, help="of the features")
    parser.add_argument("--dimensions", type=int, default=64, help="that PCA leaves")
    parser.add_argument("--neighbours", type=int, default=5)
    parser.add_argument("--keep", type=int, default=5_000, help="images of each emotion")
    parser.add_argument("--threads", type=int, default=2)
    main(parser.parse_args())
