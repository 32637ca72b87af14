"""The exceptions a person can cause or fix. A programmer's mistake is an assertion, never one of these."""


class Sds3dError(Exception):
    """Says what was asked and what was found; `hint` says what to do about it.

    `exit_code` is what the command line returns: 2 for the user's mistake, 1 for everything else.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


def first_line(error: BaseException) -> str:
    """What fits of another library's error into a message of ours; its type where it has no text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "you tried to allocate", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Of the device, or of this process: torch's own class, or what CUDA, cuBLAS, cuDNN, C++ and our operators say."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; it is not imported here
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


class ConfigError(Sds3dError):
    """A prompt, option, config key or input file that cannot be used.

    `field` is the dotted key of the option that is wrong ("guidance.guidance_scale"), where it is one.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint)
        self.field = field


class PriorUnavailable(Sds3dError):
    """The prior's weights or the packages it needs are missing, unreadable or do not fit together."""

    exit_code = 2


class CheckpointError(Sds3dError):
    """A run folder or checkpoint that is missing, incomplete or damaged."""

    exit_code = 2


class RunBusy(Sds3dError):
    """Another process works on the run; the message names it."""

    exit_code = 2


class ExtensionUnavailable(Sds3dError):
    """The compiled kernels are needed and are not there."""


class NumericsError(Sds3dError):
    """A loss, gradient or parameter stopped being finite."""


class OutOfMemory(Sds3dError):
    """A step does not fit into memory, whatever is done about it."""


class ExportError(Sds3dError):
    """The scene gives no file worth handing over, or the file could not be written."""


class OutputError(Sds3dError):
    """The output folder cannot be written: full, read-only or gone."""
