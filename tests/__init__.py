"""The tests. Those of a module are in the file with its name."""

import os

# One thread for each process, set before torch is imported. Otherwise a forked training would wait for ever for OpenMP
# threads, which only its parent has.
os.environ["OMP_NUM_THREADS"] = "1"
