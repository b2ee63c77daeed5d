"""A module for tasks to run, as `python -c` runs code: `python -m run_code CODE`."""

import sys

if __name__ == "__main__":
    exec(sys.argv[1])
