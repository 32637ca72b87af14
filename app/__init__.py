"""The command line of sds3d, installed as the package sds3d_app; it does nothing that the library cannot do."""

import os

# Before torch is loaded, for this process and those that it starts. In each step of the optimization OpenMP's threads
# wait for each other some hundred times. Spinning, they take the cores from what they wait for as soon as anything else
# runs, such as a browser with the page: beside four busy processes on two cores, a forward of the prior took 1053 ms
# and 375 where they sleep. Where nothing else runs that costs up to a fifth (benchmarks/busy_machine.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
