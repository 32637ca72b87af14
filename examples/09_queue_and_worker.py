"""9. Many runs: a queue on disk, and workers that take from it. Any number of processes may do both at once."""

from sds3d import load_config
from sds3d.jobs import Queue, Worker

queue = Queue("outputs/queue")
for prompt in ("a red ball", "a blue ball"):
    job = queue.add(load_config(preset="draft", overrides={"prompt": prompt, "prior": "analytic"}))
    print("queued", job.name)

for job, event in Worker(queue).run():  # the page and `sds3d batch` do the same, in processes of their own
    if type(event).__name__ == "Finished":
        print("done", job.name, "->", job.run.path)
print(queue.counts())
