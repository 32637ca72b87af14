"""The command line of sds3d, installed as the package sds3d_app; it does nothing that the library cannot do."""

import os

# Before torch is loaded, for this process and those that it starts. In each step of the optimization OpenMP's threads
# wait for each other some hundred times. Spinning, they take the cores from what they wait for as soon as anything else
# runs, such as a browser with the page: a forward of the prior took 1.5 to 20 times as long. Asleep, it takes 0 to 20%
# longer on a machine with nothing else to do (benchmarks/busy_machine.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
