"""Streams of random numbers, one for each purpose: what one component saw, another never sees."""

from enum import IntEnum, unique


@unique
class Stream(IntEnum):
    """First key of a generator, `np.random.default_rng([stream, index])`."""

    CORPUS = 1
    READER = 2
    DEVELOPMENT_JUDGE = 3
    FINAL_JUDGE = 4
    PERCEPTUAL_NETWORK = 5
    VAE_PIXELS = 10
    VAE_DETAIL = 11
    VAE_DECODER = 12
    VAE_FINAL = 13
    DIFFUSION = 20
    CLIP = 30
    ONE_TOKEN = 40
    TRAIN = 101
    VAL = 102
    CALIBRATION = 103
    TEST = 104
    TRUE_CAPTIONS = 300
    GATES = 900
