"""Draws docs/architecture.svg, who imports whom, from the imports themselves: `python docs/make_architecture.py`.

A room is a folder or flat module of sds3d/ and stands above all that it imports. An arrow that follows from others is
left out: training imports types, but so does run, which it imports too.
"""

import runpy
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).with_name("architecture.svg")

# Room: its column (0 is the left, 3 the right), its colour and what it is for.
GREY, BLUE, GREEN, YELLOW, RED = "#eceff3", "#dce9fb", "#dff3e2", "#fdf1cf", "#fbe0dc"
ROOMS = {
    "app": (1.5, RED, "command line, web page, workers"),
    "evaluation": (2.6, YELLOW, "scores against true objects"),
    "jobs": (0.6, YELLOW, "the queue, its worker, batches"),
    "sweeps": (2.3, YELLOW, "several runs: compare, best of N"),
    "training": (1.5, YELLOW, "Session, the loop, recovery"),
    "run": (1.5, YELLOW, "a run on disk: RunFolder, events"),
    "config": (1.5, YELLOW, "RunConfig, resolve, presets"),
    "export": (0.6, GREEN, "scene to mesh, splats, pictures"),
    "metrics": (0.75, GREY, "PSNR, IoU, Janus"),
    "guidance": (2.6, BLUE, "SDS, VSD, CFD, ... one file each"),
    "prompts": (1.5, BLUE, "words to embeddings, by view"),
    "priors": (2.55, BLUE, "frozen 2D diffusion models"),
    "scenes": (0.35, GREEN, "splats, radiance field, image"),
    "mesh_files": (0.9, GREEN, "meshes that people have"),
    "reference_image": (2.15, BLUE, "a picture to match"),
    "cameras": (1.8, GREEN, "orbits, rays"),
    "ops": (0.0, GREEN, "compiled ops and references"),
    "atomic": (3.3, GREY, "files whole or absent"),
    "text_files": (5.2, GREY, "lists that people wrote"),
    "picture_files": (4.25, GREY, "pictures that people have"),
    "options": (1.1, GREY, "base of all options"),
    "types": (2.2, GREY, "Cameras, RenderOutput, ..."),
    "errors": (3.3, GREY, "what a person can mend"),
    "cuda_ext": (0.0, GREEN, "kernels: C++ and CUDA"),
}
COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT, MARGIN = 205, 68, 190, 42, 14


def imports() -> dict[str, set[str]]:
    """What each room imports, without the arrows that follow from others."""
    layering = runpy.run_path(str(ROOT / "tests" / "test_layering.py"))
    part_of, rank = layering["part_of"], layering["rank"]
    below: dict[str, set[str]] = {room: set() for room in ROOMS}
    for _, _, module, imported in layering["arrows"](layering["LIBRARY"] + layering["APP"]):
        here, there = part_of(module), part_of(imported)
        is_ours = imported.split(".")[0] in ("sds3d", "sds3d_app")
        if is_ours and "__init__" not in (here, there) and here != there and rank(there) <= rank(here):
            below[here].add(there)
    below["ops"].add("cuda_ext")
    return {
        here: {room for room in rooms if not any(room in reached(other, below) for other in rooms - {room})}
        for here, rooms in below.items()
    }


def reached(room: str, below: dict[str, set[str]]) -> set[str]:
    """Every room that the room imports, directly or through others."""
    return below[room].union(*(reached(other, below) for other in below[room]))


def draw() -> str:
    """The SVG."""
    below = imports()

    def height(room: str) -> int:
        return 1 + max((height(other) for other in below[room]), default=-1)

    top = max(height(room) for room in ROOMS)
    place = {room: (MARGIN + x * COLUMN, MARGIN + (top - height(room)) * ROW) for room, (x, _, _) in ROOMS.items()}
    wide, high = (
        MARGIN * 2 + max(x for x, _, _ in ROOMS.values()) * COLUMN + BOX_WIDTH,
        MARGIN * 2 + top * ROW + BOX_HEIGHT,
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}" '
        'font-family="sans-serif" font-size="12">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#667"/></marker></defs>',
        f'<rect width="{wide:g}" height="{high:g}" fill="white"/>',
    ]
    for here, others in below.items():
        for there in sorted(others):
            (x1, y1), (x2, y2) = place[here], place[there]
            x1, x2, y1 = x1 + BOX_WIDTH / 2, x2 + BOX_WIDTH / 2, y1 + BOX_HEIGHT
            bend = min(40.0, (y2 - y1) / 2) if y2 - y1 < ROW else (y2 - y1) / 2
            lines.append(
                f'<path d="M{x1:g} {y1:g} C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2 - 1:g}" '
                'fill="none" stroke="#667" marker-end="url(#arrow)"/>'
            )
    for room, (_, color, caption) in ROOMS.items():
        x, y = place[room]
        lines += [
            f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
            f'fill="{color}" stroke="#99a"/>',
            f'<text x="{x + BOX_WIDTH / 2:g}" y="{y + 18:g}" text-anchor="middle" font-size="15" '
            f'font-weight="bold" fill="#112">{room}</text>',
            f'<text x="{x + BOX_WIDTH / 2:g}" y="{y + 34:g}" text-anchor="middle" fill="#334">{escape(caption)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
