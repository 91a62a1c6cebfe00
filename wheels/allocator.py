"""Give librdkafka an allocator of its own: mimalloc, inside lib/librdkafka.a, hidden, with no
preload.

Each message is allocated by the thread that sends and freed by the one that serves reports, and in
glibc's malloc the two wait for each other's lock while one of them holds the GIL; musl's has one
lock for all. So allocator.h is included before each of librdkafka's files: it gives malloc, free
and their like mimalloc's names there, and nowhere else in the process.

That is right only while memory never crosses: what librdkafka frees it must have allocated, and
what it allocates nobody else may free. What curl hands out goes back to curl
(patches/0022-curl-memory.patch). The build fails when librdkafka imports anything else known to
hand out memory to free(), or a name that allocator.h should have changed. What remains is the
border to the application, and kafka_ext's own side of it is written to this rule:

- never RD_KAFKA_MSG_F_FREE, and never a `metadata` of a topic partition list that was not allocated
  with rd_kafka_mem_malloc();
- what librdkafka gave away (rd_kafka_memberid() and the like) is released with rd_kafka_mem_free(),
  never with free().
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import needs
from console import BuildError, run
from sources import Project

HEADER = Path(__file__).resolve().with_name("allocator.h")
NEEDS_PATCH = "curl-memory"

MIMALLOC = Project(
    name="mimalloc",
    version="2.0.9",
    url="https://github.com/microsoft/mimalloc/archive/refs/tags/v2.0.9.tar.gz",
    sha256=(
        # Upstream's archive of the tag. Made again from the tag's tree with `git archive`, bit by
        # bit the same.
        "4a29edae32a914a706715e2ac8e7e4109e25353212edeed0888f4e3e15db5850",
        # Debian's .orig archive: the same without its documentation and Windows binaries.
        "cbc9d207ff105ad1f0cb739c378076143a6452b8d0624309cea0abfb040e972b",
    ),
    suites={"Debian": ("bookworm",), "Ubuntu": ("noble",)},
)

# Functions that hand out memory the caller must free(), or take memory that they will free()
# themselves, and that allocator.h has no other name for.
CROSSING = frozenset(
    """
    __asprintf_chk __getcwd_chk __getdelim __realpath_chk __strdup __strndup __vasprintf_chk
    argz_add argz_append argz_create asprintf backtrace_symbols canonicalize_file_name
    get_current_dir_name getcwd getdelim getline open_memstream open_wmemstream pvalloc scandir
    scandir64 tempnam valloc vasprintf wcsdup
    curl_easy_unescape curl_escape curl_getenv curl_maprintf curl_mvaprintf curl_unescape
    ASN1_STRING_set0
    """.split()
)


def compile_with(mimalloc: Path) -> str:
    """What the compiler is told for each of librdkafka's files."""
    return shlex.join([f"-I{mimalloc / 'include'}", "-include", str(HEADER)])


def add(mimalloc: Path, archive: Path, log: Path) -> None:
    """Check that no memory crosses in what was compiled so, and add mimalloc to it."""
    renamed = re.findall(r"^#define (\w+) mi_", HEADER.read_text(encoding="utf-8"), re.MULTILINE)
    listed = run(["nm", "--undefined-only", "--format=posix", archive]).splitlines()
    imported = {line.split()[0].partition("@")[0] for line in listed if line}
    if crossing := sorted(imported & (CROSSING | set(renamed))):
        raise BuildError(
            f"this librdkafka uses {', '.join(crossing)}, whose memory belongs to the system's"
            " malloc: giving it to mimalloc's free() would corrupt memory. Build with"
            " KAFKA_EXT_ALLOCATOR=system, or teach wheels/allocator.py about it"
        )
    flags = [
        *("-O3", "-g1", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-fno-builtin-malloc"),
        # Not initial-exec, which mimalloc would choose: it needs room for all thread-local memory
        # of the extension at once, and librdkafka has kilobytes of it; glibc has little to spare
        # for a library that is loaded late, and musl none.
        "-ftls-model=local-dynamic",
        # At exit other threads may still be in here; the system takes the memory back without our
        # help.
        "-DMI_SKIP_COLLECT_ON_EXIT=1",
        f"-I{mimalloc / 'include'}",
        f"-I{mimalloc / 'src'}",
    ]
    compiled = mimalloc.parent / "mimalloc.o"
    run([*needs.compiler(), *flags, "-c", mimalloc / "src/static.c", "-o", compiled], log=log)
    run(["ar", "rs", archive, compiled], log=log)
