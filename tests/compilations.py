"""Counts the programs that XLA compiles."""

import contextlib

import jax


@contextlib.contextmanager
def count_compilations():
    """A list that receives the compile time, in seconds, of each program compiled inside."""
    events = []

    def listen(event, duration, **unused):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
