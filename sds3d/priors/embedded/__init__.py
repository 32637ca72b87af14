"""The prior that ships with sds3d: a small diffusion model of procedural objects, with everything that made it."""
