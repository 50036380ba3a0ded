"""The page of a run: what is shown, and the HTML that shows it."""

from ddjax.page.render import Gallery, Page, Plane, render

__all__ = ["Gallery", "Page", "Plane", "render"]
