"""What holds for all tests."""

import os

# Weights lie in a file wherever its header ends, in memory at a multiple of 64 bytes, and on some processors (AMD with
# AVX2) MKL rounds otherwise by where they lie. Tests that ask for equality to the bit mean the weights.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
