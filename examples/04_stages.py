"""4. Stages: splats find the shape, a mesh takes it over and makes it crisp, each with options of its own.

This is what the default does; here every part of it is said.
"""

from sds3d import Session, events, load_config

config = load_config(
    preset="draft",
    overrides={
        "prompt": "a white house with a red roof",
        "scene": {"name": "gaussians", "count": 2000},
        "guidance": {"name": "sds", "guidance_scale": 4},
        "stages": [
            {
                "begin_at": 0.5,
                "options": {"scene": {"name": "mesh", "finish": 3}, "guidance.guidance_scale": 3, "cameras.views": 4},
            }
        ],
    },
)
session = Session(config, "outputs/house-in-stages")
for event in session.run():
    if isinstance(event, events.StageBegun):
        print(f"step {event.step}: the scene is now a {event.scene}")
print("triangles:", len(session.scene().faces))
