"""Draw workflows: SVG by hand, with no library and no program beside it."""
