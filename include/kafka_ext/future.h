/* An asyncio.Future without its constructor, which asks the loop for get_debug(), a function in
 * Python: a tenth of a send.
 *
 * What a new one is made of is looked at, not known: on CPython 3.10 to 3.14 it is zeros but for
 * the loop. Where it is anything else (a loop in debug mode notes a traceback, another version has
 * another field) kx_future_loop_at() says so, and the loop makes its futures.
 */
#ifndef KAFKA_EXT_FUTURE_H
#define KAFKA_EXT_FUTURE_H

#include <Python.h>
#include <string.h>

/* Where in `future`, which is new, its loop is, in bytes from the start; 0 when there is more in
 * it than that, or the loop is not. */
static inline Py_ssize_t kx_future_loop_at(PyObject *future, PyObject *loop)
{
    const Py_ssize_t size = Py_TYPE(future)->tp_basicsize;
    Py_ssize_t at, found = 0;
    for (at = (Py_ssize_t)sizeof(PyObject); at + (Py_ssize_t)sizeof(void *) <= size;
         at += (Py_ssize_t)sizeof(void *)) {
        void *word;
        memcpy(&word, (const char *)future + at, sizeof(word));
        if (!word)
            continue;
        if (word != (void *)loop || found)
            return 0;
        found = at;
    }
    return at == size ? found : 0;
}

/* A new reference to what `type(loop=loop)` would have made, but out of the garbage collector's
 * sight (kx_future_shown); NULL with the error set. tp_alloc gives zeros. */
static inline PyObject *kx_future_new(PyTypeObject *type, PyObject *loop, Py_ssize_t loop_at)
{
    PyObject *future = type->tp_alloc(type, 0);
    if (future) {
        Py_INCREF(loop);
        memcpy((char *)future + loop_at, &loop, sizeof(loop));
        PyObject_GC_UnTrack(future);
    }
    return future;
}

/* A future in flight is no garbage, and neither is what it refers to: the record's report has a
 * reference. So until then no collection need walk over tens of thousands of them; from its
 * report on it is an object as any other. */
static inline void kx_future_shown(PyObject *future)
{
    if (!PyObject_GC_IsTracked(future))
        PyObject_GC_Track(future);
}

/* `await` asks a type for this slot before it asks for __next__, and takes the result without a
 * StopIteration around it. Cython has no way to name it. */
static inline void kx_set_am_send(PyTypeObject *type,
                                  int (*send)(PyObject *, PyObject *, PyObject **))
{
    type->tp_as_async->am_send = (sendfunc)send;
    PyType_Modified(type);
}

#endif
