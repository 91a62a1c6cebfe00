"""How the documentation is built. Nothing is fetched: it builds the same without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util import logging

import kafka_ext
import kafka_ext.testing

sys.path.insert(0, str(Path(__file__).parent))
from check_reference import missing
from command_help import CommandHelp
from stub_signatures import process_signature

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "kafka_ext"
author = "The kafka-ext maintainers"
version = release = kafka_ext.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"kafka_ext {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings are read in an editor or with help() first: one backtick a side is code there, and so
# it is here.
default_role = "code"
highlight_language = "python"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
# Every reference must lead somewhere; what Python documents is not looked up, for that would need
# the network.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"((collections|concurrent|logging|pathlib|types|typing)\..*|datetime|os\.PathLike|Path|Buffer|Callable|Iterable|Mapping|Future|Sending"
        r"|Part|PropertiesSource|SubjectOf)",
    )
]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def setup(app: Sphinx) -> None:
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("env-check-consistency", check_reference_is_complete)


def check_reference_is_complete(app: Sphinx, env: BuildEnvironment) -> None:
    for name in missing(set(env.domaindata["py"]["objects"]), kafka_ext, kafka_ext.testing):
        logging.getLogger(__name__).warning(
            "%s is public, and not in docs/api.md (or it has no docstring)", name, location="api"
        )
