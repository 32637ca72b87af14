"""Writes the list of messages in docs/troubleshooting.md, from the code that says them: `python
docs/make_troubleshooting.py`. What stands above the list is written by hand, and stays."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_name("troubleshooting.md")
BEGIN = "<!-- from here on written by docs/make_troubleshooting.py -->\n"

# What says something to a person: the errors of sds3d/errors.py, a wrong option (Typer), a refusal of the web page.
BASE = "Sds3dError"
MORE_KINDS = {"BadParameter", "PlainTextResponse"}

FEWEST_LETTERS = 5  # of its own; others pass on the words of an error below them

# What somebody was doing, by the beginning of the file's name; the first that fits counts.
CHAPTERS = {
    "Choosing options": (
        *("sds3d/config/", "sds3d/prompts", "app/arguments", "sds3d/guidance/", "app/commands/compare"),
        *("app/commands/priors", "sds3d/training/take_over", "sds3d/scenes/mesh.py"),
    ),
    "Making room: memory, devices, kernels, the disk": (
        *("sds3d/training/memory", "sds3d/ops/extension", "sds3d/atomic", "sds3d/priors/hub/loading"),
    ),
    "Choosing a model": ("sds3d/priors/",),
    "Giving it pictures": ("sds3d/picture_files", "sds3d/reference_image"),
    "Giving it meshes": ("sds3d/mesh_files/", "sds3d/scenes/file_mesh", "sds3d/ops/remesh", "app/commands/texture"),
    "Lists, batches and workers": ("sds3d/jobs/", "sds3d/text_files", "app/commands/batch", "app/workers/"),
    "While a run is under way": ("sds3d/training/",),
    "Going on with a run, finding it again": ("sds3d/run/checkpoint", "sds3d/run/folder"),
    "Exporting": ("sds3d/export/", "sds3d/run/", "app/commands/export", "app/commands/generate"),
    "Comparing and scoring": ("sds3d/evaluation/", "sds3d/sweeps/", "app/commands/evaluate"),
    "Using the web page": ("app/ui/", "app/commands/ui"),
}

# What to do about messages that do not say so themselves, by words that are in them and in no other.
ADVICE = {
    "a name and password are needed": "those of `sds3d ui --auth NAME:PASSWORD`",
    "it has no sides to rank it by": "leave `--best-of` out: flat images are compared by eye",
    "do not go together; leave one out": "as it says",
    "--auth is not NAME:PASSWORD": "as in `--auth ada:correct-horse`",
    "cannot read a CLIP model": "give a folder that transformers' `CLIPModel.save_pretrained` has written",
    "is no folder of a CLIP model": "give a folder that transformers' `CLIPModel.save_pretrained` has written",
    "cannot read the training state": "begin the training of the prior again, in another folder",
    "cannot write": "see [the disk](#the-disk)",
    "choose a run first": "click one in the history",
    "… is not allowed: …": "the message names the values that are",
    "torch sees … CUDA devices": "see [the graphics card](#the-graphics-card), or say `--device auto`",
    "faces name vertices": "the arrays do not belong together: look at where the faces are from",
    "is not a folder": "make it, or name another one",
    "further options: … is not KEY=VALUE": "one option a line, as in `cameras.views=8`",
    "goes with … only": "add the option that it names, or leave both out",
    "bytes: not …": "it is too large to be what it is taken for: is it the right file?",
    "not an object with the run's options": 'it begins with `{`, as in `{"steps": 800}`; a `config.json` is one',
    "it has no views to score": "flat images have no scores: `sds3d render` shows them",
    "holds no prompt": "write at least one line that is neither empty nor a comment",
    "its checksum is not the one": "the disk or a copy damaged it; `sds3d resume` goes on from the checkpoint before",
    "is damaged: not a JSON object": "the disk or a copy damaged it; `sds3d resume` goes on from the checkpoint before",
    "is damaged or of another version": "the disk or a copy damaged it, or a newer sds3d wrote it",
    "is damaged: stage": "the disk or a copy damaged it; `sds3d resume` goes on from the checkpoint before",
    "is damaged: …": "the disk or a copy damaged it; `sds3d resume` goes on from the checkpoint before",
    "no job …": "it was deleted, or is in another folder",
    "stages[…]: …": "the rest says what is wrong in that stage",
    "is damaged, or no …": "open it in the program that made it, and save it again",
    "is not a run folder": "name the folder that holds `config.json` and `resolved.json`, as `outputs/a-red-mug-0`",
    "say a name, or an object with a name": 'as in `prior=analytic` or `{"name": "analytic", "size": 64}`',
    "is not an option of this run": "`sds3d generate ... --print-config` lists the options",
    "is not KEY=VALUE; put quotes": 'as in `sds3d generate "a red mug" --set cameras.views=8`',
    "is not valid JSON: …": "the message has the line; a comma too many is the usual mistake",
    "is not valid YAML": "the message has line and column; a tab or a missing space after `:` is the usual mistake",
    "line …: not valid JSON": "a `.jsonl` list has one whole JSON value a line",
    "is set, but … is not compared": "name that guidance in `--guidance`, or leave the option out",
    "is set by an option of its own": "keep one of the two",
    "is set twice": "keep one of the two",
    "no guidance is named": "as in `--guidance sds,csd`",
    "no guidance or no scene is named": "as in `--guidance sds --scene gaussians`",
    "vertices are not finite": "remove or repair them in the program that made the mesh",
    "options are nested at most": "options are nested two or three deep, as `--print-config --json` prints them",
    "orders are taken from this server's own": "see [a page that cannot be reached](#a-page-that-cannot-be-reached)",
    "has pixels of the object that are no numbers": "a depth map has a number wherever the object is; make it anew",
    "size needs a number above 0": "one edge length for each vertex of the mesh",
    "say either RUN folders or --suite NAME": "as in `sds3d evaluate outputs/a-red-mug-0`",
    "cannot be read: …": "the file is not for you to read, or its disk does not answer",
    "changes go with the command change": 'as in `{"command": "change", "changes": {"prompt": "a blue mug"}}`',
    "is being run by another thread": "wait for it, or send its session a Stop",
    "it is too late: the run is removed": "deleting can be undone for ten seconds",
    "is of no kind that is read here": "pictures, meshes (glb, gltf, obj, ply, stl) and LoRA files (safetensors) are",
    "and here are many results": "as in `--out outputs/many`",
    "is no name of a file that sds3d writes": "the message names the formats",
    "sds3d writes no …, but": "the message names the formats that there are",
    "say what it is, such as": "give the words after the mesh",
    "is not I/N with I from 1 to N": "as in `--shard 2/8`",
    "is not KEY=VALUE,VALUE,...": "as in `--vary seed=0,1,2`",
    "the checkpoint does not fit this configuration": "put its `resolved.json` back as it was, or start anew",
    "the export took longer than": "run `sds3d export` on the command line, or choose fewer faces",
    "has ended: it is": "retry it, or start another one",
    "the mesh has no faces": "give a mesh with triangles",
    "the mesh is empty": "more steps, or another seed",
    "the mesh is only": "more steps, or another seed",
    "the mesh has coordinates or colours that are not finite": "resume from an earlier checkpoint",
    "the scene has no closed surface": "more steps, or another seed",
    "no view of the scene is even half opaque": "more steps, another seed, or a lower `loss_weights.sparsity`",
    "the page does not make such calls": "reload the page: it is older than the server",
    "tells no sides apart": "leave `--best-of` out, or use a prior that reads view words",
    "does not say how long it is": "a program asks in chunks: let it send Content-Length",
    "the request is too large": "6 MB are the most",
    "the run … is gone": "somebody has deleted it",
    "to go back to": "start the run again with lower learning rates",
    "going back … times did not help": "lower the learning rates or the guidance scale, or try another seed",
    "there is no file": "check the name; a relative one counts from the folder you are in",
    "there is no such address": "open the page at the address that the server printed",
    "there is no such file": "it was not made, or somebody has deleted it",
    "there is no such run": "it was deleted, or the server was started with another `--out`",
    "it cannot be changed from here": "stop it where it was started (Ctrl-C saves it)",
    "sds3d resume goes on with it": "run that on the machine of the server",
    "this server has another name": "see [a page that cannot be reached](#a-page-that-cannot-be-reached)",
    "too many pages are open": "close some; each page holds a connection",
    "too many wrong passwords": "five minutes after the first of them",
    "needs a prior that reads words such as": "leave `view_prompting.mode` out, or choose such a prior",
    "was deleted at this moment": "nothing is lost that was there a moment ago but the run itself",
    "cannot be unpacked": "the node's sds3d is of another version, or its disk is full",
    "cannot read …: …": "the file is gone, or not for you to read",
    "choose one of the formats": "the list on the page has them",
    "preset … is unknown": "the message names the nearest one: draft, default, fine, mesh",
    "recipe … is unknown": "`sds3d recipes` lists them",
    "is not an option": "the message names the nearest one; `--print-config` lists all",
    "name = … is unknown": "the message names those that there are",
    "is not a loss of the scene": "the message names the nearest one",
    "is no surface that can move": "the message says where; repair it in a mesh program, or use `sds3d texture`",
    "CUDA_VISIBLE_DEVICES": "see [the graphics card](#the-graphics-card)",
    "torch can use none of them": "see [the graphics card](#the-graphics-card)",
    "moves the run's stages past": "give the steps that the message names",
    "is missing": "say it: the message names the option",
}


@dataclass
class Message:
    """What a person reads; … stands for what differs from case to case."""

    text: str
    hint: str
    file: str = field(compare=False)

    @property
    def advice(self) -> str:
        """What to do about it."""
        found = [advice for words, advice in ADVICE.items() if words in self.text]
        return self.hint if re.search("[a-z]{2}", self.hint) else found[0] if found else ""


def kinds() -> set[str]:
    """Names of the classes of errors that people read."""
    classes = [
        node
        for path in (ROOT / "sds3d").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    found, size = {BASE}, 0
    while len(found) > size:
        size = len(found)
        found |= {node.name for node in classes if any(ast.unparse(base) in found for base in node.bases)}
    return found | MORE_KINDS


def messages() -> list[Message]:
    """All of them, but for those that only pass on another's words."""
    found: dict[tuple[str, str], Message] = {}
    names = kinds()
    for folder in ("sds3d", "app"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for message in _in_file(path, names):
                found.setdefault((message.text, message.hint), message)
    return sorted(found.values(), key=lambda message: _sorted_by(message.text))


def _in_file(path: Path, names: set[str]) -> Iterator[Message]:
    module = ast.parse(path.read_text("utf-8"))
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for call in ast.walk(module):
        if not isinstance(call, ast.Call) or not call.args or ast.unparse(call.func).rpartition(".")[2] not in names:
            continue
        inside = [node for node in functions if node.lineno <= call.lineno <= (node.end_lineno or 0)]
        scopes: list[ast.AST] = [*reversed(inside), module]
        hint = next((word.value for word in call.keywords if word.arg == "hint"), None)
        if hint is None and len(call.args) > 1 and ast.unparse(call.func) not in MORE_KINDS:
            hint = call.args[1]
        hints = ["", *_texts(hint, scopes)] if hint is not None else [""]
        hints = [re.sub("…+", "…", text) for text in hints]
        for text in _texts(call.args[0], scopes):
            if len(re.findall(r"[A-Za-z]", text)) >= FEWEST_LETTERS:
                yield Message(re.sub("…+", "…", text), max(hints, key=len), path.relative_to(ROOT).as_posix())


def _texts(node: ast.expr, scopes: list[ast.AST], seen: frozenset[str] = frozenset()) -> list[str]:
    """What an expression may say, with … for what is not known here."""
    found = ["…"]
    match node:
        case ast.Constant(value=str(text)):
            found = [text]
        case ast.FormattedValue():
            found = _texts(node.value, scopes, seen)
        case ast.JoinedStr():
            found = [""]
            for part in (_texts(value, scopes, seen) for value in node.values):
                found = [text + end for text in found for end in (part if len(part) <= 2 else ["…"])]
        case ast.BinOp(op=ast.Add()):
            found = [a + b for a in _texts(node.left, scopes, seen) for b in _texts(node.right, scopes, seen)]
        case ast.IfExp():
            found = _texts(node.body, scopes, seen) + _texts(node.orelse, scopes, seen)
        case ast.BoolOp():
            found = [text for value in node.values for text in _texts(value, scopes, seen)]
        case ast.Name():
            found = ["…"] if node.id in seen else _texts_of_name(node.id, scopes, seen | {node.id})
    is_known = all(text.strip("… ") for text in found) or not isinstance(node, ast.BoolOp | ast.Name)
    return found if is_known else ["…"]


def _texts_of_name(name: str, scopes: list[ast.AST], seen: frozenset[str]) -> list[str]:
    """What is assigned to it in the innermost scope where anything is; a parameter may be anything."""
    for number, scope in enumerate(scopes):
        assigned = [node for node in ast.walk(scope) if isinstance(node, ast.Assign)]
        values = [node.value for node in assigned if name in map(ast.unparse, node.targets)]
        parameters = [node.arg for node in ast.walk(scope) if isinstance(node, ast.arg)]
        if values and name not in parameters:
            return [text for value in values for text in _texts(value, scopes[number:], seen)]
        if name in parameters and not isinstance(scope, ast.Module):
            break
    return ["…"]


def _sorted_by(text: str) -> str:
    return re.sub(r"[^a-z0-9 ]", "", text.lower().replace("…", "")).strip()


def chapter_of(message: Message) -> str:
    """The chapter of the file that says it."""
    fitting = [name for name, files in CHAPTERS.items() if message.file.startswith(files)]
    assert fitting, f"no chapter for {message.file}: add it to CHAPTERS"
    return fitting[0]


def table() -> str:
    """The generated part of the page."""
    chapters: dict[str, list[str]] = {name: [] for name in CHAPTERS}
    for message in messages():
        cells = [cell.replace("|", "\\|").replace("<", "&lt;") for cell in (message.text, message.advice)]
        chapters[chapter_of(message)].append(f"| {cells[0]} | {cells[1]} |")
    parts = [f"### {name}\n\n| it says | what to do |\n| --- | --- |\n" + "\n".join(r) for name, r in chapters.items()]
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """The whole page, with what is written by hand as it is there."""
    return PAGE.read_text("utf-8").partition(BEGIN)[0] + BEGIN + "\n" + table()


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
