"""Jobs: runs that wait in a folder for whoever takes them; the same for batches, the web page and several machines."""

from sds3d.jobs.queue import Job, Ledger, State, Status
from sds3d.jobs.worker import Worker

__all__ = ["Job", "Ledger", "State", "Status", "Worker"]
