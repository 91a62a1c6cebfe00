# Whether what users give as callbacks can be called, and whether calling it runs anything.

from functools import partial as _partial


cdef int _check_callback(object callback, str name) except -1:
    """Raise unless calling `callback` runs it. For a function this is two loads: on_delivery comes
    here with each record."""
    if not PyCallable_Check(callback):
        raise TypeError(f"{name} must be callable or None, not {type(callback).__name__}")
    if kx_callback_runs(callback, _partial) != KX_RUNS:
        _check_runs(callback, name, False)
    return 0


cdef bint _check_runs(object callback, str name, bint coroutines) except -1:
    cdef kx_runs runs = kx_callback_runs(callback, _partial)
    if runs == KX_RUNS or (runs == KX_COROUTINE and coroutines):
        return runs == KX_COROUTINE
    if runs == KX_COROUTINE:
        raise TypeError(
            f"{name} is a coroutine function, which nothing would await: give a plain function (it "
            "may hand over to a loop with call_soon_threadsafe)")
    raise TypeError(
        f"{name} is a generator function: calling it runs nothing of it; give a plain function")


def check_callback(callback, str name, *, coroutines=False):
    """Raise TypeError where calling `callback` would only make a generator, or, without
    `coroutines`, a coroutine.

    Returns:
        Whether it is a coroutine function.
    """
    return _check_runs(callback, name, coroutines)
