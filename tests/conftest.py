"""Settings of all tests."""

import os
import sys
from pathlib import Path

# Workers that each start a pool as wide as the machine slow one another down many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# Processes that train together are on this machine: they need no name of it that a network would know.
if sys.platform == "linux":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
# Read by torch when it is loaded, as on the command line.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# A test leaves nothing in the user's own cache; the workers of one run share what they read.
os.environ.setdefault("RECURRA_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "recurra"))

from hypothesis import settings

# A shared machine has no clock to promise; the drawn examples are the same in each run, so that red stays red.
settings.register_profile("recurra", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("recurra")
