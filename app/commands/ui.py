"""sds3d ui: says what is missing before it begins."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Option

from ..arguments import folder_of


def ui(
    host: Annotated[str, Option(help="address to listen at; any but this machine's own needs --auth")] = "127.0.0.1",
    port: Annotated[int, Option(min=1, max=65535)] = 7860,
    out: Annotated[Path, Option(metavar="DIR", help="where runs are kept")] = Path("outputs"),
    auth: Annotated[str | None, Option(metavar="NAME:PASSWORD", help="what a browser has to say first")] = None,
    workers: Annotated[int | None, Option(min=1, max=64, help="runs at once; one for each GPU if not given")] = None,
    queue: Annotated[int, Option(min=1, max=1000, help="runs that may wait or be under way")] = 16,
    files: Annotated[
        Path | None,
        Option(metavar="DIR", help="visitors may name files below it, such as pictures and models; else none"),
    ] = None,
    name: Annotated[list[str] | None, Option("--name", help="further host names that the server goes by")] = None,
    root_path: Annotated[str, Option(metavar="PATH", help="where a proxy puts the page, as in /sds3d")] = "",
) -> None:
    """Open a web page to make, watch and compare runs."""
    from sds3d.errors import ConfigError

    if find_spec("gradio") is None:
        raise ConfigError("the web page needs Gradio, which is not installed", hint='pip install "sds3d[ui]"')
    if files is not None and not files.is_dir():
        raise ConfigError(f"--files {files} is not a folder")
    from ..ui.run_index import RunIndex
    from ..ui.server import serve

    serve(RunIndex(folder_of(out) or out, queue, files), host, port, auth, workers, name or [], root_path)
