/* How this module was built, as setup.py's macros say; another build system may not define them. */
#ifndef KAFKA_EXT_BUILD_H
#define KAFKA_EXT_BUILD_H

#ifndef KAFKA_EXT_LINKAGE
#define KAFKA_EXT_LINKAGE "unknown"
#endif
#ifndef KAFKA_EXT_ALLOCATOR
#define KAFKA_EXT_ALLOCATOR "unknown"
#endif
/* "openssl 3.5.7,zlib 1.3.2" where they are linked in, as in a wheel */
#ifndef KAFKA_EXT_LIBRARIES
#define KAFKA_EXT_LIBRARIES ""
#endif
/* "librdkafka-2.15.1.tar.gz": what a bundled one was compiled from */
#ifndef KAFKA_EXT_SOURCES
#define KAFKA_EXT_SOURCES ""
#endif
#ifndef KAFKA_EXT_PATCHES       /* "librdkafka-4953", see wheels/patches/ */
#define KAFKA_EXT_PATCHES ""
#endif

#ifdef KAFKA_EXT_DEBUG
#define KX_DEBUG_BUILD 1
#else
#define KX_DEBUG_BUILD 0
#endif

#endif
