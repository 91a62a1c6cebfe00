/* What becomes of a call to a caller's function: whether it runs, or only makes a coroutine or a
 * generator that nobody would run. */
#ifndef KAFKA_EXT_CALLBACKS_H
#define KAFKA_EXT_CALLBACKS_H

#include <Python.h>

typedef enum kx_runs {
    KX_RUNS,
    KX_COROUTINE,       /* it must be awaited */
    KX_GENERATOR        /* it must be gone through; an asynchronous generator too */
} kx_runs;

static inline kx_runs kx_function_runs(PyObject *function)
{
    const int flags = ((PyCodeObject *)PyFunction_GET_CODE(function))->co_flags;
    if (flags & CO_COROUTINE)
        return KX_COROUTINE;
    return flags & (CO_GENERATOR | CO_ASYNC_GENERATOR) ? KX_GENERATOR : KX_RUNS;
}

/* Of methods, functools.partial (`partial`, the type) and objects with a __call__ of their own,
 * what is behind them. Never raises. */
static kx_runs kx_behind_runs(PyObject *callable, PyObject *partial, int depth)
{
    PyObject *behind = NULL;
    kx_runs runs = KX_RUNS;
    if (PyFunction_Check(callable))
        return kx_function_runs(callable);
    if (PyMethod_Check(callable))
        return kx_behind_runs(PyMethod_GET_FUNCTION(callable), partial, depth);
    if (PyCFunction_Check(callable) || PyType_Check(callable) || depth > 8)
        return KX_RUNS;
    if (PyObject_IsInstance(callable, partial) == 1)
        behind = PyObject_GetAttrString(callable, "func");
    else if (PyType_HasFeature(Py_TYPE(callable), Py_TPFLAGS_HEAPTYPE))
        behind = PyObject_GetAttrString((PyObject *)Py_TYPE(callable), "__call__");
    if (behind)
        runs = kx_behind_runs(behind, partial, depth + 1);
    PyErr_Clear();
    Py_XDECREF(behind);
    return runs;
}

/* For a function, the usual case, two loads. */
static inline kx_runs kx_callback_runs(PyObject *callable, PyObject *partial)
{
    return PyFunction_Check(callable) ? kx_function_runs(callable)
                                      : kx_behind_runs(callable, partial, 0);
}

#endif
