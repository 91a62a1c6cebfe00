# How this module was built, for those who report a bug or wonder why something is missing: what
# `kafka-ext info` prints.


cdef str _version_text(int version):
    """0xMMmmrrxx, as rdkafka.h has it, in the form people write: the last byte is 0xff for a
    release."""
    text = f"{version >> 24 & 0xff}.{version >> 16 & 0xff}.{version >> 8 & 0xff}"
    stage = version & 0xff
    return text if stage == 0xff else f"{text}-pre{stage}"


def build_info():
    """What this module is made of.

    Returns:
        dict: `librdkafka` (the version that is loaded), `librdkafka_headers` (the one it was
            compiled against), `linkage` ("bundled static", "system shared"…), `allocator`
            (librdkafka's), `libraries` (a list such as ["openssl 3.5.7", …] of those linked in,
        as in a wheel; empty where they are the machine's), `sources` (the archive a bundled
        librdkafka was compiled from, and whether that is another release than the pinned one; empty
        for the system's), `patches` (a list: which of librdkafka's defects are mended in it, see
        wheels/patches/), `features` (a list: `builtin.features`), `debug` and `free_threaded`.
    """
    cdef rd_kafka_conf_t *conf = rd_kafka_conf_new()    # owned
    try:
        features = get_conf(conf, "builtin.features")
    finally:
        rd_kafka_conf_destroy(conf)
    return {
        "librdkafka": rd_kafka_version_str().decode(),
        "librdkafka_headers": _version_text(RD_KAFKA_VERSION),
        "linkage": KAFKA_EXT_LINKAGE.decode(),
        "allocator": KAFKA_EXT_ALLOCATOR.decode(),
        "libraries": [name for name in KAFKA_EXT_LIBRARIES.decode().split(",") if name],
        "sources": KAFKA_EXT_SOURCES.decode(),
        "patches": [name for name in KAFKA_EXT_PATCHES.decode().split(",") if name],
        "features": sorted(features.split(",")) if features else [],
        "debug": KX_DEBUG_BUILD,
        "free_threaded": KX_FREE_THREADED,
    }
