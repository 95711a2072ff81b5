"""Ctrl-C as a question that the loop answers between two steps."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def interrupts():
    """An event that Ctrl-C sets; a second Ctrl-C raises KeyboardInterrupt at once."""
    asked = threading.Event()
    previous = signal.getsignal(signal.SIGINT)
    # Only the main thread gets signals, and who ignores them or handles them itself goes on doing so.
    if threading.current_thread() is not threading.main_thread() or previous is not signal.default_int_handler:
        yield asked
        return

    def ask(number, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)
