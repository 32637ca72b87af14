"""Switches that every command understands, wherever on the line they are said."""

import os

SWITCHES = {"--offline": "HF_HUB_OFFLINE", "--allow-pickle": "SDS3D_ALLOW_PICKLE", "--debug": "SDS3D_DEBUG"}


def take_switches(arguments: list[str]) -> list[str]:
    """What is left when the switches that every command understands are set, wherever on the line they are said.

    They are environment variables, so that workers in processes of their own go by them too.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for switch in set(arguments[:end]) & set(SWITCHES):
        os.environ[SWITCHES[switch]] = "1"
    return [word for place, word in enumerate(arguments) if place >= end or word not in SWITCHES]
