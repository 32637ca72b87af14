"""One table and one JSON file from what benchmarks/gpu.sh collected: test counts and benchmark rows.

python benchmarks/gpu_table.py FOLDER --json FILE     FOLDER holds tests.xml and one <benchmark>.json each
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import torch

ON_GPU = {"cuda", "gsplat", "nerfacc"}


def test_counts(report: Path) -> dict[str, int]:
    """Passed, failed and skipped tests of a junit file; empty where there is none."""
    if not report.is_file():
        return {}
    suite = next(ElementTree.parse(report).iter("testsuite"))
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def said(*command: str) -> str | None:
    """What a program prints; none where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, object]:
    """GPU, driver, torch and the commit that was measured."""
    driver = said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    commit = said("git", "rev-parse", "HEAD")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"gpu": gpu, "driver": driver, "torch": torch.__version__, "cuda": torch.version.cuda, "commit": commit}


def line(benchmark: str, row: dict) -> str:
    """A row whatever its columns: text as it is, numbers short, nothing for what is missing."""
    cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values() if value is not None]
    return f"{benchmark:>11} " + " ".join(f"{cell:>9}" for cell in cells)


def main() -> None:
    """Print the rows that ran on the GPU, and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    benchmarks = {path.stem: json.loads(path.read_text()) for path in sorted(args.folder.glob("*.json"))}
    report = {"machine": machine(), "tests": test_counts(args.folder / "tests.xml"), "benchmarks": benchmarks}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    print("tests: " + (", ".join(f"{count} {key}" for key, count in report["tests"].items()) or "not run"))
    for name, found in benchmarks.items():
        rows = [row for row in found["rows"] if row.get("contestant") in ON_GPU]
        for index, row in enumerate(rows):
            if index == 0:
                print(f"{'benchmark':>11} " + " ".join(f"{key[:9]:>9}" for key, v in row.items() if v is not None))
            print(line(name, row))
    print(f"written to {args.json}")


if __name__ == "__main__":
    main()
