"""What the HTTP API takes and answers, as JSON."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TEXT = 4000  # characters


class Body(BaseModel):
    """Of a request: nothing is converted, and nothing unknown is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewJob(Body):
    """A run to make. `options` are those of `sds3d generate --set`, by dotted or nested keys."""

    prompt: Annotated[str, Field(max_length=TEXT, description="what to make; of a refined run, its own if empty")] = ""
    kind: Annotated[
        Literal["generate", "texture", "refine"],
        Field(description="a new object; colours for a mesh, its shape untouched; or a mesh to go on from"),
    ] = "generate"
    mesh: Annotated[str, Field(max_length=100, description="texture, refine: a file that was sent, upload:...")] = ""
    run: Annotated[str, Field(max_length=300, description="refine: a finished run, instead of a mesh")] = ""
    preset: Annotated[str | None, Field(max_length=100)] = None
    recipe: Annotated[str | None, Field(max_length=100)] = None
    options: Annotated[
        dict[str, Any], Field(max_length=500, description='such as {"seed": 3}; upload:... stands for a file')
    ] = {}


class NewCommand(Body):
    """pause: saved, and others may run. resume. finish: results from what there is. stop: no results. retry: go on
    with a job that was stopped or has failed. change: `changes` hold from the next step on."""

    command: Literal["pause", "resume", "finish", "stop", "retry", "change"]
    changes: Annotated[dict[str, Any], Field(max_length=50)] = {}


class NewFork(Body):
    """A new job from a checkpoint of a run, with `changes`: prompt, negative_prompt, guidance.guidance_scale, steps."""

    changes: Annotated[dict[str, Any], Field(max_length=50)]
    step: Annotated[int | None, Field(ge=0, description="of the checkpoint; the newest if null")] = None


class NewExport(Body):
    """One more format of a run's results, such as stl, obj, usdz, ply."""

    format: Annotated[str, Field(max_length=40)]


class JobInfo(BaseModel):
    """A run of the queue, or one of the command line in the same folder."""

    name: str
    state: Literal["new", "queued", "running", "paused", "interrupted", "stopped", "failed", "done"]
    reason: Annotated[str, Field(description="why it failed, or why its last attempt did")]
    prompt: str
    guidance: str
    added: Annotated[float, Field(description="seconds since 1970")]
    step: int
    steps: int
    exporting: Annotated[bool, Field(description="the steps are done, and the results are being made")]
    seconds_left: Annotated[float | None, Field(description="to the last step, at the pace so far")]
    ahead: Annotated[int, Field(description="jobs that are taken before it")]


class JobDetail(JobInfo):
    """With all that a person said of it, by dotted keys; of files only their names."""

    options: dict[str, Any]
    warnings: list[str]


class JobList(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobInfo]
    total: int


class FileInfo(BaseModel):
    """A result, fetched from `address` of this server."""

    name: str
    bytes: int
    address: str


class Files(BaseModel):
    files: list[FileInfo]


class ExportInfo(BaseModel):
    """What became of the format that was asked for last."""

    format: str
    state: Literal["making", "done", "failed"]
    problem: str
    files: list[FileInfo]


class Upload(BaseModel):
    """`file` is what options say for it."""

    file: str
    bytes: int


class Health(BaseModel):
    version: str
    jobs: Annotated[dict[str, int], Field(description="how many are in each state that any job is in")]


class ErrorInfo(BaseModel):
    message: str
    hint: str = ""
    field: Annotated[str, Field(description="dotted key of the option that is wrong, where it is one")] = ""


class Problem(BaseModel):
    error: ErrorInfo


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "what was sent cannot be used"},
    404: {"model": Problem, "description": "there is no such run or file"},
    409: {"model": Problem, "description": "a process works on the run"},
    422: {"model": Problem, "description": "the request is not as described"},
    503: {"model": Problem, "description": "the queue is full: try again later"},
    507: {"model": Problem, "description": "the server's disk refuses"},
}
