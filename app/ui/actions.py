"""What the page's buttons do to a run. Whatever goes wrong is said on the page, in one line."""

from typing import Any

import gradio as gr

from sds3d.errors import Sds3dError
from sds3d.jobs.fork import fork

from . import fragments as pieces
from .export_files import make_file
from .run_index import Work, Works


def _guarded(works: Works, act: Any) -> Any:
    """`act(work, ...)` of the run of a name; its HTML, or the problem."""

    def answer(name: object, *given: object) -> str:
        work = works.find(name)
        if work is None:
            return pieces.problem("choose a run first")
        try:
            return str(act(work, *given))
        except Sds3dError as error:
            return pieces.problem(str(error))

    return answer


def tell(works: Works, order: str) -> Any:
    def act(work: Work) -> str:
        if work.job is None:
            return pieces.problem("this run was made on the command line: sds3d resume goes on with it")
        if order == "retry":
            works.ledger.retry(work.job)
        else:
            works.ledger.tell(work.job, order)  # type: ignore[arg-type]
        return ""

    return _guarded(works, act)


def make_format(works: Works) -> Any:
    def act(work: Work, file_format: object) -> str:
        name = make_file(work, file_format)
        return f'<a class="file" download href="{pieces.address(work, name)}">{pieces.text(name)}</a>'

    return _guarded(works, act)


def _changes(words: object, scale: object) -> dict[str, Any]:
    said = {"prompt": words, "guidance.guidance_scale": scale}
    return {key: value for key, value in said.items() if value not in (None, "")}


def change_run(works: Works) -> Any:
    def act(work: Work, words: object, scale: object) -> str:
        if work.job is None:
            return pieces.problem("this run was made on the command line: it cannot be changed from here")
        works.ledger.change(work.job, _changes(words, scale))
        return "from the next step on"

    return _guarded(works, act)


def fork_run(works: Works) -> Any:
    def answer(chosen: object, words: object, scale: object, steps: object) -> tuple[Any, Any, str]:
        made: list[str] = []

        def act(work: Work) -> str:
            changes = {**_changes(words, scale), **({"steps": steps} if steps is not None else {})}
            made.append(fork(works.ledger, work.run, changes).name)
            return "a new run is in the queue"

        said = _guarded(works, act)(chosen)
        name = made[0] if made else gr.skip()
        return name, name, said

    return answer


def delete_run(works: Works) -> Any:
    def act(work: Work, sure: object) -> str:
        if sure is not True:
            return pieces.problem("say that you are sure first")
        works.delete(work)
        return "removed"

    answer = _guarded(works, act)
    return lambda name, sure: (answer(name, sure), False)
