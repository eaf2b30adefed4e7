"""One thread for torch in every test and in every process that a test starts: results and times stay the same."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch loads, which no test has done yet
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on another computer
