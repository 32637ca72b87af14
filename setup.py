"""Metadata, and the build of cuda_ext/ into sds3d._C: CPU kernels always, CUDA where a matching toolkit is found.

SDS3D_BUILD_CUDA=0|1|auto (default auto); 1 fails where the toolkit is missing. TORCH_CUDA_ARCH_LIST works as usual.
MAX_JOBS files are compiled at once: one for each core if it is not set.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
SOURCES = [
    "cuda_ext/bindings.cpp",
    "cuda_ext/bindings_cpu.cpp",
    "cuda_ext/bindings_mesh_cpu.cpp",
    "cuda_ext/bindings_remesh_cpu.cpp",
    "cuda_ext/bindings_solids_cpu.cpp",
    "cuda_ext/composite/composite_cpu.cpp",
    "cuda_ext/cpu_features.cpp",
    "cuda_ext/hash_encode/hash_baseline.cpp",
    "cuda_ext/interpolate/interpolate_cpu.cpp",
    "cuda_ext/march_rays/march_rays_cpu.cpp",
    "cuda_ext/outlines/outlines_cpu.cpp",
    "cuda_ext/project_gaussians/project_baseline.cpp",
    "cuda_ext/rasterize_gaussians/bin_cpu.cpp",
    "cuda_ext/rasterize_gaussians/rasterize_baseline.cpp",
    "cuda_ext/rasterize_triangles/triangles_baseline.cpp",
    "cuda_ext/remesh/finish_cpu.cpp",
    "cuda_ext/remesh/remesh_cpu.cpp",
    "cuda_ext/remesh/thickness_cpu.cpp",
    "cuda_ext/render_solids/solids_baseline.cpp",
    "cuda_ext/selective_adam/selective_adam_cpu.cpp",
    "cuda_ext/spherical_harmonics/spherical_harmonics_cpu.cpp",
]
# One instruction set per file, chosen by cpuid at run time; everything else stays on the platform's baseline.
AVX2, AVX512 = ["-mavx2", "-mfma"], ["-mavx512f", "-mavx512dq"]
X86_SOURCES = {
    "cuda_ext/hash_encode/hash_avx2.cpp": AVX2,
    "cuda_ext/hash_encode/hash_avx512.cpp": AVX512,
    "cuda_ext/project_gaussians/project_avx2.cpp": AVX2,
    "cuda_ext/project_gaussians/project_avx512.cpp": AVX512,
    "cuda_ext/rasterize_gaussians/rasterize_avx2.cpp": AVX2,
    "cuda_ext/rasterize_gaussians/rasterize_avx512.cpp": AVX512,
    "cuda_ext/rasterize_triangles/triangles_avx2.cpp": AVX2,
    "cuda_ext/render_solids/solids_avx2.cpp": AVX2,
}
CUDA_SOURCES = [
    "cuda_ext/bindings_cuda.cpp",
    "cuda_ext/bindings_mesh_cuda.cpp",
    "cuda_ext/composite/composite.cu",
    "cuda_ext/hash_encode/hash_encode.cu",
    "cuda_ext/interpolate/interpolate.cu",
    "cuda_ext/march_rays/march_rays.cu",
    "cuda_ext/outlines/outlines.cu",
    "cuda_ext/project_gaussians/project_gaussians.cu",
    "cuda_ext/rasterize_gaussians/bin.cu",
    "cuda_ext/rasterize_gaussians/hit_sort.cu",
    "cuda_ext/rasterize_gaussians/rasterize_gaussians.cu",
    "cuda_ext/rasterize_triangles/rasterize_triangles.cu",
    "cuda_ext/selective_adam/selective_adam.cu",
    "cuda_ext/spherical_harmonics/spherical_harmonics.cu",
]
# No fast-math: it breaks round-by-magic-number and, at link time, switches the host process to flush-to-zero. No
# contraction: forward and backward must round alike, so fused operations are written out where they are wanted.
CXX_FLAGS = ["-O3", "-std=c++20", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS += ["-Wall", "-Wno-maybe-uninitialized", "-Wno-unused-function"]  # GCC 12 warns about immintrin.h
NVCC_FLAGS = ["-O3", "-std=c++20", "--fmad=false", "--threads=4", "-Xcompiler", "-fvisibility=hidden"]
ABI = ["-DTORCH_TARGET_VERSION=0x020b000000000000"]  # LibTorch stable ABI of torch 2.11, the oldest supported
CUDA_ARCHITECTURES = "8.0;8.6;8.9;9.0+PTX"


def cuda_decision() -> tuple[Path | None, str]:
    """The CUDA toolkit to build with, or None, and the reason in a few words."""
    wanted = os.environ.get("SDS3D_BUILD_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        sys.exit(f"SDS3D_BUILD_CUDA={wanted}: expected 0, 1 or auto")
    if wanted == "0":
        return None, "SDS3D_BUILD_CUDA=0"
    toolkit, reason = cuda_toolkit()
    if wanted == "1" and toolkit is None:
        sys.exit(f"SDS3D_BUILD_CUDA=1, but {reason}")
    return toolkit, reason


def cuda_toolkit() -> tuple[Path | None, str]:
    """The toolkit, if torch has CUDA and nvcc has the same major version. A visible GPU is not needed to build."""
    import torch

    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} has no CUDA"
    nvcc = find_nvcc()
    if nvcc is None:
        return None, f"no nvcc found for torch's CUDA {torch.version.cuda} (set CUDA_HOME)"
    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"release (\d+)\.(\d+)", output)
    if match is None or match[1] != torch.version.cuda.split(".")[0]:
        return None, f"nvcc is {match[0] if match else 'of unknown version'}, torch wants CUDA {torch.version.cuda}"
    root = toolkit_root(nvcc)
    if not (root / "include" / "cuda_runtime.h").is_file():
        return None, f"nvcc {match[1]}.{match[2]} has no headers in {root / 'include'} (set CUDA_HOME)"
    return root, f"nvcc {match[1]}.{match[2]} in {root}, torch CUDA {torch.version.cuda}"


def find_nvcc() -> str | None:
    """In CUDA_HOME or CUDA_PATH where set, else on the path, else in the usual place."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        return shutil.which("nvcc", path=f"{home}/bin")
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def toolkit_root(nvcc: str) -> Path:
    """The nvcc on the path may be a script or a link that calls the real one: only the real one knows its toolkit."""
    dry = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False).stderr
    top = re.search(r"TOP=(.+)", dry)
    return Path(top[1]).resolve() if top else Path(nvcc).resolve().parent.parent


def extension(with_cuda: bool):
    """sds3d._C: no Python symbols and only torch's stable ABI, so one binary serves every Python and torch 2.11+."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    x86 = platform.machine().lower() in ("x86_64", "amd64")
    kind = CUDAExtension if with_cuda else CppExtension
    return kind(
        "sds3d._C",
        SOURCES + (list(X86_SOURCES) if x86 else []) + (CUDA_SOURCES if with_cuda else []),
        extra_compile_args={
            "cxx": [*CXX_FLAGS, *ABI, *(["-DUSE_CUDA", "-DSDS3D_CUDA=1"] if with_cuda else [])],
            "nvcc": NVCC_FLAGS,
        },
        extra_link_args=["-s"],
        depends=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "cuda_ext").rglob("*.h")),
        py_limited_api=True,
    )


def build_command():
    """torch's BuildExtension, with the instruction-set flags of X86_SOURCES added file by file, and several
    files at once."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildKernels(BuildExtension.with_options(use_ninja=False)):  # ninja's path has one set of flags for all files
        def build_extensions(self) -> None:
            pool = ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1))
            pending, compile_all = [], self.compiler.compile

            def compile_later(obj, src, ext, cc_args, extra_postargs, pp_opts) -> None:
                flags = [*extra_postargs, *X86_SOURCES.get(Path(src).as_posix(), [])]
                compiler = copy(self.compiler)  # as it is now: torch puts nvcc into it for one file, then takes it out
                arguments = (compiler, obj, src, ext, cc_args, flags, pp_opts)
                pending.append(pool.submit(type(compiler)._compile, *arguments))

            def compile_and_wait(*args, **kwargs) -> list[str]:
                objects = compile_all(*args, **kwargs)
                for compiled in pending:
                    compiled.result()
                return objects

            self.compiler._compile, self.compiler.compile = compile_later, compile_and_wait
            try:
                super().build_extensions()
            finally:
                pool.shutdown(cancel_futures=True)

    return BuildKernels


def build_options() -> dict:
    """The setup() arguments that compile. Only asked for by commands that build: the others must not need torch."""
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit(
            "sds3d: torch is not installed in this environment, and the kernels are built against it.\n"
            "Install torch first, then: pip install --no-build-isolation ."
        )
    toolkit, reason = cuda_decision()
    print(f"sds3d: building CPU kernels {'and CUDA kernels' if toolkit else 'only'} ({reason})", flush=True)
    if toolkit:
        os.environ["CUDA_HOME"] = str(toolkit)  # read when torch.utils.cpp_extension is first imported
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHITECTURES)
    return {
        "ext_modules": [extension(with_cuda=toolkit is not None)],
        "cmdclass": {"build_ext": build_command()},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


BUILDING = {"build", "build_ext", "bdist_wheel", "install", "develop", "editable_wheel"}

packages = find_packages(include=["sds3d", "sds3d.*"])
packages += ["sds3d_app" + name[3:] for name in find_packages(include=["app", "app.*"], exclude=["app.blender"])]
packages += ["sds3d_assets"]

setup(
    name="sds3d",
    version="0.1.0",
    description="Text to 3D by score distillation: from words to a textured mesh, without a GPU",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=packages,
    package_dir={"sds3d_app": "app", "sds3d_assets": "assets"},
    package_data={
        "sds3d": ["py.typed"],
        "sds3d.priors.hub": ["models.json"],
        "sds3d.jobs": ["*.sql"],
        "sds3d.priors.embedded": ["*.json"],
        "sds3d.sweeps.pages": ["*.html"],
        "sds3d_app.ui": ["*.css", "*.html", "*.js", "example/*"],
        "sds3d_assets": [
            f"{depth}*.{kind}" for depth in ("", "**/") for kind in ("safetensors", "json", "md", "txt", "png")
        ],
    },
    include_package_data=False,
    zip_safe=False,
    install_requires=[
        "torch>=2.11,<2.14",
        "diffusers>=0.41",
        "transformers>=4.57",
        "peft>=0.18",
        "safetensors>=0.5",
        "gsplat>=1.5.3",
        "nerfacc>=0.5.3",
        "pydantic>=2.7",
        "typer>=0.12",
        "rich>=13",
        "trimesh>=4.5",
        "scikit-image>=0.22",
        "fast-simplification>=0.1.7",
        "manifold3d>=3.0",
        "xatlas>=0.0.9",
        "imageio>=2.34",
        "imageio-ffmpeg>=0.5",
        "jaxtyping>=0.2.36",
        "kornia>=0.7",
        "scipy>=1.11",
        "pillow>=10",
        "numpy>=1.26",
        "pyyaml>=6",
        "jinja2>=3.1",
        "packaging>=23",
    ],
    extras_require={
        "ui": ["gradio>=6.31,<7"],
        "usd": ["usd-core>=24.8"],
        "ray": ["ray>=2.50"],
        "dev": [
            *("pytest>=8", "pytest-xdist>=3.5", "pytest-timeout>=2.3", "hypothesis>=6.100", "beartype>=0.18"),
            *("ruff>=0.6", "mypy>=1.11"),
            "clang-format==18.1.8",  # versions differ in what they make of the same file
            "usd-core>=24.8",
            "gradio>=6.31,<7",
            "playwright>=1.48",
            "openapi-spec-validator>=0.7",
            "ray>=2.50",
        ],
    },
    entry_points={"console_scripts": ["sds3d = sds3d_app.cli:main"]},
    **(build_options() if BUILDING & set(sys.argv) else {}),
)
