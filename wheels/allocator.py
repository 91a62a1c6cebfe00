"""Give librdkafka an allocator of its own: mimalloc, inside lib/librdkafka.a, hidden, with no
preload.

Each message is allocated by the thread that sends and freed by the one that serves reports, and in
glibc's malloc the two wait for each other's lock while one of them holds the GIL. So in
librdkafka's objects, and nowhere else in the process, the names malloc, free and their like are
changed to mimalloc's.

That is right only while memory never crosses: what librdkafka frees it must have allocated, and
what it allocates nobody else may free. The imports of librdkafka 2.14.2 were read one by one for
that, and those that 2.15.1 added. Two functions of curl hand out memory that librdkafka releases
with free(): they get a wrapper that copies. The build fails when an archive imports anything else
known to hand out memory to free(). What remains is the border to the application, and kafka_ext's
own side of it is written to this rule:

- never RD_KAFKA_MSG_F_FREE, and never a `metadata` of a topic partition list that was not allocated
  with rd_kafka_mem_malloc();
- what librdkafka gave away (rd_kafka_memberid() and the like) is released with rd_kafka_mem_free(),
  never with free().
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import needs
from console import BuildError, run
from sources import Project, Sources

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

REDIRECTED = {
    "malloc": "mi_malloc",
    "calloc": "mi_calloc",
    "realloc": "mi_realloc",
    "reallocarray": "mi_reallocarray",
    "free": "mi_free",
    "strdup": "mi_strdup",
    "strndup": "mi_strndup",
    "realpath": "mi_realpath",
    "posix_memalign": "mi_posix_memalign",
    "aligned_alloc": "mi_aligned_alloc",
    "memalign": "mi_memalign",
    "malloc_usable_size": "mi_malloc_usable_size",
    "curl_easy_escape": "kafka_ext_curl_easy_escape",
    "curl_url_get": "kafka_ext_curl_url_get",
    "curl_free": "kafka_ext_curl_free",
}

# curl's strings, copied to where librdkafka's free() can release them.
SHIM = r"""
#include <curl/curl.h>
#include <mimalloc.h>

char *kafka_ext_curl_easy_escape(CURL *handle, const char *string, int length) {
        char *theirs = curl_easy_escape(handle, string, length);
        char *ours   = theirs ? mi_strdup(theirs) : NULL;
        curl_free(theirs);
        return ours;
}

CURLUcode kafka_ext_curl_url_get(CURLU *url, CURLUPart what, char **part, unsigned int flags) {
        char *theirs   = NULL;
        CURLUcode code = curl_url_get(url, what, &theirs, flags);
        *part = theirs ? mi_strdup(theirs) : NULL;
        curl_free(theirs);
        return code == CURLUE_OK && !*part ? CURLUE_OUT_OF_MEMORY : code;
}

/* What it is given comes from the two above. */
void kafka_ext_curl_free(void *memory) {
        mi_free(memory);
}
"""

# Functions that hand out memory the caller must free(), or take memory that they will free()
# themselves, and that are not redirected.
CROSSING = frozenset(
    """
    __asprintf_chk __getcwd_chk __getdelim __realpath_chk __strdup __strndup __vasprintf_chk argz_add argz_append argz_create
    asprintf backtrace_symbols canonicalize_file_name get_current_dir_name getcwd getdelim getline open_memstream open_wmemstream
    pvalloc scandir scandir64 tempnam valloc vasprintf wcsdup
    curl_easy_unescape curl_escape curl_getenv curl_maprintf curl_mvaprintf curl_unescape
    ASN1_STRING_set0
    """.split()
)


def unsupported() -> str:
    """Why not here; empty when it can be done. The names are changed in ELF objects, by
    binutils.
    """
    if sys.platform != "linux":
        return f"it is only tried on Linux, not on {sys.platform}"
    missing = [tool for tool in ("nm", "objcopy", "ar") if shutil.which(tool) is None]
    return f"binutils' {', '.join(missing)} is missing" if missing else ""


def _imports(archive: Path) -> set[str]:
    """The names an archive takes from elsewhere: undefined in one of its objects,
    defined in none.
    """
    undefined: set[str] = set()
    defined: set[str] = set()
    for line in run(["nm", "--format=posix", archive]).splitlines():
        name, *rest = line.split()
        if rest:
            (undefined if rest[0] in "Uw" else defined).add(name.partition("@")[0])
    return undefined - defined


def _flags(source: Path) -> list[str]:
    return [
        *("-O3", "-g1", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-fno-builtin-malloc"),
        # Not initial-exec, which mimalloc would choose: it needs room for all thread-local memory
        # of the extension at once, and librdkafka has kilobytes of it; glibc has little to spare
        # for a library that is loaded late, and musl none.
        "-ftls-model=local-dynamic",
        # At exit other threads may still be in here; the system takes the memory back without our
        # help.
        "-DMI_SKIP_COLLECT_ON_EXIT=1",
        f"-I{source / 'include'}",
        f"-I{source / 'src'}",
    ]


def merge(mimalloc: Sources, archive: Path, headers: Path | None, log: Path) -> None:
    """Change the names in librdkafka's archive and add mimalloc to it. `headers`: curl's, where
    they are not the machine's.
    """
    crossing = sorted(_imports(archive) & CROSSING)
    if crossing:
        raise BuildError(
            f"this librdkafka uses {', '.join(crossing)}, whose memory belongs to the system's"
            " malloc: giving it to mimalloc's free() would corrupt memory. Build with"
            " KAFKA_EXT_ALLOCATOR=system, or teach wheels/allocator.py about it"
        )
    work = mimalloc.folder.parent
    names = work / "names"
    names.write_text("".join(f"{theirs} {ours}\n" for theirs, ours in REDIRECTED.items()))
    run(["objcopy", f"--redefine-syms={names}", archive], log=log)
    remaining = sorted(_imports(archive) & set(REDIRECTED))
    if remaining:
        raise BuildError(
            f"objcopy left {', '.join(remaining)} in {archive}; build with"
            " KAFKA_EXT_ALLOCATOR=system"
        )
    shim = work / "kafka_ext_allocator_shim.c"
    shim.write_text(SHIM)
    objects = []
    for unit in (mimalloc.folder / "src/static.c", shim):
        objects.append(work / f"mimalloc_{unit.stem}.o")
        include = [] if headers is None else [f"-I{headers}"]
        run(
            [*needs.compiler(), *_flags(mimalloc.folder), *include, "-c", unit, "-o", objects[-1]],
            log=log,
        )
    run(["ar", "rs", archive, *objects], log=log)
