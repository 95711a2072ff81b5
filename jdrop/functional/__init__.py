"""Pure functions f(key, x, rate, deterministic, *, ...)."""
