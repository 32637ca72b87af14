"""How a process gets a network of its own, in which nobody answers."""

import shutil
import subprocess

SEPARATE = ["unshare", "--map-root-user", "--net", "--"]  # not even a loopback interface that is up


def can_separate() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*SEPARATE, "true"], capture_output=True, check=False).returncode == 0


OFFLINE = SEPARATE if can_separate() else []  # before a command
