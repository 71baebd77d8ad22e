"""Configuration of Sphinx for the documentation site. scripts/build-docs calls it.

Source: https://www.sphinx-doc.org/en/master/usage/configuration.html, the options of MyST-Parser
and of the theme Furo. The theme's own style sheets and scripts are part of the site, and no page
loads anything from another host.
"""

from __future__ import annotations

import os

project = "jaula"
author = "the authors of jaula"
copyright = "the authors of jaula, Apache License 2.0"
release = version = os.environ["JAULA_DOCS_VERSION"]
html_title = f"jaula {version}"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns: list[str] = []
nitpicky = True

# GitHub's dialect: each heading has an anchor, and a link to a missing one is a warning.
myst_gfm_only = False
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

highlight_language = "text"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
# Examples leave parts out with "...", which is not TOML or JSON.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_theme_options = {
    "light_css_variables": {
        "font-stack": "system-ui, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif",
        "font-stack--monospace": "ui-monospace, 'Noto Sans Mono', 'DejaVu Sans Mono', monospace",
        "color-brand-primary": "#1b5e6b",
        "color-brand-content": "#1b5e6b",
        "color-brand-visited": "#1b5e6b",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc4d0",
        "color-brand-content": "#7cc4d0",
        "color-brand-visited": "#7cc4d0",
    },
}
