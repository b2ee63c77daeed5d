"""Which commands a reproduction runs; a task's name is its folder in the output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..make_mini import CARRIED_JUDGES, JUDGES
from ..tasks import Task, script
from .rows import TABLES

WIDE_HEAD = 4568
"""Hidden units of a plain head that has as many parameters as queries, blocks and head together."""

DEVELOPMENT_JUDGE, FINAL_JUDGE = (CARRIED_JUDGES / f"{name}.safetensors" for name in JUDGES)
"""The first one also reports what is wrong among the images that a filter keeps, and is the oracle."""

REAL_IMAGES = {"calibration": 2000, "test": 4000}

STAGE1: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("train_baseline", {}),
    "wide_head": ("train_baseline", {"classifier_hidden": WIDE_HEAD}),
    "queries": ("train_understanding", {"scene_loss_weight": 0, "object_loss_weight": 0}),
    "contrast": ("train_understanding", {}),
    "pooled": ("train_understanding", {"pooled_patches": True}),
}
STAGE2: dict[str, tuple[str, dict[str, Any]]] = {
    "joint": ("contrast", {}),
    "detached": ("contrast", {"implicit_feedback": False}),
    "one_feature": ("contrast", {"alpha": "zero"}),
    "patches": ("pooled", {}),
    "alpha_one": ("contrast", {"alpha": "one"}),
    "alpha_mean": ("contrast", {"alpha": "mean"}),
    "no_condition_loss": ("contrast", {"condition_weight": 0, "triplet_weight": 0}),
    "released_condition_loss": ("contrast", {"condition_weight": 1e-3, "triplet_weight": 1e-6}),
}
"""By row, the stage-1 row that it goes on from, and what is changed."""

SAMPLED: dict[str, tuple[str, dict[str, Any]]] = {
    **{row: (row, {}) for row in STAGE2 if row != "joint"},
    "complete": ("joint", {}),
    "low_rank": ("joint", {"emotion_space": "low_rank"}),
    "gaussian": ("joint", {"emotion_space": "gaussian"}),
    "mean": ("joint", {"variation": 0.0}),
    "complete, variation 0.5": ("joint", {"variation": 0.5}),
    "complete, guidance 4": ("joint", {"guidance": 4.0}),
}
"""By set of images, the stage-2 row whose adapter draws it, and how."""

PROMPTED: dict[str, dict[str, Any]] = {
    "words": {"prompts": "words"},
    "captions": {"prompts": "captions"},
    "captions, guidance 4": {"prompts": "captions", "guidance": 4.0},
}
"""By set of images, how the stock Stable Diffusion draws it."""

ALL = ["faithful", "clear", "manifold", "diverse"]
KEPT: dict[str, dict[str, Any]] = {
    "filtered": {},
    "undiverse": {"skip": ["diverse"]},
    "random": {"skip": ALL},
    "oracle": {"oracle": True, "skip": ["clear", "manifold", "diverse"]},
}
"""By arm of the feedback table, what the filter asks of generated images; the others are "none" and "real"."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything, fixed before anything is measured.

    Attributes:
        split, judge: what the tables are measured on and who judges; the final ones for the full size alone.
        understanding_seeds, generation_seeds, feedback_seeds: of the three tables.
        understanding, sets, arms: their rows.
        labels: of the first two tables; `feedback_labels` of the third.
        stage1_steps, stage2_steps, inversion_steps: of the trainings.
        half_steps, generator_steps: of stages 1 and 2 on half of the labels, for feedback.
        more_steps: by number of labels, of every arm of the feedback table beyond `stage1_steps`: an epoch at least.
        images: of each emotion in a set.
        candidates, keep: of each emotion, before and after a filter.
    """

    split: str
    judge: Path
    understanding_seeds: int
    generation_seeds: int
    feedback_seeds: int
    understanding: Sequence[str]
    sets: Sequence[str]
    arms: Sequence[str]
    labels: int
    feedback_labels: Sequence[int]
    stage1_steps: int
    half_steps: int
    stage2_steps: int
    generator_steps: int
    inversion_steps: int
    more_steps: Mapping[int, int]
    images: int
    candidates: int
    keep: int

    def seeds(self, table: str) -> int:
        """How many a table has."""
        return getattr(self, f"{table}_seeds")


SIZES = {
    "small": Size(
        split="calibration",
        judge=DEVELOPMENT_JUDGE,
        understanding_seeds=2,
        generation_seeds=2,
        feedback_seeds=2,
        understanding=("baseline", "queries", "contrast", "joint", "detached", "more_steps", "feedback"),
        sets=("words", "captions", "detached", "complete", "mean"),
        arms=("none", "random", "filtered"),
        labels=800,
        feedback_labels=(800,),
        stage1_steps=100,
        half_steps=60,
        stage2_steps=120,
        generator_steps=100,
        inversion_steps=0,
        more_steps={800: 50},
        images=25,
        candidates=50,
        keep=20,
    ),
    "full": Size(
        split="test",
        judge=FINAL_JUDGE,
        understanding_seeds=8,
        generation_seeds=5,
        feedback_seeds=3,
        understanding=(
            *("baseline", "wide_head", "queries", "contrast", "joint", "detached", "more_steps", "feedback"),
        ),
        sets=(*PROMPTED, "textual_inversion", *SAMPLED),
        arms=("none", *KEPT, "real"),
        labels=800,
        feedback_labels=(400, 800, 1600, 3200),
        stage1_steps=200,
        half_steps=100,
        stage2_steps=400,
        generator_steps=300,
        inversion_steps=400,
        more_steps={400: 60, 800: 60, 1600: 60, 3200: 110},
        images=50,
        candidates=100,
        keep=30,
    ),
}


@dataclass(frozen=True)
class Plan:
    """The tasks of a size, and what they leave for the tables.

    Args:
        size: how much.
        config: YAML file with the settings of every script.
        output: folder of everything but the CLIP that it starts from, which is in `runs/mini`.
        tables: which ones; what they do not need is left out.
        bf16: train stage 1 and draw images in bfloat16.
    """

    size: Size
    config: str
    output: Path
    tables: Sequence[str] = TABLES
    bf16: bool = False
    _tasks: dict[str, Task] = field(default_factory=dict, init=False)

    def tasks(self) -> list[Task]:
        """In an order in which they could run one by one."""
        self._tasks.clear()
        self._data()
        models = self._understanding() if "understanding" in self.tables else {}
        models |= self._feedback() if "feedback" in self.tables else {}
        sets = self._generation() if "generation" in self.tables else {}
        before = list(self._tasks)
        for name, folders in models.items():
            self._measure(name, before, models=[self._place(one) for one in folders])
        for name, folders in sets.items():
            self._measure(name, before, generated=[self._place(one) for one in folders], **self._judges())
        return list(self._tasks.values())

    def measured(self, name: str) -> Path:
        """The figures of a row: "understanding/joint", "generation/words" or "feedback/800/none"."""
        return self.output / "measured" / name / "evaluation.json"

    # -- what all stand on

    def _data(self) -> None:
        size = self.size
        labels = max(size.labels, *size.feedback_labels) + 8 * size.keep
        sizes = {"train": labels} | REAL_IMAGES
        flags = [flag for split, count in sizes.items() for flag in (f"--{split}", str(count))]
        command = ("training.make_miniemoset", "--output", self._place("data"), *flags)
        self._add("data", command)
        self._add("half_clip", ("training.reproducing.half_clip",))

    def _judges(self) -> dict[str, Any]:
        reader = f"reader:{self.size.judge}"
        return {"classifier": reader, "attributes": reader, "extractors": reader}

    # -- trainings

    def _stage1(self, name: str, row: str, seed: int, needs: Sequence[str] = (), **flags: Any) -> str:
        module, changed = STAGE1[row]
        shared = {"output_dir": self._place(name), "max_steps": self.size.stage1_steps, "seed": seed}
        command = self._script(module, **(shared | {"bf16": self.bf16 or None} | changed | flags))
        return self._add(name, command, "data", "half_clip", *needs)

    def _stage2(self, name: str, model: str, steps: int, seed: int, labels: int, **changed: Any) -> str:
        command = self._script(
            "train_joint",
            understanding=self._place(model),
            output_dir=self._place(name),
            latents=self._place(f"{name}/latents"),
            max_steps=steps,
            subset=labels,
            seed=seed,
            **changed,
        )
        return self._add(name, command, model)

    def _trained(self, row: str, seed: int) -> str:
        """A row's model of one seed; the task is added when it is first asked for."""
        name, labels = f"trained/{row}-{seed}", self.size.labels
        if name in self._tasks:
            return name
        if row in STAGE1:
            return self._stage1(name, row, seed, subset=labels)
        before, changed = STAGE2[row]
        return self._stage2(name, self._trained(before, seed), self.size.stage2_steps, seed, labels, **changed)

    # -- the tables' rows

    def _understanding(self) -> dict[str, list[str]]:
        """The folders of models by what they are measured as."""
        size, found = self.size, {}
        arms = {"more_steps": "none", "feedback": "filtered"}
        for row in size.understanding:
            seeds = range(size.understanding_seeds)
            if row in arms:
                folders = [self._arm(size.labels, seed, arms[row]) for seed in seeds]
            else:
                trained = [self._trained(row, seed) for seed in seeds]
                folders = [f"{one}/understanding" if row in STAGE2 else one for one in trained]
            found[f"understanding/{row}"] = folders
        return found

    def _feedback(self) -> dict[str, list[str]]:
        return {
            f"feedback/{labels}/{arm}": [self._arm(labels, seed, arm) for seed in range(self.size.feedback_seeds)]
            for labels in self.size.feedback_labels
            for arm in self.size.arms
        }

    def _generation(self) -> dict[str, list[str]]:
        seeds = range(self.size.generation_seeds)
        return {f"generation/{row}": [self._set(row, seed) for seed in seeds] for row in self.size.sets}

    def _set(self, row: str, seed: int) -> str:
        name = f"sets/{row.replace(', ', '-').replace(' ', '_')}-{seed}"
        shared = {"output": self._place(name), "images": self.size.images, "seed": seed}
        if row in PROMPTED:
            return self._add(name, self._script("generate_prompted", **shared, **PROMPTED[row]))
        if row == "textual_inversion":
            inversion = self._inversion(seed)
            asked = {"prompts": "embeddings", "embeddings": self._place(inversion)}
            return self._add(name, self._script("generate_prompted", **shared, **asked), inversion)
        trained, changed = SAMPLED[row]
        adapter = self._trained(trained, seed)
        return self._add(name, self._script("generate", adapter=self._place(adapter), **shared, **changed), adapter)

    def _inversion(self, seed: int) -> str:
        name = f"trained/textual_inversion-{seed}"
        command = self._script(
            "train_textual_inversion",
            output_dir=self._place(name),
            latents=self._place(f"{name}/latents"),
            max_steps=self.size.inversion_steps,
            subset=self.size.labels,
            seed=seed,
        )
        return self._add(name, command, "data")

    # -- explicit feedback

    def _arm(self, labels: int, seed: int, arm: str) -> str:
        """A model that has learnt `more_steps` longer, from what this arm of the feedback table adds to its labels."""
        size, cell = self.size, f"feedback/{labels}-{seed}"
        name = f"{cell}/{arm}"
        if name in self._tasks:
            return name
        start = self._trained("contrast", seed) if labels == size.labels else self._start(cell, labels, seed)
        flags = {"max_steps": size.more_steps[labels], "subset": labels, "start": self._place(start)}
        if arm == "none":
            return self._stage1(name, "contrast", seed, [start], **flags)
        kept = self._kept(cell, labels, seed, arm)
        return self._stage1(name, "contrast", seed, [start, kept], generated=self._place(kept), **flags)

    def _start(self, cell: str, labels: int, seed: int) -> str:
        name = f"{cell}/start"
        return name if name in self._tasks else self._stage1(name, "contrast", seed, subset=labels)

    def _kept(self, cell: str, labels: int, seed: int, arm: str) -> str:
        """An arm's images, what its filter leaves of the corpus or real ones: as many as the whole filter leaves."""
        corpus, judge = self._corpus(cell, labels, seed)
        like = self._kept(cell, labels, seed, "filtered") if arm != "filtered" else None
        name = f"{cell}/kept-{arm}"
        if name in self._tasks:
            return name
        if arm == "real":
            return self._add(name, self._more_real(name, like, labels, seed), "data", like)
        command = self._script(
            "filter_generated",
            corpora=self._place(corpus),
            models=self._place(judge),
            output=self._place(name),
            features=self._place("features"),
            keep=self.size.keep,
            as_many_as=like and self._place(like),
            judge=DEVELOPMENT_JUDGE,
            subset=labels,
            seed=seed,
            **KEPT[arm],
        )
        return self._add(name, command, corpus, judge, *([like] if like else []))

    def _more_real(self, name: str, like: str, labels: int, seed: int) -> tuple[str, ...]:
        places = ("--data", self._place("data"), "--as_many_as", self._place(like), "--output", self._place(name))
        numbers = {"subset": labels, "pool": labels + 8 * self.size.keep, "seed": seed}
        flags = [flag for name, number in numbers.items() for flag in (f"--{name}", str(number))]
        return ("training.reproducing.more_real", *places, *flags)

    def _corpus(self, cell: str, labels: int, seed: int) -> tuple[str, str]:
        """A corpus whose generator has seen one half of the labels, and the model of the other half, which filters."""
        models, corpus = [f"{cell}/model-{half}" for half in (0, 1)], f"{cell}/corpus"
        if corpus not in self._tasks:
            for half, name in enumerate(models):
                self._stage1(name, "contrast", seed, subset=labels, half=half, max_steps=self.size.half_steps)
            generator = self._stage2(f"{cell}/generator", models[0], self.size.generator_steps, seed, labels, half=0)
            adapter, shown = self._place(generator), {"images": self.size.candidates, "seed": 100 + seed}
            command = self._script("generate", adapter=adapter, output=self._place(corpus), **shown)
            self._add(corpus, command, generator)
        return corpus, models[1]

    # -- measuring

    def _measure(self, name: str, before: Sequence[str], **what: Any) -> None:
        """When all is trained and drawn: of nothing that is still to be made may the judge have been asked."""
        place = str(self.measured(name).parent)
        shared = {"split": self.size.split, "output": place, "observed": self._place("observed")}
        self._add(f"measured/{name}", self._script("evaluate", **shared, **what), *before)

    # -- tasks

    def _script(self, module: str, **flags: Any) -> tuple[str, ...]:
        if module.startswith("generate"):
            flags["dtype"] = "bfloat16" if self.bf16 else "float32"
        else:
            flags["data"] = self._place("data")
        return script(module, self.config, **flags)

    def _place(self, name: str) -> str:
        return str(self.output / name)

    def _add(self, name: str, command: Sequence[str], *needs: str) -> str:
        if name not in self._tasks:
            self._tasks[name] = Task(name, tuple(command), tuple(dict.fromkeys(needs)))
        return name
