"""Run a module with few file descriptors: `python -m tests.bench.few_descriptors NUMBER MODULE ARGUMENT…`."""

import os
import resource
import sys

if __name__ == "__main__":
    number = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
