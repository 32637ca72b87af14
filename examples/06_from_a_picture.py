"""6. A picture says how the front looks; the words and the prior say the rest."""

from PIL import Image, ImageDraw

from sds3d import Session, load_config

picture = Image.new("RGBA", (256, 256))  # transparent where there is no object
draw = ImageDraw.Draw(picture)
draw.ellipse((48, 48, 208, 208), fill=(200, 40, 40, 255))
draw.rectangle((48, 118, 208, 138), fill=(240, 240, 240, 255))
picture.save("striped-ball.png")

config = load_config(
    preset="draft",
    overrides={"prompt": "a red ball", "scene": "gaussians", "reference_image.path": "striped-ball.png"},
)
session = Session(config, "outputs/striped-ball")
for event in session.run():
    if type(event).__name__ == "Finished":
        print("done; the sheet's first view is the picture's side:", session.out_dir / "sheet.png")
