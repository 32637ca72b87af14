"""sds3d in Blender: objects and textures from words, made by a server of sds3d (`sds3d ui`), here or elsewhere."""

import atexit
import contextlib
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import bpy
import bpy.utils.previews
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from . import scene
from .sds3d_client import Client, Job, Problem
from .work import Status, Work

TICK = 0.25  # seconds between looks at the work
LINE = 38  # characters of the panel
PREVIEW = "preview"


class State:
    """What lives as long as the add-on is enabled."""

    work: Work | None = None
    said = Status()  # when there is no work
    server: subprocess.Popen[bytes] | None = None  # that this Blender has started
    pictures: "bpy.utils.previews.ImagePreviewCollection | None" = None
    recipes: tuple[tuple[str, str, str], ...] = (("NONE", "None", "the default run"),)


class Preferences(bpy.types.AddonPreferences):
    """Edit > Preferences > Add-ons > sds3d."""

    bl_idname = __package__

    server: StringProperty(name="Server", default="http://127.0.0.1:7860")
    user: StringProperty(name="Name", description="where the server has a password")
    password: StringProperty(name="Password", subtype="PASSWORD")
    command: StringProperty(
        name="sds3d", description="the program, to start a server on this machine", default="sds3d", subtype="FILE_PATH"
    )

    def draw(self, context: bpy.types.Context) -> None:
        for name in ("server", "user", "password", "command"):
            self.layout.prop(self, name)


class Settings(bpy.types.PropertyGroup):
    """Of a .blend file."""

    prompt: StringProperty(name="Words", description="what to make, or how it should look")
    recipe: EnumProperty(name="Recipe", items=lambda self, context: State.recipes)
    seed: IntProperty(name="Seed", min=0)
    size: FloatProperty(name="Size", description="longest side", default=1.0, min=1e-4, max=1e6, unit="LENGTH")
    steps: IntProperty(name="Steps", description="0: as many as usual", min=0, max=1_000_000)
    further: StringProperty(name="Options", description="such as guidance.guidance_scale=6 cameras.views=8")
    show_more: BoolProperty(name="More")


def connect(context: bpy.types.Context) -> Client:
    """The server that the preferences name."""
    chosen = context.preferences.addons[__package__].preferences
    return Client(chosen.server, (chosen.user, chosen.password) if chosen.user else None)


def begin(
    context: bpy.types.Context, order: Callable[[Client], Job], result: str, on_result: Callable[[Path], None]
) -> None:
    """Start work, and look after it every TICK seconds."""
    State.work = Work(connect(context), order, result, show_picture, on_result)
    if not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, persistent=True)


def tick() -> float | None:
    """In Blender's thread: do what waits, draw the panel; None when there is nothing more."""
    if State.work is None:
        return None
    window = next(iter(bpy.context.window_manager.windows), None)
    with bpy.context.temp_override(window=window) if window else contextlib.nullcontext():
        State.work.take()
    for each in bpy.context.window_manager.windows:
        for area in each.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()
    if not State.work.is_over:
        return TICK
    State.said, State.work = State.work.status, None
    return None


def show_picture(path: Path) -> None:
    """The newest picture, in the panel."""
    if State.pictures is not None:
        State.pictures.clear()
        State.pictures.load(PREVIEW, str(path), "IMAGE")


def options(settings: Settings) -> dict[str, object]:
    """What all three orders say."""
    further = dict(each.partition("=")[::2] for each in shlex.split(settings.further))
    return {"seed": settings.seed, **({"steps": settings.steps} if settings.steps else {}), **further}


class Order(bpy.types.Operator):
    """What needs words and a free hand."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return State.work is None and bool(context.scene.sds3d.prompt.strip())


class MakeObject(Order):
    """Make an object of these words, at the 3D cursor"""

    bl_idname, bl_label = "sds3d.make", "Make"

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings, place = context.scene.sds3d, context.scene.cursor.location.copy()
        prompt, recipe = settings.prompt, settings.recipe if settings.recipe != "NONE" else None
        said = {**options(settings), "export.size": settings.size, "export.pivot": "base"}
        begin(
            context,
            lambda client: client.generate(prompt, recipe=recipe, **said),
            "mesh.glb",
            lambda path: scene.add_mesh(path, prompt, place),
        )
        return {"FINISHED"}


class OrderForSelected(Order):
    """What is done to the active object."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return super().poll(context) and context.object is not None and context.object.type == "MESH"


class TextureSelected(OrderForSelected):
    """Give the active object colours by these words. Its shape and its UVs stay as they are"""

    bl_idname, bl_label = "sds3d.texture", "Texture selection"
    bl_options: ClassVar = {"REGISTER", "UNDO"}  # UVs are made where there are none

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings, body = context.scene.sds3d, context.object
        prompt, name, said = settings.prompt, body.name, axes(settings)
        path = scene.mesh_to_send(body, Path(bpy.app.tempdir) / "sds3d-selection.glb")

        def painted(textured: Path) -> None:
            target = bpy.data.objects.get(name)
            if target is None:
                raise RuntimeError(f"{name} is no longer there; its colours are in {textured}")
            scene.paint(target, textured)

        begin(context, lambda client: client.texture(path, prompt, **said), "textured.glb", painted)
        return {"FINISHED"}


class RefineSelected(OrderForSelected):
    """Go on from the active object, shape and colours, by these words. It is hidden, and the new one is in its place"""

    bl_idname, bl_label = "sds3d.refine", "Refine selection"
    bl_options: ClassVar = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings, body = context.scene.sds3d, context.object
        (size, base), name, prompt = scene.size_and_base(body), body.name, settings.prompt
        said = {**axes(settings), "export.size": size, "export.pivot": "base"}
        path = scene.mesh_to_send(body, Path(bpy.app.tempdir) / "sds3d-selection.glb")

        def refined(mesh: Path) -> None:
            scene.add_mesh(mesh, f"{name} refined", base)
            if (before := bpy.data.objects.get(name)) is not None:
                before.hide_set(True)

        begin(context, lambda client: client.refine(path, prompt, **said), "mesh.glb", refined)
        return {"FINISHED"}


def axes(settings: Settings) -> dict[str, object]:
    """How what Blender exports stands: glTF's y is up, and what Blender sees from the front looks along z."""
    return {**options(settings), "scene.source.up": "y", "scene.source.front": "z"}


class Cancel(bpy.types.Operator):
    """Stop the work on the server"""

    bl_idname, bl_label = "sds3d.cancel", "Cancel"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return State.work is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        assert State.work is not None
        State.work.cancel()
        return {"FINISHED"}


class Connect(bpy.types.Operator):
    """Ask the server how it is, and for its recipes"""

    bl_idname, bl_label = "sds3d.connect", "Connect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            client = connect(context)
            version = client.health()["version"]
            rows = [(row["name"], row["name"], row["title"]) for row in client.recipes()]
        except (Problem, OSError, ValueError) as error:
            State.said = Status(f"the server does not answer: {getattr(error, 'reason', error)}", is_problem=True)
            return {"CANCELLED"}
        State.recipes = (State.recipes[0], *rows)  # Blender keeps no reference to these texts: this list does
        State.said = Status(f"connected to sds3d {version}")
        return {"FINISHED"}


class StartServer(bpy.types.Operator):
    """Start a server on this machine; it ends with Blender"""

    bl_idname, bl_label = "sds3d.start_server", "Start a server here"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return State.server is None or State.server.poll() is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        chosen = context.preferences.addons[__package__].preferences
        address = urlsplit(chosen.server)
        if address.hostname not in ("127.0.0.1", "localhost", "::1"):
            State.said = Status("the server of the preferences is on another machine", is_problem=True)
            return {"CANCELLED"}
        folder = Path(bpy.utils.user_resource("DATAFILES", path="sds3d", create=True))
        command = [bpy.path.abspath(chosen.command), "ui", "--port", str(address.port or 80), "--out", str(folder)]
        own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}  # not of Blender's
        try:
            State.server = subprocess.Popen(
                command, env=own, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            State.said = Status(f"cannot start {chosen.command}: {error.strerror}", is_problem=True)
            return {"CANCELLED"}
        State.said = Status("the server starts: it takes some seconds")
        return {"FINISHED"}


class Panel(bpy.types.Panel):
    """In the sidebar of the 3D view."""

    bl_idname, bl_label = "VIEW3D_PT_sds3d", "sds3d"
    bl_space_type, bl_region_type, bl_category = "VIEW_3D", "UI", "sds3d"

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.sds3d
        layout.prop(settings, "prompt", text="")
        column = layout.column(align=True)
        column.operator(MakeObject.bl_idname, icon="ADD")
        column.operator(TextureSelected.bl_idname, icon="TEXTURE")
        column.operator(RefineSelected.bl_idname, icon="MOD_SMOOTH")
        status = State.work.status if State.work is not None else State.said
        if State.work is not None:
            layout.progress(factor=status.part, text=status.text)
            layout.operator(Cancel.bl_idname, icon="CANCEL")
        elif status.text:
            box = layout.box()
            box.alert = status.is_problem
            for line in wrapped(status.text):
                box.label(text=line)
        if State.pictures is not None and PREVIEW in State.pictures:
            layout.template_icon(icon_value=State.pictures[PREVIEW].icon_id, scale=8.0)
        layout.prop(settings, "show_more", icon="DISCLOSURE_TRI_DOWN" if settings.show_more else "DISCLOSURE_TRI_RIGHT")
        if settings.show_more:
            for name in ("recipe", "seed", "size", "steps", "further"):
                layout.prop(settings, name)
            layout.prop(context.preferences.addons[__package__].preferences, "server")
            row = layout.row(align=True)
            row.operator(Connect.bl_idname)
            row.operator(StartServer.bl_idname)


def wrapped(text: str) -> list[str]:
    """Lines that fit into the panel."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= LINE:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


@atexit.register
def end_server() -> None:
    """The server that this Blender has started saves what is under way."""
    if State.server is not None and State.server.poll() is None:
        State.server.terminate()


CLASSES = (Preferences, Settings, MakeObject, TextureSelected, RefineSelected, Cancel, Connect, StartServer, Panel)


def register() -> None:
    """Blender calls this when the add-on is enabled."""
    for kind in CLASSES:
        bpy.utils.register_class(kind)
    bpy.types.Scene.sds3d = PointerProperty(type=Settings)
    State.pictures = bpy.utils.previews.new()


def unregister() -> None:
    """And this when it is disabled."""
    if State.work is not None:
        State.work.cancel()
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    end_server()
    bpy.utils.previews.remove(State.pictures)
    State.work = State.server = State.pictures = None
    del bpy.types.Scene.sds3d
    for kind in reversed(CLASSES):
        bpy.utils.unregister_class(kind)
