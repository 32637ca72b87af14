"""A triangle mesh as the scene: vertices that move by large steps, and a field of colours on the surface.

What changes a picture of a mesh is where its outlines run, how its faces are lit, and its colours; each has its own
gradient here. After DreamFusion's mesh successors (Fantasia3D, Chen et al. 2023; Magic3D, Lin et al. 2023), with the
vertices optimized as in Nicolet et al. 2021.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from sds3d.cameras import orbit, project
from sds3d.errors import ConfigError
from sds3d.mesh_files import MeshSource, read_user_mesh
from sds3d.ops.creases import crease_normals
from sds3d.ops.extension import BUILD_COMMAND, backend_info, compiled
from sds3d.ops.finish import finish
from sds3d.ops.hash_encode import HashGrid
from sds3d.ops.large_steps import LargeSteps
from sds3d.ops.outlines import blend_outlines, mesh_edges, outline_crossings
from sds3d.ops.primitives import with_primitives
from sds3d.ops.rasterize_triangles import TriangleImage, interpolate, rasterize_triangles
from sds3d.ops.triangle_geometry import area_vectors, face_normals, surface_samples, vertex_normals
from sds3d.options import Options
from sds3d.scenes.base import PICTURE, ParamGroup, RenderContext, SceneConfig
from sds3d.scenes.file_mesh import movable, take_colors
from sds3d.scenes.palette import find_palette
from sds3d.scenes.shading import Light, ShadingConfig, Sun, draw_light
from sds3d.scenes.surface_color import FEATURES, ColorField, PaletteField
from sds3d.types import Cameras, RenderOutput

BOUND_RADIUS = 1.05  # world units: vertices stay inside this ball
PICTURE_SAMPLES = 2  # along each side of a pixel, in pictures; their pixels are small already
PICTURE_PIXELS = 4_000_000  # samples of one pass without gradient; bounds memory to about 500 MB
START_RADIUS = 0.5  # world units: it starts as a ball
LR_VERTICES = 0.03  # of u, in which a step spreads over the vertex's neighbours
LR_COLORS = 0.01
LR_PALETTE = 0.001
PALETTE_AT = 0.5  # part of the run after which a mesh that took over no colours looks for a palette in its own
COLORED_POINTS = 60_000  # of the surface, from which it is found
BORDER_POINTS = 4096  # of a step's pixels, around which borders are measured
# A finish may move outlines by as much as the roughness that it takes away. A ball one world unit wide is 60 pixels
# wide at FINISH_PIXELS: an IoU of 0.93 means that its outline moved by one of them, 0.018 world units, all around; 0.85
# in a single view by 2.3, or that as much is gone in one place, such as a handle.
FINISH_IOU, FINISH_WORST, FINISH_PIXELS = 0.93, 0.85, 128
PRIMITIVES_IOU = 0.9  # instead of FINISH_IOU: a wall that was bent moves farther than roughness does
COARSEST = 8  # cells of the coarsest grid of colours
ANCHOR_WAVE = 0.6  # world units: of longer waves the anchor sees more than half, of one of 0.1 a thirtieth
INSIDE_SAMPLES = 100_000  # of the surface, to tell inside from outside


class ColorGridConfig(Options):
    """How fine colours can vary over the surface. The defaults suit the embedded prior, which sees 64 pixels."""

    finest_resolution: Annotated[
        int, Field(ge=8, le=8192, description="Cells of the finest grid along the scene's side")
    ] = 64
    log2_table: Annotated[int, Field(ge=4, le=24, description="log2 of the largest number of entries of one grid")] = 15
    hidden: Annotated[int, Field(ge=4, le=256, description="Width of the network")] = 32
    palette: Annotated[
        bool, Field(description="A few flat colours with hard borders, found by itself, not any colour anywhere")
    ] = False

    def grid(self) -> HashGrid:
        """The table's layout: from 8 cells on, each grid about 1.5 times as fine as the one before.

        Half as fine with a palette: borders are sharp on any grid, and on a fine one they fray.
        """
        finest = max(COARSEST, self.finest_resolution // 2) if self.palette else self.finest_resolution
        levels = 1 + round(math.log(finest / COARSEST) / math.log(1.5))
        return HashGrid(levels, FEATURES, COARSEST, finest, self.log2_table)


class MeshConfig(SceneConfig):
    """How stiff the surface is, how it is lit, and how fine its colours are.

    `light`, `colors.palette` and `primitives` are by default what the prior says of its own training pictures
    (PriorConfig.light, flat_colors, simple_shapes); `primitives` only where the mesh does not begin as a file.
    """

    name: Literal["mesh"] = "mesh"
    losses: ClassVar[tuple[str, ...]] = (
        *("laplacian", "normal_consistency", "edge_length"),  # of any surface
        *("border", "anchor", "anchor_color"),  # of a palette; of a file
    )
    default_overrides: ClassVar[Mapping[str, Any]] = {
        "loss_weights": {
            "border": {"start": 0.0, "end": 40.0, "begin_at": 0.1, "end_at": 0.1},  # or they are ragged
            # of a file: without them the prior's proportions and its saturated colours replace those of the object
            "anchor": 1e6,
            "anchor_color": 300.0,
        }
    }
    artifacts: ClassVar[tuple[str, ...]] = ("sheet", "orbit", "glb")
    has_surface: ClassVar[bool] = True
    state_shape: ClassVar[tuple[str, ...]] = ("colors",)
    smoothness: Annotated[
        float, Field(ge=0, le=1000, description="How far a step spreads over the surface: lambda of the large steps")
    ] = 10.0
    finish: Annotated[
        int, Field(ge=0, le=10, description="Rounds of smoothing walls and straightening creases at the end; 0: none")
    ] = 3
    primitives: Annotated[
        bool, Field(description="What nearly is a plane, sphere, cylinder or cone becomes one at the end, upright")
    ] = False
    samples: Annotated[int, Field(ge=1, le=8, description="Samples along each side of a training pixel")] = 3
    light: Annotated[
        Sun | None, Field(description="A light fixed in the world, kept out of the colours; null: none")
    ] = None
    shading: Annotated[ShadingConfig | None, Field(description="Random light in training; null for none")] = None
    colors: ColorGridConfig = ColorGridConfig()
    source: Annotated[MeshSource | None, Field(description="A file to begin as; null: a ball")] = None
    geometry: Annotated[
        Literal["free", "fixed"], Field(description="Whether vertices move; fixed: they are the file's, to be textured")
    ] = "free"

    @model_validator(mode="after")
    def _has_a_file(self) -> "MeshConfig":
        if self.geometry == "fixed" and self.source is None:
            raise ValueError("geometry = fixed needs a file: source.path")
        return self

    @property
    def results(self) -> tuple[str, ...]:
        """A fixed mesh is the person's file again."""
        return ("sheet", "orbit", "textured") if self.geometry == "fixed" else self.artifacts

    def build(self, generator: torch.Generator) -> "Mesh":
        """A fresh scene on the CPU: a grey ball, or the file. ConfigError for a file that cannot be used."""
        return (FixedMesh if self.geometry == "fixed" else Mesh)(self, generator)

    def check(self, device: torch.device) -> None:
        """Finishing is there in C++ only."""
        if self.geometry == "free" and self.finish > 0 and not compiled():
            problem = f"scene.finish = {self.finish} needs sds3d's compiled kernels: {backend_info().reason}"
            raise ConfigError(problem, f"build them with: {BUILD_COMMAND}; or use scene.finish=0", "scene.finish")


class MeshTrace(NamedTuple):
    """What a render leaves for the regularizers."""

    vertices: Float[Tensor, "V 3"]
    border: Float[Tensor, ""] | None  # of a palette, where it was asked for


class Mesh(nn.Module):
    """A Scene of one triangle mesh. The optimizer moves u = (I + lambda L) v; the picture is made of v."""

    raw_vertices: nn.Parameter
    faces: Tensor
    finished: Tensor  # whether the surface is as `finish` left it
    anchor: Tensor | None  # where the vertices are in the file and, if it has colours, their colours there

    def __init__(self, config: MeshConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        field = PaletteField if config.colors.palette else ColorField
        self.color_field = field(config.colors.grid(), config.colors.hidden, BOUND_RADIUS, generator)
        self._begin()
        self.register_buffer("finished", torch.tensor(False))
        self.register_load_state_dict_pre_hook(_take_on_faces)

    def _begin(self) -> None:
        """As the file's surface in its colours, or as a ball."""
        if self.config.source is not None:
            file = read_user_mesh(self.config.source)
            vertices, faces = movable(file)
            has_colors = take_colors(self.color_field, file)
            with torch.no_grad():
                known = [vertices, *([self.color_field(vertices)] if has_colors else [])]
            self.set_surface(vertices, faces, torch.cat(known, dim=1))
            return
        import trimesh  # slow to import

        ball = trimesh.creation.icosphere(4, START_RADIUS)
        self.set_surface(torch.tensor(ball.vertices, dtype=torch.float32), torch.tensor(ball.faces).int())

    def set_surface(
        self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], anchor: Float[Tensor, "V K"] | None = None
    ) -> None:
        """Another surface, corners counter-clockwise seen from outside. An optimizer of the old one is void.

        `anchor` has the places, and perhaps the colours, that the losses of that name compare the vertices with.
        """
        self.register_buffer("faces", faces)
        self.register_buffer("anchor", anchor)
        self._prepare(len(vertices))
        self.raw_vertices = nn.Parameter(self._steps.to_u(vertices))

    def _prepare(self, vertices: int) -> None:
        """What belongs to a topology."""
        self._steps = LargeSteps(self.faces, vertices, self.config.smoothness)
        self._edges = mesh_edges(self.faces)
        edges = self._edges.long()
        self._ends = torch.cat([edges[:, :2], edges[:, :2].flip(1)])  # each edge from both
        self._degree = torch.bincount(self._ends[:, 0], minlength=vertices).clamp_min(1)
        self._inner = edges[edges[:, 3] >= 0]
        if self.anchor is not None:
            ends = self.anchor[self._edges[:, :2].long(), :3]
            length = float((ends[:, 0] - ends[:, 1]).norm(dim=1).mean())
            # of waves much longer than edges, L is 1.5 (2 pi length / wave)^2 where six triangles meet
            self._low_pass = LargeSteps(self.faces, vertices, (ANCHOR_WAVE / (2 * math.pi * length)) ** 2 / 1.5)

    def _apply(self, fn: Any, recurse: bool = True) -> "Mesh":
        super()._apply(fn, recurse)
        self._prepare(len(self.raw_vertices))  # on the new device
        return self

    def vertices(self) -> Float[Tensor, "V 3"]:
        """v, differentiable in u."""
        return self._steps.to_v(self.raw_vertices)

    def normals(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3"]:
        """Unit normals of the vertices, smooth over the surface."""
        return vertex_normals(vertices, self.faces)

    def render(
        self, cameras: Cameras, background: Float[Tensor, "B 3"], context: RenderContext = PICTURE
    ) -> RenderOutput:
        """The nearest surface at samples^2 points of each pixel, its outlines antialiased.

        rgb = sum over samples of (color light coverage + (1 - coverage) background) / samples^2. Colours and their
        places have no gradient to the vertices: the shape is told by outlines and by light on normals.
        """
        samples = self.config.samples if context.generator is not None else PICTURE_SAMPLES
        field, border = self.color_field, None
        if isinstance(field, PaletteField) and context.generator is not None:
            field.harden(context.progress)
        if "border" in context.losses and context.generator is not None:
            border = torch.zeros((), device=self.faces.device)
            if isinstance(field, PaletteField) and field.has_palette:
                places = surface_points(*self.surface(), BORDER_POINTS, context.generator)
                border = field.border(places, context.generator)
        color_of = field.finished if context.generator is None else field
        lamps, sun = None, self.config.light if context.lit else None
        if self.config.shading is not None and context.lit and context.generator is not None:
            lamps = draw_light(self.config.shading, cameras, context.progress, context.generator)
        vertices = self.vertices()
        normals, normal_of = self.normals(vertices), self.faces
        whole = len(cameras)
        if not torch.is_grad_enabled():
            if self.finished and self.config.geometry == "free":  # a picture shows creases, as the exported mesh does
                normals, normal_of = crease_normals(vertices, self.faces)
            whole = max(1, PICTURE_PIXELS // (cameras.height * cameras.width * samples**2))
        parts = [
            self._maps(
                *(vertices, normals, normal_of, cameras.select(views), color_of, lamps, sun, views, samples),
                context.normals,
            )
            for views in torch.arange(len(cameras), device=vertices.device).split(whole)
        ]
        maps = torch.cat(parts)
        color, depth, opacity, normal = maps.split([3, 1, 1, maps.shape[-1] - 5], dim=-1)
        rgb = color + (1 - opacity) * background[:, None, None]
        unit = F.normalize(normal, dim=-1, eps=1e-6) if context.normals else None
        return RenderOutput(rgb, opacity, depth, unit, aux=MeshTrace(vertices, border))

    def _maps(
        self,
        vertices: Float[Tensor, "V 3"],
        normals: Float[Tensor, "N 3"],
        normal_of: Int[Tensor, "F 3"],  # the normal of each corner
        cameras: Cameras,
        color_of: Callable[[Tensor], Tensor],
        lamps: Light | None,
        sun: Sun | None,
        views: Int[Tensor, " B"],
        samples: int,
        with_normals: bool,
    ) -> Float[Tensor, "B H W K"]:
        """Premultiplied colour and depth, the opacity, and the premultiplied normal if it is wanted."""
        height, width = cameras.height * samples, cameras.width * samples
        points = project(vertices, cameras) * vertices.new_tensor([samples, samples, 1.0])
        image = rasterize_triangles(points, self.faces, height, width)
        seen = (image.face >= 0).flatten().nonzero()[:, 0]
        # The pixels that see a face, as one row; where on it they look has no gradient.
        found = TriangleImage(*(t.detach().flatten(0, 2).index_select(0, seen)[None, None] for t in image))
        places = interpolate(vertices.detach(), self.faces, found)[0, 0]
        normal = F.normalize(interpolate(normals, normal_of, found)[0, 0], dim=-1, eps=1e-6)
        color = color_of(places)
        if lamps is not None:
            color = lamps.shade(color, normal, places, views[seen // (height * width)])
        elif sun is not None:
            color = color * sun.on(normal)[:, None]
        depth = found.depth[0, 0, :, None]
        channels = torch.cat([color, depth, torch.ones_like(depth), *([normal] if with_normals else [])], dim=-1)
        maps = channels.new_zeros(image.face.numel(), channels.shape[1]).index_copy_(0, seen, channels)
        maps = maps.view(*image.face.shape, -1)
        maps = blend_outlines(maps, points, outline_crossings(points, self.faces, self._edges, image.depth))
        return F.avg_pool2d(maps.permute(0, 3, 1, 2), samples).permute(0, 2, 3, 1)

    def param_groups(self) -> list[ParamGroup]:
        """The vertices, with one second moment for all, and the colours; those of a palette apart."""
        own = dict(self.color_field.named_parameters())
        palette = [own.pop("raw_palette")] if "raw_palette" in own else []
        return [
            ParamGroup("vertices", [self.raw_vertices], LR_VERTICES, uniform=True),
            ParamGroup("colors", list(own.values()), LR_COLORS),
            *([ParamGroup("palette", palette, LR_PALETTE)] if palette else []),
        ]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Float[Tensor, ""]]:
        """Of the surface that was rendered; all but `anchor` 0 for one that is flat with edges of one length.

        `laplacian` = mean |v_i - mean of its neighbours|^2 / (mean edge length)^2, `normal_consistency` = mean over
        edges of 1 - n_1 . n_2, `edge_length` = variance of the edges' lengths / (mean length)^2. Of a palette
        `border` as well, if it was asked for: PaletteField.border at BORDER_POINTS of the surface. Of a file's
        surface `anchor` = mean |S (v - v_file)|^2, S = (I + lambda L)^-1 with half of a wave of ANCHOR_WAVE: how far
        its proportions have moved, in world units squared; roughness that goes and creases that come count little. If
        it has colours, `anchor_color` is the same of the colours at the vertices.
        """
        assert isinstance(out.aux, MeshTrace), f"not a render of this scene: {type(out.aux)}"
        vertices, edges = out.aux.vertices, self._edges.long()
        length = (vertices[edges[:, 0]] - vertices[edges[:, 1]]).norm(dim=-1)
        mean = length.mean()
        ends, degree, inner = self._ends, self._degree, self._inner
        around = torch.zeros_like(vertices).index_add(0, ends[:, 0], vertices.index_select(0, ends[:, 1]))
        normals = face_normals(vertices, self.faces)
        cosine = (normals.index_select(0, inner[:, 2]) * normals.index_select(0, inner[:, 3])).sum(-1)
        losses = {
            "laplacian": ((vertices - around / degree[:, None]).square().sum(-1)).mean() / mean.detach().square(),
            "normal_consistency": (1 - cosine).mean(),
            "edge_length": length.var(correction=0) / mean.detach().square(),
            **({} if out.aux.border is None else {"border": out.aux.border}),
        }
        if self.anchor is not None:
            places, colors = self.anchor[:, :3], self.anchor[:, 3:]
            losses["anchor"] = self._low_pass.to_v(vertices - places).square().sum(-1).mean()
            if colors.shape[1]:
                change = self.color_field(vertices.detach()) - colors
                losses["anchor_color"] = self._low_pass.to_v(change).square().sum(-1).mean()
        return losses

    @torch.no_grad()
    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Keep the vertices inside the bounds; find a palette where it is time."""
        self.finished.fill_(False)
        vertices = self.vertices()
        norm = vertices.norm(dim=-1, keepdim=True)
        if bool((norm > BOUND_RADIUS).any()):
            self.raw_vertices.copy_(self._steps.to_u(vertices * (BOUND_RADIUS / norm).clamp_max(1.0)))
        self._find_palette(step, steps, optimizer)

    def _find_palette(self, step: int, steps: int, optimizer: Optimizer) -> None:
        """From free colours, where there is none yet and it is time."""
        field = self.color_field
        if isinstance(field, PaletteField) and not field.has_palette and step + 1 >= PALETTE_AT * steps:
            generator = torch.Generator().manual_seed(0)
            places = surface_points(*self.surface(), COLORED_POINTS, generator)
            self.take_on_colors(places, field(places), generator)
            for parameter in field.parameters():
                optimizer.state.pop(parameter, None)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to `finish`."""
        return bool(self.finished) or not (self._is_rough or self._has_palette)

    @property
    def _is_rough(self) -> bool:
        return self.config.finish > 0 and self.config.geometry == "free"

    @property
    def _has_palette(self) -> bool:
        return isinstance(self.color_field, PaletteField) and self.color_field.has_palette

    def take_on_colors(
        self, places: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"], generator: torch.Generator
    ) -> None:
        """Take on colours, without light, at places of the surface; a palette is found in them where one is wanted."""
        field, (places, colors) = self.color_field, (t.to(self.faces.device) for t in (places, colors))
        if isinstance(field, PaletteField):
            field.choose(find_palette(places, colors), generator)
        with torch.enable_grad():
            field.fit(places, colors, generator)

    def finish(self) -> str | None:
        """Flat walls, straight creases, settled borders of a palette; why the shape stays, where it does."""
        if self.is_finished:
            return None
        self.finished.fill_(True)
        problem = self._finish_shape() if self._is_rough else None
        field = self.color_field
        if isinstance(field, PaletteField) and field.has_palette:
            with torch.enable_grad():
                field.settle(*self.surface(), torch.Generator().manual_seed(0))
        return problem

    @torch.no_grad()
    def _finish_shape(self) -> str | None:
        """sds3d.ops.finish, with as many rounds as the silhouettes allow.

        Noise goes with them, so silhouettes may change a little: by an IoU of FINISH_IOU in the mean of the views, and
        of FINISH_WORST in each. Where even one round changes more, or the surface is no manifold, it stays as it is and
        the result says why.
        """
        cameras = orbit(8, elevation_deg=20, size=FINISH_PIXELS).to(self.faces.device)
        black = torch.zeros(len(cameras), 3, device=self.faces.device)
        vertices, faces, anchor = *self.surface(), self.anchor
        before = self.render(cameras, black).opacity > 0.5
        for rounds in range(self.config.finish, 0, -1):
            try:
                smooth, even = finish(vertices, faces, len(faces), rounds)
                self.set_surface(smooth, even, None if anchor is None else moved_along(anchor, vertices, smooth))
            except ConfigError as error:
                self.set_surface(vertices, faces, anchor)
                return f"the surface is not finished: {error.args[0]}"
            iou = self._outlines_iou(before, cameras, black)
            if float(iou.mean()) >= FINISH_IOU and float(iou.min()) >= FINISH_WORST:
                return self._make_exact(before, cameras, black) if self.config.primitives else None
        self.set_surface(vertices, faces, anchor)
        return f"the surface is not finished: its outlines would change too much (IoU {float(iou.mean()):.2f})"

    def _outlines_iou(self, before: Tensor, cameras: Cameras, black: Tensor) -> Float[Tensor, " B"]:
        after = self.render(cameras, black).opacity > 0.5
        return (before & after).sum((1, 2, 3)) / (before | after).sum((1, 2, 3)).clamp_min(1)

    def _make_exact(self, before: Tensor, cameras: Cameras, black: Tensor) -> str | None:
        """Planes, spheres and cones made exact, unless outlines change too much (PRIMITIVES_IOU, FINISH_WORST); why
        not, where that is not possible."""
        vertices, faces, anchor = *self.surface(), self.anchor
        try:
            exact, even, primitives = with_primitives(vertices, faces)
        except ConfigError as error:
            return f"planes, spheres and cones are not made exact: {error.args[0]}"
        if not primitives:
            return None
        self.set_surface(exact, even, None if anchor is None else moved_along(anchor, vertices, exact))
        iou = self._outlines_iou(before, cameras, black)
        if float(iou.mean()) < PRIMITIVES_IOU or float(iou.min()) < FINISH_WORST:
            self.set_surface(vertices, faces, anchor)
        return None

    @torch.no_grad()
    def surface(self) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
        """The mesh as it is: vertices in world units, and faces."""
        return self.vertices(), self.faces

    @torch.no_grad()
    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, " P"]:
        """1 inside, 0 outside, by the side of the nearest of many points of the surface."""
        from scipy.spatial import cKDTree

        vertices, faces = (t.cpu() for t in self.surface())
        face, shares = surface_samples(vertices, faces, INSIDE_SAMPLES, torch.Generator().manual_seed(0))
        places = (vertices[faces.long()[face]] * shares[..., None]).sum(dim=1)
        nearest = torch.from_numpy(cKDTree(places.numpy()).query(points.detach().cpu().numpy())[1])
        inside = ((points.cpu() - places[nearest]) * area_vectors(vertices, faces)[face[nearest]]).sum(-1) < 0
        return inside.to(points)

    @torch.no_grad()
    def color(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """The colour without light; defined everywhere."""
        return self.color_field.finished(points)


@torch.no_grad()
def surface_points(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], count: int, generator: torch.Generator
) -> Float[Tensor, "P 3"]:
    """`count` points, evenly at random over the surface; drawn on the CPU whatever the device."""
    corners, faces = vertices.cpu(), faces.cpu()
    face, shares = surface_samples(corners, faces, count, generator)
    return (corners[faces.long()[face]] * shares[..., None]).sum(dim=1).to(vertices.device)


def moved_along(
    anchor: Float[Tensor, "V K"], vertices: Float[Tensor, "V 3"], others: Float[Tensor, "W 3"]
) -> Float[Tensor, "W K"]:
    """The anchor of other vertices of the surface: they moved as the nearest vertex, and have its colours."""
    from scipy.spatial import cKDTree

    nearest = torch.from_numpy(cKDTree(vertices.cpu().numpy()).query(others.cpu().numpy())[1]).to(anchor.device)
    return torch.cat([others - (vertices - anchor[:, :3])[nearest], anchor[nearest, 3:]], dim=1)


class FixedMesh(Mesh):
    """The file's triangles as they are, with its own normals: only the colours are optimized, and only they are saved.

    Vertices at one place count as one where outlines are looked for, so that seams are no borders.
    """

    own_normals: Tensor

    def _begin(self) -> None:
        assert self.config.source is not None
        vertices, normals, faces = read_user_mesh(self.config.source).corners()
        places, owner = np.unique(vertices.round(6), axis=0, return_inverse=True)
        first = np.zeros(len(places), dtype=np.int64)
        first[owner.reshape(-1)] = np.arange(len(vertices))
        tensors = {
            "raw_vertices": torch.from_numpy(vertices).float(),
            "own_normals": torch.from_numpy(normals).float(),
            "faces": torch.from_numpy(faces).int(),
            "welded": torch.from_numpy(first[owner.reshape(-1)][faces]).int(),
        }
        for name, tensor in tensors.items():  # the run folder has the file
            self.register_buffer(name, tensor, persistent=False)
        self._prepare(len(vertices))

    def _prepare(self, vertices: int) -> None:
        self._edges = mesh_edges(getattr(self, "welded", self.faces))

    def vertices(self) -> Float[Tensor, "V 3"]:
        """As the file has them, in the world."""
        return self.raw_vertices

    def normals(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3"]:
        """The file's."""
        return self.own_normals

    def param_groups(self) -> list[ParamGroup]:
        """The colours."""
        return [group for group in super().param_groups() if group.name != "vertices"]

    def regularizers(self, out: RenderOutput) -> Mapping[str, Float[Tensor, ""]]:
        """That of the colours; the others are about the shape."""
        assert isinstance(out.aux, MeshTrace), f"not a render of this scene: {type(out.aux)}"
        return {} if out.aux.border is None else {"border": out.aux.border}

    @torch.no_grad()
    def after_step(self, step: int, steps: int, out: RenderOutput, optimizer: Optimizer) -> None:
        """Find a palette where it is time."""
        self.finished.fill_(False)
        self._find_palette(step, steps, optimizer)


def _take_on_faces(scene: Mesh, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Take on the saved topology. The parameter stays the same object, so an optimizer that holds it stays valid."""
    faces, vertices = state.get(prefix + "faces"), state.get(prefix + "raw_vertices")
    if isinstance(faces, Tensor) and isinstance(vertices, Tensor) and vertices.dim() == 2:
        scene.faces, anchor = faces.to(scene.faces), state.get(prefix + "anchor")
        scene.anchor = None if anchor is None else anchor.to(vertices, copy=True).to(scene.faces.device)
        scene.raw_vertices.grad = None
        scene.raw_vertices.data = scene.raw_vertices.data.new_empty(vertices.shape)
        scene._prepare(len(vertices))
