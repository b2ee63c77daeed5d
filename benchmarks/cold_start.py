"""Seconds from the shell's prompt to four images of an emotion: `uniemo generate awe`, each run a new process.

    python -m benchmarks.cold_start --runs 5

The package must be installed, for it is the console script that is timed.
"""

import argparse
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path


def cold_start(out: Path) -> float:
    """Seconds of one run.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    start = time.perf_counter()
    subprocess.run(["uniemo", "generate", "awe", "--out", str(out), "--seed", "1"], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Time several runs and print median, best and worst, with the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        seconds = [cold_start(Path(folder, "awe.png")) for _ in range(runs)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {runs} runs")
    print(f"median {statistics.median(seconds):.1f} s, best {min(seconds):.1f} s, worst {max(seconds):.1f} s")


if __name__ == "__main__":
    main()
