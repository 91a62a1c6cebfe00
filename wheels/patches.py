"""Defects of librdkafka that are mended in the copy that is built here: patches/*.patch, in the
order of their numbers.

A patch is called NNNN-name.patch; `build_info()["patches"]` lists the names. It is applied by the
program `patch` with -p1. Its header, the text before the first file, says what is wrong and why
this mends it, then on lines of their own

    Without it: what users see
    Tests: those that fail without it, and those of what it must not break

A library of the system's stays as it is. In the pinned release every patch applies, exactly, or the
build ends; in another release one that does not apply is left out with a warning.
"""

from __future__ import annotations

from pathlib import Path

from console import BuildError, run, warn

FOLDER = Path(__file__).resolve().parent / "patches"


def files() -> list[Path]:
    return sorted(FOLDER.glob("[0-9]*.patch"))


def name(patch: Path) -> str:
    """librdkafka-4953 of 0001-librdkafka-4953.patch."""
    return patch.stem.partition("-")[2]


def apply(source: Path, log: Path, *, pinned: bool) -> list[str]:
    """Mend an unpacked librdkafka; the names of what was mended."""
    done = []
    for patch in files():
        command = ["patch", "-p1", "--batch", "--forward", "-F0", "-i", str(patch)]
        try:
            run([*command, "--dry-run"], cwd=source, log=log)
        except BuildError as error:
            if pinned:
                raise BuildError(
                    f"wheels/patches/{patch.name} does not apply to the pinned librdkafka\n{error}"
                ) from None
            warn(f"{name(patch)} is not applied: this librdkafka has other text there")
            continue
        run(command, cwd=source, log=log)
        done.append(name(patch))
    return done
