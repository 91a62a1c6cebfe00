/* Included before every file of librdkafka (allocator.py): what it allocates and frees is
 * mimalloc's. The system's headers come first, so that their own declarations keep their names. */
#ifndef KAFKA_EXT_ALLOCATOR_H
#define KAFKA_EXT_ALLOCATOR_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <mimalloc.h>

#undef strdup
#undef strndup
#define malloc mi_malloc
#define calloc mi_calloc
#define realloc mi_realloc
#define reallocarray mi_reallocarray
#define free mi_free
#define strdup mi_strdup
#define strndup mi_strndup
#define realpath mi_realpath
#define posix_memalign mi_posix_memalign
#define aligned_alloc mi_aligned_alloc
#define memalign mi_memalign
#define malloc_usable_size mi_malloc_usable_size

#endif
