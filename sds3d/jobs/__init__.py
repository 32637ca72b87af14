"""Jobs: runs that wait in a queue for a worker; the same for batches, the web page and Ray."""

from sds3d.jobs.queue import Changes, Job, Queue, Selection, State
from sds3d.jobs.worker import Worker

__all__ = ["Changes", "Job", "Queue", "Selection", "State", "Worker"]
