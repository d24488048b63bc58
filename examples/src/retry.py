"""Try again, a little later each time."""

import random
import time


def with_backoff(call, attempts=5):
    """Call until it works; waits twice as long after each failure, with jitter."""
    for attempt in range(attempts):
        try:
            return call()
        except OSError:
            if attempt == attempts - 1:
                raise
            time.sleep(2**attempt + random.random())
