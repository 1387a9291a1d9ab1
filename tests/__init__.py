"""The tests; those of a module are in the file of its name."""

import os

# One thread a process, set before torch is imported. Trainings that a test forks would otherwise wait for ever for the
# OpenMP threads that their parent has and they have not.
os.environ["OMP_NUM_THREADS"] = "1"
