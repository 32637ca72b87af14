"""`python app/blender/pack.py FOLDER`: the extension as a zip that Blender installs, with the client inside."""

import re
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "sds3d" / "client" / "__init__.py"
FILES = ("__init__.py", "scene.py", "work.py", "blender_manifest.toml", "LICENSE")


def pack(folder: Path) -> Path:
    """The path of the zip."""
    about = dict(re.findall(r'^(\w+) = "(.+)"$', (HERE / "blender_manifest.toml").read_text(), re.MULTILINE))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{about['id']}-blender-{about['version']}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in FILES:
            file.write(HERE / name, name)
        file.write(CLIENT, "sds3d_client.py")
    return path


if __name__ == "__main__":
    print(pack(Path(sys.argv[1])))
