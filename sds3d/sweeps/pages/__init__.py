"""HTML pages from jinja2 templates, which escape every value."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_page(name: str, **facts: object) -> str:
    """The template NAME.html of this folder, filled with `facts`."""
    return _environment().get_template(f"{name}.html").render(facts)


def format_number(value: float | None) -> str:
    """Three significant digits; a dash for None."""
    return "-" if value is None else f"{value:.3g}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sds3d.sweeps", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    return environment
