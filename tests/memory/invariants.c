/* What must never happen, made to happen: one function for each invariant (test_invariants.py). */
#include <Python.h>

#include "kafka_ext/batch.h"
#include "kafka_ext/message.h"

#define EXPORT __attribute__((visibility("default")))

static kx_pool pool;
static kx_parts parts;
static kx_part part;

static void *made(void)
{
    kx_bytes value;
    void *opaque = NULL;
    PyObject *bytes = PyBytes_FromString("a value");
    kx_bytes_get(bytes, &value, "value");
    kx_message_make(&pool, &value, 0, Py_None, NULL, NULL, &opaque);
    Py_DECREF(bytes);
    return opaque;
}

static void in_flight(void)
{
    kx_parts_init(&parts);
    kx_part_init(&part, 2, NULL, NULL);
    kx_parts_add(&parts, &part);
}

EXPORT void proper_use(void)
{
    void *first = made(), *second = made();
    kx_message_release(&pool, first);
    kx_message_release(&pool, second);
    first = made();
    kx_message_release(&pool, first);
    kx_pool_destroy(&pool);
    in_flight();
    kx_part_fail(&part, 0, -1);
    kx_part_once(&part, 1);
    kx_part_answered(&parts, &part, 2);
    if (kx_parts_take_finished(&parts) != &part)
        return;
    kx_parts_remove(&parts, &part);
    kx_part_destroy(&part);
    kx_parts_destroy(&parts);
}

EXPORT void used_after_release(void)
{
    kx_message *message = made();
    kx_message_release(&pool, message);
    message->id = NULL;
}

EXPORT void released_twice(void)
{
    void *opaque = made();
    made();
    kx_message_release(&pool, opaque);
    kx_message_release(&pool, opaque);
}

EXPORT void not_a_message(void)
{
    in_flight();
    kx_message_release(&pool, kx_part_opaque(&part, 1));
}

EXPORT void more_released_than_made(void)
{
    kx_message_release(&pool, (void *)((uintptr_t)Py_None | 1));
}

EXPORT void pool_with_messages(void)
{
    made();
    kx_pool_destroy(&pool);
}

EXPORT void pool_with_pins(void)
{
    kx_message_release(&pool, made());
    pool.pinned_bytes = 1;
    kx_pool_destroy(&pool);
}

EXPORT void answered_twice(void)
{
    in_flight();
    kx_part_once(&part, 1);
    kx_part_fail(&part, 1, -1);
}

EXPORT void answer_out_of_range(void)
{
    in_flight();
    kx_part_fail(&part, 2, -1);
}

EXPORT void more_answers(void)
{
    in_flight();
    kx_part_answered(&parts, &part, 3);
}

EXPORT void batch_unanswered(void)
{
    in_flight();
    kx_part_answered(&parts, &part, 1);
    kx_parts_remove(&parts, &part);
}

EXPORT void batch_removed_twice(void)
{
    in_flight();
    kx_part_answered(&parts, &part, 2);
    kx_parts_remove(&parts, &part);
    kx_parts_remove(&parts, &part);
}

EXPORT void parts_in_flight(void)
{
    in_flight();
    kx_parts_destroy(&parts);
}
