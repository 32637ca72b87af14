"""5. The same words and seed by three guidance methods, side by side on one page."""

from pathlib import Path

from sds3d import load_config
from sds3d.sweeps.comparison import Comparison

folder = Path("outputs/three-methods")
configs = [
    load_config(preset="draft", overrides={"prompt": "a yellow duck", "scene": "gaussians", "guidance": name})
    for name in ("sds", "csd", "nfsd")
]
comparison = Comparison(configs, folder)
for _run, event in comparison.runs.run():
    if type(event).__name__ == "Finished":
        print(f"{event.report['parts']['guidance']}: {event.report['seconds']['total']:.0f} s")
comparison.write()
print("open", folder / "compare.html")
