"""The data side of training: pictures with an emotion, and with the scene and objects that they show.

`open_split` reads EmoSet as it is downloaded, a folder of pictures for each emotion, and data sets of the Hub. It
gives rows through a sample function, which turns a row, its picture's handle and a random source into tensors.
"""

from .arguments import DataArguments, SourceArguments
from .dataset import EmotionDataset, EmotionStream
from .mixing import with_generated
from .opening import open_split, open_vocabulary, read_rows
from .pictures import BrokenPictureError, OpenedPicture, Picture
from .rows import NO_LABEL, Row, Vocabulary
from .sampler import EpochSampler
from .statistics import ALPHAS, attribute_statistics, coefficient_tables
from .transforms import EvaluationTransform, PictureSample, SampleFunction, TrainingTransform

__all__ = [
    "ALPHAS",
    "NO_LABEL",
    "BrokenPictureError",
    "DataArguments",
    "EmotionDataset",
    "EmotionStream",
    "EpochSampler",
    "EvaluationTransform",
    "OpenedPicture",
    "Picture",
    "PictureSample",
    "Row",
    "SampleFunction",
    "SourceArguments",
    "TrainingTransform",
    "Vocabulary",
    "attribute_statistics",
    "coefficient_tables",
    "open_split",
    "open_vocabulary",
    "read_rows",
    "with_generated",
]
